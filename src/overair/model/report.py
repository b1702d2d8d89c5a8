"""What the calls of a device give back."""

from typing import Literal

import msgspec

from overair.model.digest import Digest
from overair.model.manifest import Timestamp
from overair.model.release import Release
from overair.model.state import Quarantined, Slot, State


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """A release is on this disk, verified and durable; the next session starts it.

    Args:
        release: What was staged.
        bytes_fetched: What came over the network.
        seconds: How long it took.
    """

    release: Release
    bytes_fetched: int
    seconds: float


Outcome = Literal["offer", "staged", "up-to-date", "deferred", "failed"]


class LastCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What the last check came to, and the download that followed it.

    Args:
        at: When.
        outcome: `offer`, `staged`, `up-to-date`, `deferred`, or `failed`.
        reason: The reason of the answer, or the name of the error.
        explanation: One line for people.
        hint: What would change that.
        poll_seconds: How often the publisher asks devices to check.
    """

    at: Timestamp
    outcome: Outcome
    reason: str
    explanation: str
    hint: str = ""
    poll_seconds: int | None = None


class SlotStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a slot holds."""

    version: str
    sha256: Digest
    id: Digest
    size_bytes: int
    proven: bool
    withdrawn: bool


class TrialStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The trial that is under way."""

    version: str
    sha256: Digest
    tries_left: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What a device knows about itself."""

    tier: str
    channel: str
    app_version: str | None
    current: SlotStatus | None
    previous: SlotStatus | None
    pending: SlotStatus | None
    trial: TrialStatus | None
    quarantine: tuple[Quarantined, ...]
    sequence: int
    sessions: int
    last_check: LastCheck | None = None


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found: how many artifacts are sound, and what was or still is wrong with others.

    Args:
        sound: How many artifacts are what they should be.
        repaired: One line for each that was not, and is now.
        damaged: One line for each that is not.
        bytes_fetched: What came over the network for the repair.
    """

    sound: int
    repaired: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    bytes_fetched: int = 0


def slot_status(slot: Slot | None) -> SlotStatus | None:
    """What people want to know of a slot."""
    if slot is None:
        return None
    return SlotStatus(
        version=slot.release.version,
        sha256=slot.release.model.sha256,
        id=slot.id,
        size_bytes=slot.release.size_bytes,
        proven=slot.proven,
        withdrawn=slot.withdrawn,
    )


def trial_status(state: State) -> TrialStatus | None:
    """What people want to know of a trial."""
    if state.current is None or state.current.proven:
        return None
    release = state.current.release
    return TrialStatus(version=release.version, sha256=release.model.sha256, tries_left=state.tries_left)
