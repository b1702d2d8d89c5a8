"""What must stay on a device's disk."""

from collections.abc import Iterable

from overair.model.digest import Digest
from overair.model.state import State


def releases_to_keep(state: State, leased: Iterable[Digest]) -> frozenset[Digest]:
    """The releases that a slot, an open session or a lease names."""
    return frozenset(
        [slot.id for slot in state.slots()] + [session.release_id for session in state.sessions] + list(leased)
    )


def blobs_to_keep(state: State) -> frozenset[Digest]:
    """The blobs that make up the releases in the slots.

    A session that runs an older release needs no blob: its files are links of their own in `releases/`.
    """
    return frozenset(artifact.sha256 for slot in state.slots() for artifact in slot.release.artifacts)
