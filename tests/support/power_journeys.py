"""What a device does when the power fails, and what must hold when it is back."""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from overair import Updater
from overair.device.download import stage
from overair.device.repair import verify
from overair.device.session import Session
from overair.errors import IllegalEventError, StateUnreadableError
from overair.host import clock
from overair.model.release import Bundle
from overair.model.state import State
from overair.publish.repository import Repository
from overair.store.leases import Lease
from overair.store.store import Store
from overair.transport.folder import Folder
from support.devices import bring, new_store, staged
from support.engines import ScriptedEngine
from support.published import BASE_URL, model_file, sha256_of
from support.tracing import Say

OLD, NEW, OLDER = "1.0.0", "1.1.0", "0.9.0"
Promise = Callable[[Store], bool]


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
        promises: What must hold after a cut, by what was said before it.
        damaged: The disk is damaged when it begins, so the state or the bytes may be bad until it has ended.
    """

    name: str
    prepare: Callable[[Scene, Path], None]
    run: Callable[[Scene, Path, Say], None]
    runs: frozenset[str | None]
    end: Promise
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
        for line in said:
            assert self.promises[line](store), f"{line!r} was said, and the disk has: {_describe(store)}"
        if not self.damaged:
            self._starts(scene, store)
        self.run(scene, path, lambda _: None)
        assert self.end(store), f"done again, the journey leads to: {_describe(store)}"
        self._starts(scene, store)
        with scene.updater(path) as updater:
            updater.collect_garbage()
        left = rubbish(store)
        assert not left, f"rubbish is left: {', '.join(left)}"

    def _holds(self, scene: Scene, store: Store) -> None:
        """The state can be read, and what it names is here, whole."""
        state = store.read()
        current = state.current.release.version if state.current else None
        assert current in self.runs, f"{current} is current"
        for slot in state.slots():
            assert scene.knows(slot.release.version, slot.release.model.sha256), f"{slot.release.version} is another"
            for artifact in slot.release.artifacts:
                wrong = store.blobs.verify(artifact)
                assert wrong is None, f"{artifact.name} of {slot.release.version} is {wrong}"

    def _starts(self, scene: Scene, store: Store) -> None:
        """A session starts with one of the models that may run, byte for byte."""
        try:
            with Session(store, ScriptedEngine() if _is_scripted(store) else None) as session:
                bundle = session.bundle
                _assert_whole(scene, bundle)
                if session._engine is None:
                    session.confirm()
        except IllegalEventError:
            assert None in self.runs, "nothing is installed"
            return
        assert bundle.version in self.runs, f"{bundle.version} runs"


def _boot_anew() -> None:
    """A machine that lost its power has another boot identifier when it is back."""
    clock._LINUX_BOOT_ID = Path(os.devnull)  # type: ignore[misc]  # the file of the kernel cannot be changed
