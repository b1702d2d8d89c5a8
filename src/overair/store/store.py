"""A device's disk as one thing: read the state without the lock, change it under the lock."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from overair.core import commands, slots
from overair.core.retention import blobs_to_keep, releases_to_keep
from overair.errors import IntegrityError, LockedError, StorageError
from overair.model.events import Event
from overair.model.release import Artifact
from overair.model.state import State
from overair.store import durable, history, leases
from overair.store.blobs import Blobs
from overair.store.config import Config, load_config, save_config
from overair.store.layout import LINKS, Layout
from overair.store.lock import DEFAULT_TIMEOUT_S, exclusive
from overair.store.partial import Partial
from overair.store.state_file import load_state, save_state
from overair.store.trust_files import TrustFiles

TRUST_TIMEOUT_S: Final = 30.0


class Store:
    """A device's disk.

    Args:
        root: The store's folder.
    """

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self.blobs = Blobs(self.layout)
        self._trust_lock = root / "trust.lock"

    def create(self) -> None:
        """Make the folders, where they are missing.

        Raises:
            StorageError: The disk refused.
        """
        for folder in self.layout.folders():
            durable.make_directory(folder)

    def config(self) -> Config | None:
        """What the device was told when it was set up, or None.

        Raises:
            StateUnreadableError: It cannot be read.
        """
        return load_config(self.layout.config)

    def configure(self, config: Config) -> None:
        """Set the device up, or change what it was told. The lock must be held.

        Raises:
            StorageError: The disk refused.
        """
        save_config(self.layout.config, config)

    @contextlib.contextmanager
    def lock(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Iterator[None]:
        """Be the only one who changes this store.

        Raises:
            LockedError: Somebody else changed it all the time.
        """
        with exclusive(self.layout.lock, timeout_s=timeout_s):
            yield

    @contextlib.contextmanager
    def download_lock(self) -> Iterator[None]:
        """Be the only one who downloads into this store. Taken before `lock`, never after it.

        Raises:
            LockedError: Somebody else is downloading.
        """
        with exclusive(self.layout.partial / "lock", timeout_s=0):
            yield

    def read(self) -> State:
        """The state, without the lock.

        Raises:
            StateUnreadableError: No copy can be read.
        """
        return load_state(self.layout.state_copies).state

    def mend_state(self) -> tuple[str, ...]:
        """Write the copies of the state that are damaged or behind anew; returns what was wrong. The lock must be held.

        Raises:
            StateUnreadableError: No copy can be read.
            StorageError: The disk refused.
        """
        loaded = load_state(self.layout.state_copies)
        for number, wrong in enumerate(loaded.damage):
            if wrong:
                save_state(self.layout.state_copies, loaded.state, first=number)
        return tuple(wrong for wrong in loaded.damage if wrong)

    @contextlib.contextmanager
    def trust_lock(self) -> Iterator[None]:
        """Be the only one who refreshes the metadata. Taken before any other lock.

        Raises:
            LockedError: Somebody else did all the time.
        """
        with exclusive(self._trust_lock, timeout_s=TRUST_TIMEOUT_S):
            yield

    def trust_files(self) -> TrustFiles:
        """The metadata that this device trusts."""
        return TrustFiles(self.layout.trust)

    def apply(self, *wanted: commands.Command) -> tuple[State, tuple[Event, ...]]:
        """Apply commands in one durable write; returns the new state and what happened. The lock must be held.

        What other programs look at, the history and the links, is refreshed after the state and may be lost.

        Raises:
            IllegalEventError: The state does not allow one of them; nothing has changed.
            StorageError: The disk refused; the old state holds.
        """
        loaded = load_state(self.layout.state_copies)
        old = state = loaded.state
        happened: tuple[Event, ...] = ()
        for command in wanted:
            state, events = slots.apply(state, command)
            happened += events
        if state == old:
            return state, happened
        happened = history.named(happened)
        state = replace(state, generation=old.generation + 1)
        first = next((number for number, wrong in enumerate(loaded.damage) if wrong), 0)
        save_state(self.layout.state_copies, state, first=first)
        with contextlib.suppress(StorageError):
            history.append(self.layout.history, happened)
        with contextlib.suppress(StorageError):
            self.refresh_links()
        return state, happened

    def replace_state(self, state: State) -> tuple[str, ...]:
        """Put a rebuilt state in the place of damaged copies, which are kept aside. The lock must be held.

        Raises:
            StorageError: The disk refused.
        """
        kept: list[str] = []
        for path in self.layout.state_copies:
            aside = path.with_name(f"{path.name}.damaged")
            with durable.storage_errors("keep", path):
                is_there = path.exists()
            if is_there:
                durable.copy_file(path, aside)
                kept.append(str(aside))
        # The damaged copies are replaced, never removed first: a folder without copies would look like a new device.
        save_state(self.layout.state_copies, state, first=0)
        self.refresh_links()
        return tuple(kept)

    def refresh_links(self) -> None:
        """Point the links that other programs open at the models in the slots. The lock must be held.

        Raises:
            StorageError: The disk refused.
        """
        state = self.read()
        for name in LINKS:
            slot = getattr(state, name)
            self.blobs.refresh_link(name, slot.release if slot else None)

    def deaths(self, state: State, boot_id: str, at: str, app_version: str | None) -> tuple[commands.Die, ...]:
        """The commands that account for the sessions whose process is gone."""
        return tuple(
            commands.Die(
                at=at,
                session_id=session.id,
                busy=leases.was_busy(self.layout.leases, session.id, boot_id),
                app_version=app_version,
            )
            for session in state.sessions
            if not session.external and not leases.is_alive(self.layout.leases, session.id)
        )

    def collect_garbage(self) -> int:
        """Remove what no slot, session or lease names, and what a process left that died; returns the bytes freed.

        Both locks must be held: a download brings blobs that no slot names yet.

        Raises:
            StateUnreadableError: No copy of the state can be read: nothing is removed.
            StorageError: The disk refused.
        """
        self.mend_state()
        state = self.read()
        self.refresh_links()
        self._forget_leases(state)
        self._forget_temporaries()
        with durable.storage_errors("list", self.layout.partial):
            names = [path.name for path in self.layout.partial.iterdir()]
        self.forget_partials(keep=frozenset(name for name in names if self._can_be_continued(name)))
        return self.blobs.collect(blobs_to_keep(state), releases_to_keep(state, ()))

    def _forget_leases(self, state: State) -> None:
        open_sessions = {session.id for session in state.sessions}
        with durable.storage_errors("list", self.layout.leases):
            # A process that dies while it takes or leaves a lease may leave either of its files alone.
            ids = {path.name.partition(".")[0] for path in self.layout.leases.iterdir()}
        for session_id in ids - open_sessions:
            if not leases.is_alive(self.layout.leases, session_id):
                leases.forget(self.layout.leases, session_id)

    def _forget_temporaries(self) -> None:
        """Remove what writers left that died; while a refresh writes, its own stay, and the next collection comes."""
        with contextlib.suppress(LockedError), exclusive(self._trust_lock, timeout_s=0):
            for folder in (self.layout.root, self.layout.trust, self.layout.trust / "root_history"):
                with durable.storage_errors("list", folder):
                    left = list(folder.glob(f"*{durable.TEMPORARY_SUFFIX}"))
                for path in left:
                    durable.remove_file(path)

    def _can_be_continued(self, name: str) -> bool:
        try:
            blob = self.layout.blob(name)
        except IntegrityError:  # a lock, a journal
            return False
        with durable.storage_errors("look at", blob):
            return not blob.exists() and Partial.bytes_present(self.layout.partial, name) > 0

    def bytes_reserved(self, artifact: Artifact) -> int:
        """How many bytes of this disk a download of an artifact holds already, whether they came or not.

        Raises:
            StorageError: The disk refused.
        """
        path = self.layout.partial / artifact.sha256
        with durable.storage_errors("look at", path):
            try:
                stat = path.stat()
            except FileNotFoundError:
                return 0
        blocks = getattr(stat, "st_blocks", None)  # a file system that reserves nothing keeps holes
        return stat.st_size if blocks is None else min(blocks * 512, stat.st_size)

    def forget_partials(self, keep: frozenset[str]) -> None:
        """Remove the downloads that nobody will continue. The download lock must be held.

        Raises:
            StorageError: The disk refused.
        """
        with durable.storage_errors("list", self.layout.partial):
            paths = [(p, p.is_file()) for p in self.layout.partial.iterdir() if not p.name.startswith("lock")]
        for path, is_file in paths:
            if path.name.partition(".")[0] not in keep or path.suffix == durable.TEMPORARY_SUFFIX:
                durable.remove_file(path) if is_file else durable.remove_tree(path)
