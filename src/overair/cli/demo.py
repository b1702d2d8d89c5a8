"""`overair demo`: the whole story on this machine, with a real publisher, server, device and model."""

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from overair.cli import output, tiny_model
from overair.device.updater import Updater
from overair.engines.base import Engine, create, installed
from overair.errors import EngineError, EngineMissingError, ProbeError, StorageError, UsageError
from overair.model.offer import Offer
from overair.model.probe import ProbePolicy
from overair.model.report import Staged
from overair.publish.repository import Repository
from overair.publish.serve import Server

MODEL_NAME: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT: Final = "In one sentence, what is the sea?"
MAX_TOKENS: Final = 40
TIER: Final = "135m"
# One short question: the built-in ones would take most of the story's time.
POLICY: Final = ProbePolicy(prompts=("What is the sea?",), max_tokens=8)
_BACKGROUND_LIMIT_S: Final = 100.0


class Scene(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of the story, as data."""

    title: str
    seconds: float
    version: str | None = None
    bytes: int | None = None
    text: str | None = None
    reason: str | None = None


def run_demo(*, keep: Path | None, model: Path | None, as_json: bool) -> None:
    """Tell the story, and clean up.

    Raises:
        UsageError: `keep` is a folder with something in it.
        EngineMissingError: No engine is installed.
        OverairError: A step went wrong.
    """
    engine = _engine()
    started = time.monotonic()
    logging.getLogger("overair").setLevel(logging.ERROR)
    with _folder(keep) as folder:
        base, real = _model(model, folder)
        story = _Story(folder, base, engine, quiet=as_json)
        story.say(f"The model is {base.name}, {output.size(base.stat().st_size)}; the engine is {engine.version}.")
        if not real:
            story.say(f"{MODEL_NAME} is not here, so this is a tiny model with random weights: it babbles.")
        story.say(
            "The publisher signs with a key that was made for this demo; the device trusts its root and nothing else."
        )
        story.tell()
        scenes, seconds = story.scenes, time.monotonic() - started
    data = {"model": base.name, "real_model": real, "engine": engine.version, "seconds": seconds, "scenes": scenes}
    left = f"Everything is still in {keep}." if keep else "Nothing is left behind."
    output.result(data, ["", f"That was the whole story, in {output.duration(seconds)}. {left}"], as_json=as_json)


class _Story:
    """The publisher on one side, the device on the other, and an HTTP server between them."""

    def __init__(self, folder: Path, base: Path, engine: Engine, *, quiet: bool) -> None:
        self.scenes: list[Scene] = []
        self._folder = folder
        self._base = base
        self._engine = engine
        self._quiet = quiet

    def tell(self) -> None:
        """The journey from top to bottom."""
        site = self._folder / "site"
        site.mkdir()
        with Server(site) as server:
            self._repo = Repository.init(site, base_url=server.url, dev=True)
            self._publish("1.0.0", self._base, "Publish 1.0.0")
            root = self._repo.root_path
            with Updater(self._folder / "device", url=server.url, root=root, tier=TIER, app_version="1.0.0") as device:
                self._device = device
                self._update("Install it over HTTP")
                first = self._session("Start a session")
                self._update_while_running()
                self._session("The next session swaps it in")
                self._bad_release()
                self._take_back(first)

    def say(self, line: str) -> None:
        """Print a line of the story."""
        if not self._quiet:
            output.result(None, [line], as_json=False)

    def _publish(self, version: str, file: Path, title: str, *, probe: bool = True) -> None:
        with self._scene(title) as scene:
            done = self._repo.publish(
                [file], tier=TIER, version=version, notes=f"the demo's {version}", policy=POLICY, probe=probe
            )
            scene.update(version=version, bytes=done.new_bytes, reason=done.effect)

    def _update(self, title: str) -> None:
        with self._scene(title) as scene:
            staged = self._device.update()
            if not isinstance(staged, Staged):
                raise StorageError(f"the demo expected a release to install: {staged.explanation}")
            scene.update(version=staged.release.version, bytes=staged.bytes_fetched)

    def _session(self, title: str) -> str:
        with self._scene(title) as scene, self._device.session(self._engine) as session:
            text = session.generate(PROMPT, max_tokens=MAX_TOKENS)
            scene.update(version=session.bundle.version, text=text)
        return text

    def _update_while_running(self) -> None:
        """A new release comes while a session generates, and the session keeps its model."""
        changed = tiny_model.retouch(self._base, self._folder / "model-1.1.0.gguf")
        with self._device.session(self._engine) as session:
            self._publish("1.1.0", changed, "Publish 1.1.0 while a session runs")
            with self._scene("Update in another process; the session keeps its model") as scene:
                job = self._device.update_in_background()
                text = session.generate(PROMPT, max_tokens=MAX_TOKENS)
                job.wait(_BACKGROUND_LIMIT_S)
                pending = self._device.status().pending
                scene.update(
                    version=session.bundle.version,
                    text=text,
                    reason=f"{pending.version if pending else 'nothing'} is staged meanwhile",
                )

    def _bad_release(self) -> None:
        """A release that no engine can load goes out all the same; the device finds out, and does not take it again."""
        spoiled = tiny_model.spoil(self._base, self._folder / "model-1.2.0.gguf")
        with self._refused("Publish 1.2.0, whose weights cannot be loaded: the publisher's own probe says no"):
            self._repo.publish([spoiled], tier=TIER, version="1.2.0", policy=POLICY)
        self._publish("1.2.0", spoiled, "Publish it all the same, with --no-probe", probe=False)
        with self._refused("The device probes it in a process of its own, and keeps the model that it has"):
            self._device.update()
        self._session("The next session runs 1.1.0")
        with self._scene("Check again") as scene:
            answer = self._device.check()
            if isinstance(answer, Offer):
                raise EngineError(f"the demo expected no offer: {answer.explanation}")
            scene.update(reason=answer.explanation)

    def _take_back(self, first: str) -> None:
        """The publisher withdraws what runs everywhere, and the device returns to 1.0.0."""
        with self._scene("The publisher withdraws 1.1.0") as scene:
            change = self._repo.withdraw(tier=TIER, version="1.1.0", reason="answers differ")
            scene.update(reason=change.effect)
        self._update("The device is told to go back")
        again = self._session("The next session runs 1.0.0 again")
        self.say(f"     {'the same answer as at first' if again == first else 'another answer than at first!'}")

    @contextlib.contextmanager
    def _refused(self, title: str) -> Iterator[None]:
        """A step that ends with a probe that fails."""
        with self._scene(title) as scene:
            try:
                yield
            except ProbeError as error:
                scene.update(reason=error.message)
                return
            raise EngineError("the demo expected a probe to fail")

    @contextlib.contextmanager
    def _scene(self, title: str) -> Iterator[dict[str, Any]]:
        """Time a step, and tell what came of it."""
        facts: dict[str, Any] = {}
        started = time.monotonic()
        yield facts
        scene = Scene(title=title, seconds=time.monotonic() - started, **facts)
        self.scenes.append(scene)
        self.say(f"\n{len(self.scenes):2}. {title}  ({output.duration(scene.seconds)})")
        if scene.version:
            moved = f", {output.size(scene.bytes)} moved" if scene.bytes is not None else ""
            self.say(f"     version {scene.version}{moved}")
        if scene.reason:
            self.say(f"     {scene.reason}")
        if scene.text is not None:
            self.say(f"     > {' '.join(scene.text.split())}")


def _engine() -> Engine:
    names = installed()
    if not names:
        raise EngineMissingError("no engine is installed", hint='pip install "overair[xllamacpp]"')
    return create(names[0])


def _model(given: Path | None, folder: Path) -> tuple[Path, bool]:
    """The file to tell the story with, and whether it is a real model."""
    if given is not None:
        if not given.is_file():
            raise UsageError(f"there is no file {given}", hint="name a GGUF file with --model")
        return given, True
    fetched = Path(os.environ.get("OVERAIR_MODELS", ".models")) / MODEL_NAME
    if fetched.is_file():
        return fetched, True
    return tiny_model.write_tiny_model(folder / "tiny.gguf"), False


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """The folder that the story plays in: removed at the end, unless it is to be kept."""
    if keep is None:
        path = Path(tempfile.mkdtemp(prefix="overair-demo-"))
        try:
            yield path
        finally:
            shutil.rmtree(path)
        return
    if keep.exists() and any(keep.iterdir()):
        raise UsageError(f"{keep} is not empty", hint="name a new folder")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep
