"""What a device does when the power fails, and what must hold when it is back."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from overair import Conditions, Updater
from overair.device.repair import verify
from overair.errors import EngineError, IllegalEventError
from overair.host import clock
from overair.model.release import Bundle
from overair.publish.repository import Repository
from overair.store.leases import Lease
from overair.store.partial import Partial
from overair.store.store import Store
from overair.transport.folder import Folder
from support.devices import bring, staged
from support.power_promises import (
    Promise,
    both,
    describe,
    either,
    has_half,
    has_paid,
    has_pending,
    has_previous,
    is_barred,
    is_current,
    is_here,
    is_idle,
    is_installed,
    is_set_up,
    is_sound,
    is_unreadable,
    rubbish,
)
from support.published import BASE_URL, model_file, sha256_of
from support.tracing import Say

OLD, NEW, OLDER = "1.0.0", "1.1.0", "0.9.0"
_SMALL_DISK: Final = Conditions(min_free_bytes=0)


class Scene:
    """A publisher's repository before and after a release, and the digests of every model that may run.

    Args:
        folder: Where it is made.
    """

    def __init__(self, folder: Path) -> None:
        tree = folder / "tree"
        Repository.init(tree, base_url=BASE_URL, dev=True)
        publisher = Repository(tree)
        self.root = (tree / "metadata" / "1.root.json").read_bytes()
        self.digests: dict[str, set[str]] = {}
        self.repositories: dict[str, Path] = {}
        for seed, version in enumerate((OLD, NEW)):
            file = model_file(folder / "model.gguf", seed)
            publisher.publish([file], tier="1b", version=version, probe=False)
            self.digests[version] = {sha256_of(file)}
            self.repositories[version] = folder / version
            shutil.copytree(tree, folder / version)

    def updater(self, store: Path) -> Updater:
        return Updater(store, url=BASE_URL, tier="1b", root=self.root)

    def knows(self, version: str, digest: str) -> bool:
        """Whether these are the bytes of a version: published, or scripted by a journey."""
        return digest in self.digests.get(version, ()) or digest in {
            hashlib.sha256(f"model {version}\n{script}".encode()).hexdigest() for script in ("", "load fail")
        }


@dataclass(frozen=True, slots=True)
class Journey:
    """Something that a device does.

    Args:
        name: What.
        prepare: Make the store that it starts from.
        run: Do it, and say what has been acknowledged; it can be done again after a cut.
        runs: The versions that may run after a cut; None where none may be installed.
        end: What holds once it has been done again.
        always: What holds after a cut, whatever was said.
        promises: What must hold after a cut, by what was said before it.
        damaged: The disk is damaged when it begins, so the state or the bytes may be bad until it has ended.
    """

    name: str
    prepare: Callable[[Scene, Path], None]
    run: Callable[[Scene, Path, Say], None]
    runs: frozenset[str | None]
    end: Promise
    always: Promise = lambda _: True
    promises: dict[str, Promise] = field(default_factory=dict)
    damaged: bool = False

    def check(self, scene: Scene, path: Path, said: list[str]) -> None:
        """What must hold when the power is back.

        Raises:
            AssertionError: Something does not; the message names it.
        """
        _boot_anew()
        store = Store(path)
        if not self.damaged:
            self._holds(scene, store)
        assert self.always(store), f"the disk has: {describe(store)}"
        for line in said:
            assert self.promises[line](store), f"{line!r} was said, and the disk has: {describe(store)}"
        if not self.damaged:
            self._starts(scene, path)
        self.run(scene, path, lambda _: None)
        assert self.end(store), f"done again, the journey leads to: {describe(store)}"
        self._starts(scene, path)
        with scene.updater(path) as updater:
            updater.collect_garbage()
        left = rubbish(store)
        assert not left, f"rubbish is left: {', '.join(left)}"

    def _holds(self, scene: Scene, store: Store) -> None:
        """The state can be read, and what it names is here, whole."""
        state = store.read()
        for slot in state.slots():
            assert scene.knows(slot.release.version, slot.release.model.sha256), f"{slot.release.version} is another"
            for artifact in slot.release.artifacts:
                wrong = store.blobs.verify(artifact)
                assert wrong is None, f"{artifact.name} of {slot.release.version} is {wrong}"

    def _starts(self, scene: Scene, path: Path) -> None:
        """A session starts with one of the models that may run, byte for byte."""
        with scene.updater(path) as updater:
            try:
                with updater.session(Engine()) as session:
                    bundle = session.bundle
                    release = next(slot.release for slot in Store(path).read().slots() if slot.id == bundle.id)
                    for artifact in release.artifacts:
                        digest = sha256_of(bundle.model.with_name(artifact.name))
                        assert digest == artifact.sha256, f"{artifact.name} of {bundle.version} runs with other bytes"
            except IllegalEventError:
                assert None in self.runs, "nothing is installed"
                return
        assert bundle.version in self.runs, f"{bundle.version} runs"


class Engine:
    """Loads any bytes but those that say that they do not load; says what it loads."""

    name = "bytes"
    version = "bytes 1"

    def __init__(self, say: Say = lambda _: None) -> None:
        self._say = say
        self._data = b""

    def load(self, bundle: Bundle) -> None:
        self._say(f"loading {bundle.version}")
        self._data = bundle.model.read_bytes()
        if b"load fail" in self._data:
            raise EngineError("does not load, on purpose")

    def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
        return f"{prompt}: {len(self._data)}"[:max_tokens]

    def unload(self) -> None:
        self._data = b""


def _boot_anew() -> None:
    """A machine that lost its power has another boot identifier when it is back."""
    clock._LINUX_BOOT_ID = Path(os.devnull)  # type: ignore[misc]  # the kernel's own file cannot be changed


# --- the stores that journeys start from ---------------------------------------------------------------------------


def _nothing(scene: Scene, path: Path) -> None:
    pass


def _published(scene: Scene, path: Path) -> None:
    """The old release came from the publisher, and is proven."""
    with scene.updater(path) as updater:
        updater.update(folder=scene.repositories[OLD], conditions=_SMALL_DISK)
    _prove(scene, path)


def _prove(scene: Scene, path: Path) -> None:
    with scene.updater(path) as updater, updater.session(Engine()) as session:
        session.generate("hello")


def _scripted(*versions: str, pending: str | None = None, script: str = "") -> Callable[[Scene, Path], None]:
    """Releases that were installed and proven one after the other, and perhaps one that is staged."""

    def prepare(scene: Scene, path: Path) -> None:
        scene.updater(path).close()
        for version in versions:
            staged(Store(path), version)
            _prove(scene, path)
        if pending is not None:
            staged(Store(path), pending, script, adapter=f"adapter {pending}")

    return prepare


def _littered(scene: Scene, path: Path) -> None:
    """Blobs, installed releases and leases that nothing names any more."""
    _scripted(OLD)(scene, path)
    store = Store(path)
    for version in ("0.1.0", "0.2.0"):
        store.blobs.install(bring(store, version, adapter=version))
    bring(store, "0.3.0")
    Lease(store.layout.leases, "0" * 32, "another boot").release(keep_note=True)


def _rotten(scene: Scene, path: Path) -> None:
    """A bit of the current model has flipped."""
    _published(scene, path)
    (blob,) = Store(path).layout.blobs.iterdir()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)


def _unreadable(scene: Scene, path: Path) -> None:
    """Both copies of the state are damaged, and one release is in quarantine."""
    _scripted(OLD, pending=NEW, script="load fail")(scene, path)
    _start(scene, path, lambda _: None)
    for copy in Store(path).layout.state_copies:
        copy.write_bytes(copy.read_bytes()[:-20])


# --- what the device does --------------------------------------------------------------------------------------------


def _update(version: str) -> Callable[[Scene, Path, Say], None]:
    def run(scene: Scene, path: Path, say: Say) -> None:
        with scene.updater(path) as updater:
            say("set up")
            updater.update(folder=scene.repositories[version], conditions=_SMALL_DISK)
            say(f"staged {version}")

    return run


def _update_without_links(scene: Scene, path: Path, say: Say) -> None:
    """What a file system without hard links answers."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    os.link = refuse
    _update(NEW)(scene, path, say)


def _interrupted(scene: Scene, path: Path, say: Say) -> None:
    """Half of a download came before; then all of it."""
    (digest,) = scene.digests[NEW]
    url = f"{BASE_URL}/blobs/sha256/{digest[:2]}/{digest}"
    with Folder(scene.repositories[NEW], BASE_URL).open(url) as body:
        data = body.file.read()
        with Partial.open(Store(path).layout.partial, digest, len(data)) as partial:
            partial.restart(url, body.etag)
            partial.write(memoryview(data)[: len(data) // 2])
            partial.checkpoint()
            say("half came")
    _update(NEW)(scene, path, say)


def _start(scene: Scene, path: Path, say: Say) -> None:
    with scene.updater(path) as updater:
        with updater.session(Engine(say)) as session:
            session.generate("hello")
            say(f"answered {session.bundle.version}")
        say("ended")


def _swap(scene: Scene, path: Path, say: Say) -> None:
    """Another program runs the engine."""
    with scene.updater(path) as updater:
        say(f"swapped to {updater.swap().bundle.version}")
        updater.confirm()
        say(f"answered {NEW}")


def _roll_back(scene: Scene, path: Path, say: Say) -> None:
    with scene.updater(path) as updater:
        if is_current(NEW)(Store(path)):
            updater.rollback(reason="on purpose")
        say("rolled back")


def _collect(scene: Scene, path: Path, say: Say) -> None:
    with scene.updater(path) as updater:
        updater.collect_garbage()
        say("collected")


def _repair(scene: Scene, path: Path, say: Say) -> None:
    verify(Store(path), Folder(scene.repositories[OLD], BASE_URL), repair=True)
    say("repaired")


def _recover(scene: Scene, path: Path, say: Say) -> None:
    with scene.updater(path) as updater:
        if is_unreadable(Store(path)):
            updater.recover()
        say("recovered")


_STEPPED_BACK: Final = both(is_current(OLD), is_barred(NEW))
_CONFIRMED: Final = is_current(NEW)
_WAITING: Final = both(is_current(OLD), has_pending(NEW))
_SWAPPED: Final = both(is_current(NEW, proven=False), has_previous(OLD))

JOURNEYS: Final = (
    Journey(
        "install", _nothing, _update(OLD), frozenset({None, OLD}), is_here(OLD), always=is_current(None),
        promises={"set up": is_set_up, f"staged {OLD}": is_here(OLD)},
    ),
    Journey(
        "update", _published, _update(NEW), frozenset({OLD, NEW}), is_here(NEW), always=is_current(OLD),
        promises={"set up": is_set_up, f"staged {NEW}": is_here(NEW)},
    ),
    Journey(
        "update without links", _published, _update_without_links, frozenset({OLD, NEW}), is_here(NEW),
        always=is_current(OLD), promises={"set up": is_set_up, f"staged {NEW}": both(is_here(NEW), is_installed)},
    ),
    Journey(
        "interrupted download", _published, _interrupted, frozenset({OLD, NEW}), is_here(NEW),
        always=is_current(OLD),
        promises={"half came": either(has_half, is_here(NEW)), "set up": is_set_up, f"staged {NEW}": is_here(NEW)},
    ),
    Journey(
        "swap and confirm", _scripted(OLDER, OLD, pending=NEW), _start, frozenset({OLD, NEW}), _CONFIRMED,
        always=either(_WAITING, _SWAPPED),
        promises={f"loading {NEW}": has_paid(NEW), f"answered {NEW}": _CONFIRMED, "ended": is_idle},
    ),
    Journey(
        "swap by another program", _scripted(OLD, pending=NEW), _swap, frozenset({OLD, NEW}), _CONFIRMED,
        always=either(_WAITING, _SWAPPED),
        promises={f"swapped to {NEW}": both(_SWAPPED, has_paid(NEW)), f"answered {NEW}": _CONFIRMED},
    ),
    Journey(
        "roll back", _scripted(OLD, NEW), _roll_back, frozenset({OLD, NEW}), _STEPPED_BACK,
        always=either(_CONFIRMED, _STEPPED_BACK), promises={"rolled back": _STEPPED_BACK},
    ),
    Journey(
        "quarantine", _scripted(OLD, pending=NEW, script="load fail"), _start, frozenset({OLD}), _STEPPED_BACK,
        always=either(_WAITING, _SWAPPED, _STEPPED_BACK),
        promises={
            f"loading {NEW}": has_paid(NEW), f"loading {OLD}": _STEPPED_BACK, f"answered {OLD}": _STEPPED_BACK,
            "ended": both(_STEPPED_BACK, is_idle),
        },
    ),
    Journey(
        "collect garbage", _littered, _collect, frozenset({OLD}), is_current(OLD), always=is_current(OLD),
        promises={"collected": is_current(OLD)},
    ),
    Journey(
        "repair", _rotten, _repair, frozenset({OLD}), is_sound, always=is_current(OLD),
        promises={"repaired": is_sound}, damaged=True,
    ),
    Journey(
        "recover", _unreadable, _recover, frozenset({OLD}), _STEPPED_BACK,
        always=either(is_unreadable, _STEPPED_BACK), promises={"recovered": _STEPPED_BACK}, damaged=True,
    ),
)  # fmt: skip
