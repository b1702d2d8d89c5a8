"""The options that say what must hold before and while a device downloads."""

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from overair.cli.quantities import quantity
from overair.errors import UsageError

if TYPE_CHECKING:
    from overair.model.conditions import Conditions, DailyWindow


AnyNetwork = Annotated[bool, typer.Option("--any-network", help="Also on a network that costs by the byte.")]
UnknownNetwork = Annotated[
    bool,
    typer.Option("--unknown-network", help="Also where this machine cannot tell whether the network costs."),
]
Charging = Annotated[bool, typer.Option("--charging", help="Only with mains power, or without a battery.")]
MinBattery = Annotated[
    int | None,
    typer.Option(
        "--min-battery",
        metavar="PERCENT",
        min=0,
        max=100,
        help="The least charge of the battery, unless it charges.",
    ),
]
Idle = Annotated[bool, typer.Option("--idle", help="Only while nobody uses the machine.")]
Between = Annotated[
    str | None,
    typer.Option("--between", metavar="TIMES", help="Only at these times of the day, as 01:00-05:00."),
]
MinFree = Annotated[
    str | None,
    typer.Option("--min-free", metavar="SIZE", help="What must stay free on the disk, as 2GB."),
]
MaxRate = Annotated[
    str | None,
    typer.Option("--max-rate", metavar="RATE", help="The most to take of the network, as 2MB/s."),
]


def conditions(
    *,
    any_network: bool = False,
    unknown_network: bool = False,
    charging: bool = False,
    min_battery: int | None = None,
    idle: bool = False,
    between: str | None = None,
    min_free: str | None = None,
    max_rate: str | None = None,
) -> "Conditions":
    """The conditions that somebody typed.

    Raises:
        UsageError: A value is not of its kind.
    """
    from overair.model.conditions import DEFAULT_MIN_FREE_BYTES, Conditions

    return Conditions(
        unmetered=not any_network,
        unknown_is_unmetered=unknown_network,
        charging=charging,
        min_battery_percent=min_battery,
        idle=idle,
        between=None if between is None else _window(between),
        min_free_bytes=DEFAULT_MIN_FREE_BYTES if min_free is None else quantity(min_free, least=0),
        max_bytes_per_second=None if max_rate is None else quantity(max_rate.removesuffix("/s")),
    )


def _window(text: str) -> "DailyWindow":
    from overair.model.conditions import DailyWindow

    start, _, end = text.partition("-")
    try:
        return msgspec.convert({"start": start.strip(), "end": end.strip()}, DailyWindow)
    except msgspec.ValidationError:
        raise UsageError(
            f"not a time of the day: {text[:40]!r}", hint="write it as 01:00-05:00, by the device's own clock"
        ) from None
