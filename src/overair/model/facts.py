"""What this machine knows about itself that a condition may ask for."""

from enum import StrEnum

import msgspec


class Metered(StrEnum):
    """Whether the bytes of a network cost something, as far as the machine can tell."""

    NO = "no"
    YES = "yes"
    GUESSED_NO = "guessed-no"
    GUESSED_YES = "guessed-yes"
    UNKNOWN = "unknown"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine knows about itself now; None is what it cannot tell.

    Args:
        metered: Whether bytes cost something on the network that leads to the publisher.
        network: Who says so, or why nobody does, for people: `NetworkManager`, `this machine itself`.
        on_mains: It is plugged in, or has no battery.
        battery_percent: The battery's charge, from 0 to 100, or None where there is none.
        idle: Nobody uses it and it has little to do.
        activity: What speaks against `idle`, for people.
        minute_of_day: The minute of its own day, counted from midnight.
    """

    metered: Metered
    network: str
    on_mains: bool | None
    battery_percent: float | None
    idle: bool | None
    activity: str
    minute_of_day: int
