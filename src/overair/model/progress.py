"""How far an update is."""

from enum import StrEnum

import msgspec


class Activity(StrEnum):
    """What an update is doing."""

    CHECKING = "checking"
    WAITING = "waiting"
    PAUSED = "paused"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    PROBING = "probing"


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an update is; `bytes_done` never goes down, `bytes_total` never changes.

    Args:
        name: The artifact that is being fetched.
        bytes_done: What is on this disk of all artifacts together.
        bytes_total: The length of all artifacts together.
        bytes_per_second: The rate of the last seconds, or None before there is one.
        seconds_left: At this rate, or None.
        activity: What is being done.
        waiting_for: One line for each condition that does not hold, or who is waited for.
    """

    name: str
    bytes_done: int
    bytes_total: int
    bytes_per_second: float | None = None
    seconds_left: float | None = None
    activity: Activity = Activity.DOWNLOADING
    waiting_for: tuple[str, ...] = ()
