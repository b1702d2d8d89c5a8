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
from overair.errors import EngineError, IllegalEventError, StateUnreadableError
from overair.host import clock
from overair.model.release import Bundle
from overair.model.state import TRIES_ON_TRIAL, Slot
from overair.publish.repository import Repository
from overair.store.blobs import RECORD_NAME
from overair.store.layout import LINKS
from overair.store.leases import Lease
from overair.store.partial import Partial
from overair.store.store import Store
from overair.transport.folder import Folder
from support.devices import bring, staged
from support.published import BASE_URL, model_file, sha256_of
from support.tracing import Say

OLD, NEW, OLDER = "1.0.0", "1.1.0", "0.9.0"
Promise = Callable[[Store], bool]
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
            publisher.publish([file], tier="1b", version=version)
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
    always: Promise = lambda _: True  # noqa: E731
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
        assert self.always(store), f"the disk has: {_describe(store)}"
        for line in said:
            assert self.promises[line](store), f"{line!r} was said, and the disk has: {_describe(store)}"
        if not self.damaged:
            self._starts(scene, path)
        self.run(scene, path, lambda _: None)
        assert self.end(store), f"done again, the journey leads to: {_describe(store)}"
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


# --- what the disk says ------------------------------------------------------------------------------------------


def _version(slot: Slot | None) -> str | None:
    return slot.release.version if slot else None


def _is_current(version: str | None, *, proven: bool = True) -> Promise:
    def holds(store: Store) -> bool:
        current = store.read().current
        return _version(current) == version and (current is None or current.proven or not proven)

    return holds


def _is_here(version: str) -> Promise:
    """It is staged, or swapped in already."""
    return lambda store: version in {_version(store.read().pending), _version(store.read().current)}


def _is_barred(version: str) -> Promise:
    return lambda store: version in {entry.version for entry in store.read().quarantine}


def _has_paid(version: str) -> Promise:
    """The try was taken durably before the load, unless a verdict has given it back since."""

    def holds(store: Store) -> bool:
        state = store.read()
        taken = state.tries_left < TRIES_ON_TRIAL and any(s.charged for s in state.sessions)
        return taken or not state.on_trial or _version(state.current) != version

    return holds


def _has_pending(version: str) -> Promise:
    return lambda store: _version(store.read().pending) == version


def _has_previous(version: str) -> Promise:
    return lambda store: _version(store.read().previous) == version


def _is_idle(store: Store) -> bool:
    return not store.read().sessions


def _both(*promises: Promise) -> Promise:
    return lambda store: all(promise(store) for promise in promises)


def _either(*promises: Promise) -> Promise:
    return lambda store: any(promise(store) for promise in promises)


def _is_unreadable(store: Store) -> bool:
    try:
        store.read()
    except StateUnreadableError:
        return True
    return False


def _is_sound(store: Store) -> bool:
    return all(store.blobs.verify(a) is None for slot in store.read().slots() for a in slot.release.artifacts)


def _is_set_up(store: Store) -> bool:
    return store.config() is not None and store.trust_files().read("root.json") is not None


def _is_installed(store: Store) -> bool:
    """What engines open is whole, before any session has looked at it."""
    return all(store.blobs.verify_installed(s.release, a) is None for s in store.read().slots() for a in s.release.artifacts)


def _has_half(store: Store) -> bool:
    """Bytes that came are kept for the next try; once the blob has arrived, it is all of them."""
    partial = [p for p in store.layout.partial.glob("*.json") if Partial.bytes_present(store.layout.partial, p.stem)]
    return bool(partial) or len(list(store.layout.blobs.iterdir())) > 1


def _describe(store: Store) -> str:
    try:
        state = store.read()
    except StateUnreadableError as error:
        return str(error)
    slots = ", ".join(f"{name} {_version(getattr(state, name))}" for name in LINKS)
    barred = [entry.version for entry in state.quarantine]
    proven = state.current is not None and state.current.proven
    return f"{slots}, proven {proven}, tries {state.tries_left}, {len(state.sessions)} sessions, quarantine {barred}"


def rubbish(store: Store) -> list[str]:
    """The files of a store that nothing accounts for."""
    layout, state = store.layout, store.read()
    known = {layout.config, layout.history, layout.lock, layout.manifest, layout.clock, *layout.state_copies}
    known |= {path.with_name(f"{path.name}.damaged") for path in layout.state_copies}
    known |= {path.with_name(f"{path.name}.pid") for path in (layout.lock, layout.partial / "lock")}
    known |= {layout.root / "trust.lock", layout.root / "trust.lock.pid", layout.partial / "lock"}
    known |= {layout.trust / f"{role}.json" for role in ("root", "timestamp", "snapshot", "targets", "stable")}
    known |= {layout.trust / "root_history" / "1.root.json"}
    known |= {layout.link(name) for name in LINKS if getattr(state, name) is not None}
    for slot in state.slots():
        folder = layout.release(slot.id)
        known |= {layout.blob(a.sha256) for a in slot.release.artifacts} | {folder / RECORD_NAME}
        known |= {folder / a.name for a in slot.release.artifacts}
    folders = {*layout.folders(), *(layout.release(slot.id) for slot in state.slots()), layout.trust / "root_history"}
    found = {path for path in layout.root.rglob("*") if path not in folders and path not in known}
    return sorted(path.relative_to(layout.root).as_posix() for path in found)


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
        if _is_current(NEW)(Store(path)):
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
        if _is_unreadable(Store(path)):
            updater.recover()
        say("recovered")


_STEPPED_BACK: Final = _both(_is_current(OLD), _is_barred(NEW))
_CONFIRMED: Final = _is_current(NEW)
_WAITING: Final = _both(_is_current(OLD), _has_pending(NEW))
_SWAPPED: Final = _both(_is_current(NEW, proven=False), _has_previous(OLD))

JOURNEYS: Final = (
    Journey(
        "install", _nothing, _update(OLD), frozenset({None, OLD}), _is_here(OLD), always=_is_current(None),
        promises={"set up": _is_set_up, f"staged {OLD}": _is_here(OLD)},
    ),
    Journey(
        "update", _published, _update(NEW), frozenset({OLD, NEW}), _is_here(NEW), always=_is_current(OLD),
        promises={"set up": _is_set_up, f"staged {NEW}": _is_here(NEW)},
    ),
    Journey(
        "update without links", _published, _update_without_links, frozenset({OLD, NEW}), _is_here(NEW),
        always=_is_current(OLD), promises={"set up": _is_set_up, f"staged {NEW}": _both(_is_here(NEW), _is_installed)},
    ),
    Journey(
        "interrupted download", _published, _interrupted, frozenset({OLD, NEW}), _is_here(NEW),
        always=_is_current(OLD),
        promises={"half came": _either(_has_half, _is_here(NEW)), "set up": _is_set_up, f"staged {NEW}": _is_here(NEW)},
    ),
    Journey(
        "swap and confirm", _scripted(OLDER, OLD, pending=NEW), _start, frozenset({OLD, NEW}), _CONFIRMED,
        always=_either(_WAITING, _SWAPPED),
        promises={f"loading {NEW}": _has_paid(NEW), f"answered {NEW}": _CONFIRMED, "ended": _is_idle},
    ),
    Journey(
        "swap by another program", _scripted(OLD, pending=NEW), _swap, frozenset({OLD, NEW}), _CONFIRMED,
        always=_either(_WAITING, _SWAPPED),
        promises={f"swapped to {NEW}": _both(_is_current(NEW, proven=False), _has_paid(NEW)), f"answered {NEW}": _CONFIRMED},
    ),
    Journey(
        "roll back", _scripted(OLD, NEW), _roll_back, frozenset({OLD, NEW}), _STEPPED_BACK,
        always=_either(_CONFIRMED, _STEPPED_BACK), promises={"rolled back": _STEPPED_BACK},
    ),
    Journey(
        "quarantine", _scripted(OLD, pending=NEW, script="load fail"), _start, frozenset({OLD}), _STEPPED_BACK,
        always=_either(_WAITING, _SWAPPED, _STEPPED_BACK),
        promises={
            f"loading {NEW}": _has_paid(NEW), f"loading {OLD}": _STEPPED_BACK, f"answered {OLD}": _STEPPED_BACK,
            "ended": _both(_STEPPED_BACK, _is_idle),
        },
    ),
    Journey(
        "collect garbage", _littered, _collect, frozenset({OLD}), _is_current(OLD), always=_is_current(OLD),
        promises={"collected": _is_current(OLD)},
    ),
    Journey(
        "repair", _rotten, _repair, frozenset({OLD}), _is_sound, always=_is_current(OLD),
        promises={"repaired": _is_sound}, damaged=True,
    ),
    Journey(
        "recover", _unreadable, _recover, frozenset({OLD}), _STEPPED_BACK,
        always=_either(_is_unreadable, _STEPPED_BACK), promises={"recovered": _STEPPED_BACK}, damaged=True,
    ),
)  # fmt: skip
