"""What can happen to a device; `overair.core.slots` says what becomes of it."""

import msgspec

from overair.model.digest import Digest
from overair.model.events import Cause, Figures
from overair.model.manifest import Timestamp
from overair.model.state import Slot


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happens to a device, at a time, under a version of the app."""

    at: Timestamp
    app_version: str | None = None


class Probed(Command, frozen=True, kw_only=True):
    """A release passed a probe with an engine; noted where it stands in a slot."""

    release_id: Digest
    engine: str
    figures: Figures = {}


class Refuse(Command, frozen=True, kw_only=True):
    """A release failed a probe with an engine, staged or not."""

    slot: Slot
    reason: str
    engine: str
    figures: Figures = {}


class Stage(Command, frozen=True, kw_only=True):
    """A release lies on the disk, verified and durable.

    `engine` is the one that probes releases on this device, with its version: a release that an older version of it
    refused may be staged again.
    """

    slot: Slot
    engine: str | None = None


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
    """A session gives the verdict "bad". A strike costs a try; otherwise the device rolls back at once.

    `blameless`: the files have rotted, which says nothing about the release. When no tries are left the device goes
    back without a quarantine, and stays where there is nothing to go back to.
    """

    session_id: str
    reason: str
    strike: bool = False
    cause: Cause = Cause.APP
    blameless: bool = False


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


class RollBack(Command, frozen=True, kw_only=True):
    """Somebody asks for the previous release."""

    reason: str
