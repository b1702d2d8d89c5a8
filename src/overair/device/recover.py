"""Rebuild a state that cannot be read, from what can be proved; never a silent reset."""

import msgspec

from overair.core.replay import replay
from overair.errors import StateUnreadableError, UsageError
from overair.store import history
from overair.store.store import Store


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """What a recovery rebuilt.

    Args:
        current: The version that runs now, or None.
        previous: The version behind it, or None.
        pending: The version that waits for the next session, or None.
        quarantine: The versions that stay in quarantine.
        lost: What could not be rebuilt, a line each.
        kept: Where the damaged copies of the state are.
    """

    current: str | None
    previous: str | None
    pending: str | None
    quarantine: tuple[str, ...]
    lost: tuple[str, ...]
    kept: tuple[str, ...]


def recover(store: Store) -> Recovered:
    """Rebuild the state from the releases that are here, re-reading every file, and from the history.

    Raises:
        UsageError: The state can be read: there is nothing to recover.
        StorageError: The disk refused.
        LockedError: Another process holds the store.
    """
    with store.lock():
        try:
            store.read()
        except StateUnreadableError:
            pass
        else:
            raise UsageError(
                "the state can be read: there is nothing to recover", hint="overair device status shows it"
            )
        releases = {release.id: release for release in store.blobs.recorded()}
        state, lost = replay(history.read(store.layout.history), releases)
        kept = store.replace_state(state)

    def version(name: str) -> str | None:
        slot = getattr(state, name)
        return slot.release.version if slot else None

    return Recovered(
        current=version("current"),
        previous=version("previous"),
        pending=version("pending"),
        quarantine=tuple(entry.version for entry in state.quarantine),
        lost=lost,
        kept=kept,
    )
