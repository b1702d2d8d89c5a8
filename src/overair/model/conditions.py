"""What must hold before and while a device downloads."""

import re
from typing import Annotated, Final

import msgspec

from overair.errors import UsageError

KB: Final = 1_000
MB: Final = 1_000_000
GB: Final = 1_000_000_000


DEFAULT_MIN_FREE_BYTES: Final = 2 * GB
MINUTES_A_DAY: Final = 24 * 60

_TIME_OF_DAY: Final = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
# What msgspec checks when it reads, checked when an app makes them, too.
_NUMBERS: Final = (
    ("min_battery_percent", 0, 100),
    ("min_free_bytes", 0, 1 << 60),
    ("max_bytes_per_second", 1, 1 << 60),
)

TimeOfDay = Annotated[str, msgspec.Meta(pattern=rf"^{_TIME_OF_DAY}$(?!\n)", description="a time of day, as 01:30")]


class DailyWindow(msgspec.Struct, frozen=True):
    """A part of every day, by the device's own clock; it may reach over midnight.

    Args:
        start: Its first minute.
        end: The minute that it ends with, itself outside.
    """

    start: TimeOfDay
    end: TimeOfDay

    def __post_init__(self) -> None:
        """Refuse what is no time of day, as reading a file would.

        Raises:
            UsageError: A value is not of its type.
        """
        for name in ("start", "end"):
            value = getattr(self, name)
            if not (isinstance(value, str) and re.fullmatch(_TIME_OF_DAY, value)):
                raise UsageError(f"not a time of day: {name}={value!r}", hint='write it as "01:30"')

    def holds(self, minute_of_day: int) -> bool:
        """Whether a minute, counted from midnight, lies inside."""
        start, end = _minute(self.start), _minute(self.end)
        return (minute_of_day - start) % MINUTES_A_DAY < ((end - start) % MINUTES_A_DAY or MINUTES_A_DAY)


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What must hold before and while a device downloads. A condition that stops holding pauses the download.

    Args:
        unmetered: Only on a network that costs nothing by the byte.
        unknown_is_unmetered: Take a network for free when this machine cannot tell.
        charging: Only with mains power, or on a machine without a battery.
        min_battery_percent: The least charge of the battery; no matter while it charges.
        idle: Only while nobody uses the machine and it has little to do.
        between: Only at these times.
        min_free_bytes: What must stay free on the disk after the update, in bytes.
        max_bytes_per_second: The most that a download may take of the network, or None for all of it.
    """

    unmetered: bool = True
    unknown_is_unmetered: bool = False
    charging: bool = False
    min_battery_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    idle: bool = False
    between: DailyWindow | None = None
    min_free_bytes: Annotated[int, msgspec.Meta(ge=0)] = DEFAULT_MIN_FREE_BYTES
    max_bytes_per_second: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense, as reading a file would.

        Raises:
            UsageError: A number is not one, or too small or too large.
        """
        for name, least, most in _NUMBERS:
            value = getattr(self, name)
            if value is not None and not (type(value) is int and least <= value <= most):
                raise UsageError(
                    f"not a condition: {name}={value!r}", hint=f"give a whole number from {least} to {most:,}"
                )


def _minute(time_of_day: str) -> int:
    hours, minutes = time_of_day.split(":")
    return int(hours) * 60 + int(minutes)
