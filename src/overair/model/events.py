"""What happened on a device: one event a line in `history.jsonl`."""

from enum import StrEnum

import msgspec

from overair.model.digest import Digest
from overair.model.manifest import Timestamp


class Happening(StrEnum):
    """The kinds of events."""

    STAGED = "staged"
    UNSTAGED = "unstaged"
    SWAPPED = "swapped"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    CRASHED = "crashed"
    ROLLED_BACK = "rolled-back"
    QUARANTINED = "quarantined"


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened to a release on this device.

    Args:
        what: The kind of event.
        tier: The release's tier.
        version: The release's version.
        release_id: The release.
        replaced: The version that it took the place of, or that took its place.
        reason: Why, in a line for people.
        at: When.
        app_version: The app's version, for a quarantine.
        engine: The engine and its version, for a quarantine.
    """

    what: Happening
    tier: str
    version: str
    release_id: Digest
    replaced: str | None = None
    reason: str = ""
    at: Timestamp | None = None
    app_version: str | None = None
    engine: str | None = None
