"""How far a download is."""

import msgspec


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a download is.

    Args:
        name: The artifact that is being fetched.
        bytes_done: What is on this disk of all artifacts together.
        bytes_total: The length of all artifacts together.
        bytes_per_second: The rate of the last seconds, or None before there is one.
        seconds_left: At this rate, or None.
    """

    name: str
    bytes_done: int
    bytes_total: int
    bytes_per_second: float | None = None
    seconds_left: float | None = None
