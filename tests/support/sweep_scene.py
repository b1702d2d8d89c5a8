"""One signed repository and, made from it step by step, the stores that the journeys of the sweeps start from."""

import hashlib
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from overair.device.updater import Updater
from overair.errors import CancelledError, EngineError
from overair.host import clock
from overair.model.conditions import Conditions
from overair.model.release import Bundle, Release
from overair.store.store import Store
from support.sweep_process import run

TIER: Final = "1b"
BASE_URL: Final = "https://models.example.com"
OLD, GOOD, NEW = "0.9.0", "1.0.0", "1.1.0"
ANYWHERE: Final = Conditions(min_free_bytes=0)
# More than two buffers of the download, so that it is written in several calls.
_FLOATS: Final = 300_000


class DigestEngine:
    """Loads a bundle by hashing its files, and answers with the version; some versions do not load."""

    name = "digest"
    version = "digest 1"

    def __init__(self, refused: frozenset[str] = frozenset()) -> None:
        self.ran = ""
        self.digests: tuple[str, ...] = ()
        self._refused = refused

    def load(self, bundle: Bundle) -> None:
        try:
            self.digests = tuple(sha256_of(path) for path in (bundle.model, *bundle.adapters))
        except OSError as error:
            raise EngineError(f"cannot read {bundle.model}: {error}") from error
        if bundle.version in self._refused:
            raise EngineError(f"{bundle.version} does not load, on purpose")
        self.ran = bundle.version

    def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
        return f"{self.ran} says {prompt}"[:max_tokens]

    def unload(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Scene:
    """Where the repository and the prepared stores are, and what was published."""

    folder: Path
    releases: dict[str, tuple[str, ...]]

    @property
    def site(self) -> Path:
        return self.folder / "site"

    @property
    def root(self) -> Path:
        return self.folder / "site-keys" / "root.json"

    def start(self, name: str) -> Path:
        return self.folder / "starts" / name

    def open(self, store: Path) -> Updater:
        return Updater(store)

    def set_up(self, store: Path) -> Updater:
        return Updater(store, url=BASE_URL, tier=TIER, root=self.root)

    def update(self, updater: Updater, cancel_after: int | None = None) -> None:
        cancel = threading.Event()

        def watch(done: int) -> None:
            if cancel_after is not None and done >= cancel_after:
                cancel.set()

        updater.update(folder=self.site, conditions=ANYWHERE, cancel=cancel, on_progress=lambda p: watch(p.bytes_done))


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_store(source: Path, target: Path) -> Path:
    """A copy with the hard links, times and permissions of the original; what was there is gone."""
    if target.exists():
        shutil.rmtree(target)
    subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(target)], check=True, timeout=60)
    return target


def flip(path: Path, offset: int = -1) -> None:
    """Turn one bit of a file round, in place; by default in the middle."""
    data = bytearray(path.read_bytes())
    data[offset if offset >= 0 else len(data) // 2] ^= 0x10
    mode = path.stat().st_mode
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(data)
    path.chmod(mode)


def make_scene(folder: Path) -> Scene:
    """Publish and install, one release after the other."""
    (folder / "starts").mkdir(parents=True)
    scene = Scene(folder, {})
    _in_child(lambda: _publish(folder, OLD, seed=1))
    _first_steps(scene)
    _in_child(lambda: _publish(folder, NEW, seed=3, adapter=True))
    _trials(scene)
    _accidents(scene)
    return Scene(folder, _what_was_published(scene))


def _in_child(work: Callable[[], object], *, ends: int = 0) -> None:
    ended = run(lambda _say: (work(), None)[1])
    if ended.code != ends:
        raise RuntimeError(f"the scene cannot be made: {ended.code} {ended.error}")


def _publish(folder: Path, version: str, *, seed: int, adapter: bool = False) -> None:
    from overair.publish.repository import Repository
    from support.published import adapter_file, model_file

    def now() -> datetime:
        return max(clock.utc_now(), clock.BUILT_AT)

    site = folder / "site"
    if not site.exists():
        Repository.init(site, base_url=BASE_URL, dev=True, clock=now)
    model = model_file(folder / f"model-{version}.gguf", seed, floats=_FLOATS if adapter else 64)
    adapters = [adapter_file(folder / f"adapter-{version}.gguf", seed)] if adapter else []
    Repository(site, clock=now).publish([model], tier=TIER, version=version, adapters=adapters, probe=False)


def _session(store: Path, *, answer: bool = True, refused: frozenset[str] = frozenset()) -> None:
    with Updater(store).session(DigestEngine(refused)) as session:
        if answer:
            session.generate("hello")


def _first_steps(scene: Scene) -> None:
    store = scene.start("old")
    _in_child(lambda: scene.update(scene.set_up(store)))
    _in_child(lambda: _session(store))
    store = copy_store(store, scene.start("proven"))
    _in_child(lambda: _publish(scene.folder, GOOD, seed=2))
    _in_child(lambda: scene.update(scene.open(store)))
    _in_child(lambda: _session(store))


def _trials(scene: Scene) -> None:
    half = copy_store(scene.start("proven"), scene.start("half"))
    _in_child(lambda: scene.update(scene.open(half), cancel_after=1), ends=CancelledError.exit_code)
    pending = copy_store(scene.start("proven"), scene.start("pending"))
    _in_child(lambda: scene.update(scene.open(pending)))
    trial = copy_store(pending, scene.start("trial"))
    _in_child(lambda: _session(trial, answer=False))
    confirmed = copy_store(trial, scene.start("confirmed"))
    _in_child(lambda: _session(confirmed))
    quarantined = copy_store(pending, scene.start("quarantined"))
    _in_child(lambda: _session(quarantined, refused=frozenset({NEW})))


def _accidents(scene: Scene) -> None:
    crashed = copy_store(scene.start("pending"), scene.start("crashed"))
    for _ in range(2):
        _crash(crashed)
    damaged = copy_store(scene.start("confirmed"), scene.start("damaged"))
    flip(next(path for path in damaged.glob("releases/*/model-*.gguf") if NEW in path.name))
    adapter = next(damaged.glob("releases/*/adapter-*.gguf"))
    adapter.unlink()
    adapter.write_bytes(b"rot")
    lost = copy_store(scene.start("quarantined"), scene.start("lost"))
    for state in lost.glob("state.*.json"):
        flip(state)
    _litter(copy_store(scene.start("confirmed"), scene.start("rubbish")), scene.start("old"))


def _crash(store: Path) -> None:
    """A session whose process dies in the load, without a word."""
    import os
    import signal

    class Deadly(DigestEngine):
        def load(self, bundle: Bundle) -> None:  # noqa: ARG002 - it does not come to that
            os.kill(os.getpid(), signal.SIGKILL)

    def session() -> None:
        with Updater(store).session(Deadly()):
            pass

    _in_child(session, ends=-9)


def _litter(store: Path, old: Path) -> None:
    """Everything that a process can leave that died at a bad moment."""
    for folder in ("blobs", "releases"):
        subprocess.run(["cp", "-a", f"{old / folder}/.", str(store / folder)], check=True, timeout=60)
    (store / "leases" / ("a" * 32)).write_bytes(b"bother boot")
    (store / "leases" / f"{'a' * 32}.lock").touch()


def _what_was_published(scene: Scene) -> dict[str, tuple[str, ...]]:
    releases: dict[str, tuple[str, ...]] = {}
    for name in ("old", "proven", "pending"):
        for release in _releases(scene.start(name)):
            releases[release.version] = tuple(
                sha256_of(scene.folder / f"{a.role}-{release.version}.gguf")
                for a in release.artifacts
                if a.role in {"model", "adapter"}
            )
    return releases


def _releases(store: Path) -> Iterator[Release]:
    for slot in Store(store).read().slots():
        yield slot.release
