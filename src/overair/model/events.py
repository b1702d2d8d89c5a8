"""What happened on a device: one event a line in `history.jsonl`."""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from overair.model.digest import Digest
from overair.model.manifest import Timestamp

MAX_FIGURES: Final = 32
_MAX_NAME_LENGTH: Final = 64

Figures = Annotated[dict[str, float], msgspec.Meta(max_length=MAX_FIGURES)]


class Happening(StrEnum):
    """The kinds of events."""

    PROBED = "probed"
    REFUSED = "refused"
    STAGED = "staged"
    UNSTAGED = "unstaged"
    SWAPPED = "swapped"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    CRASHED = "crashed"
    ROLLED_BACK = "rolled-back"
    QUARANTINED = "quarantined"


class Cause(StrEnum):
    """What was behind an event, for programs; `reason` says it for people."""

    PROBE = "probe"
    LOAD = "load"
    DAMAGE = "damage"
    ANSWER = "answer"
    EMPTY_ANSWER = "empty-answer"
    TIMEOUT = "timeout"
    OBSERVED = "observed"
    CRASH = "crash"
    NO_VERDICT = "no-verdict"
    APP = "app"
    BY_HAND = "by-hand"
    PUBLISHER = "publisher"


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
        app_version: The app's version, where it is known.
        engine: The engine and its version, where it is known.
        id: The event's own name, by chance, so that a receiver can tell whether it has it; lines from before have none.
        sha256: The digest of the release's model file.
        cause: Why, for programs.
        figures: What was measured, by name.
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
    id: str = ""
    sha256: Digest | None = None
    cause: Cause | None = None
    figures: Figures = {}


def bounded_figures(figures: Mapping[str, float]) -> Figures:
    """The figures that can be written down: the first `MAX_FIGURES`; JSON has no word for what is not finite."""
    finite = {name[:_MAX_NAME_LENGTH]: float(value) for name, value in figures.items() if math.isfinite(value)}
    return dict(list(finite.items())[:MAX_FIGURES])
