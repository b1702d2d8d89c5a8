"""What can happen to a device; `overair.core.slots` says what becomes of it."""

import msgspec

from overair.model.digest import Digest
from overair.model.manifest import Timestamp
from overair.model.state import Slot


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happens to a device, at a time."""

    at: Timestamp


class Stage(Command, frozen=True, kw_only=True):
    """A release lies on the disk, verified and durable."""

    slot: Slot
    app_version: str | None = None


class Unstage(Command, frozen=True, kw_only=True):
    """The pending release is not wanted any more."""

    reason: str


class Withdraw(Command, frozen=True, kw_only=True):
    """The publisher took releases back."""

    release_ids: frozenset[Digest]


class See(Command, frozen=True, kw_only=True):
    """A manifest of a channel was acted on."""

    channel: str
    sequence: int


class Begin(Command, frozen=True, kw_only=True):
    """A session starts: swap if there is something to swap in, and take a try."""

    session_id: str
    engine: str | None = None
    external: bool = False


class Complete(Command, frozen=True, kw_only=True):
    """A generation came to its end in a session."""

    session_id: str


class Confirm(Command, frozen=True, kw_only=True):
    """A session gives the verdict "good"."""

    session_id: str


class Fail(Command, frozen=True, kw_only=True):
    """A session gives the verdict "bad". A strike costs a try; otherwise the device rolls back at once."""

    session_id: str
    reason: str
    strike: bool = False
    app_version: str | None = None


class End(Command, frozen=True, kw_only=True):
    """A session ended cleanly."""

    session_id: str


class Die(Command, frozen=True, kw_only=True):
    """A session's process is gone without a clean end.

    `busy` says whether the model was loading or generating, or None where that is not known, as after a power cut:
    then a try that was taken before the load stays lost, and nothing more.
    """

    session_id: str
    busy: bool | None
    app_version: str | None = None


class RollBack(Command, frozen=True, kw_only=True):
    """Somebody asks for the previous release."""

    reason: str
    app_version: str | None = None
