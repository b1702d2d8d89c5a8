"""`overair demo`: the whole story on this machine, with a real publisher, server, device and model."""

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from overair.cli import output, tiny_model
from overair.device.updater import Updater
from overair.engines.base import Engine, create, installed
from overair.errors import EngineError, EngineMissingError, StorageError, UsageError
from overair.model.offer import Offer
from overair.model.report import Staged
from overair.publish.repository import Repository
from overair.publish.serve import Server

MODEL_NAME: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT: Final = "In one sentence, what is the sea?"
MAX_TOKENS: Final = 40
TIER: Final = "135m"
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

    def _publish(self, version: str, file: Path, title: str) -> None:
        with self._scene(title) as scene:
            done = self._repo.publish([file], tier=TIER, version=version, notes=f"the demo's {version}")
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
                with _background_update(self._device.path) as process:
                    text = session.generate(PROMPT, max_tokens=MAX_TOKENS)
                    process.wait(_BACKGROUND_LIMIT_S)
                pending = self._device.status().pending
                scene.update(
                    version=session.bundle.version,
                    text=text,
                    reason=f"{pending.version if pending else 'nothing'} is staged meanwhile",
                )

    def _bad_release(self) -> None:
        """A release that no engine can load goes out; the device returns by itself and does not take it again."""
        spoiled = tiny_model.spoil(self._base, self._folder / "model-1.2.0.gguf")
        self._publish("1.2.0", spoiled, "Publish 1.2.0, whose weights cannot be loaded")
        self._update("The device takes it")
        self._session("The next session finds out, and returns to the previous model")
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


@contextlib.contextmanager
def _background_update(store: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The same command that a user would type, in another process."""
    command = [sys.executable, "-m", "overair", "device", "update", "--store", str(store)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()
    if process.returncode and process.stderr is not None:
        raise StorageError(f"the update in the background ended with code {process.returncode}")
