"""Which conditions do not hold, one line for people for each."""

from collections.abc import Mapping
from typing import Final

from overair.model.conditions import Conditions, DailyWindow
from overair.model.facts import Facts, Metered

_COSTS: Final[Mapping[Metered, str]] = {
    Metered.YES: "the network is metered",
    Metered.GUESSED_YES: "the network is probably metered",
}


def unmet(conditions: Conditions, facts: Facts) -> tuple[str, ...]:
    """What stands in the way of a download now, each with what is and what was asked; empty when nothing does.

    What this machine cannot tell stands in the way too, except where the conditions say otherwise.
    """
    lines = (
        _network(facts, conditions.unknown_is_unmetered) if conditions.unmetered else "",
        _mains(facts) if conditions.charging else "",
        _battery(facts, conditions.min_battery_percent),
        _idle(facts) if conditions.idle else "",
        _time(facts.minute_of_day, conditions.between),
    )
    return tuple(line for line in lines if line)


def short_of_space(conditions: Conditions, free_bytes: int) -> tuple[str, ...]:
    """Whether a download that has begun has to leave room for others."""
    if free_bytes >= conditions.min_free_bytes:
        return ()
    return (f"the disk has {free_bytes:,} bytes free, and {conditions.min_free_bytes:,} are to stay free",)


def _network(facts: Facts, unknown_is_unmetered: bool) -> str:
    if facts.metered is not Metered.UNKNOWN:
        costs = _COSTS.get(facts.metered)
        return f"{costs} ({facts.network})" if costs else ""
    if unknown_is_unmetered:
        return ""
    return f"nobody can tell whether the network is metered ({facts.network}): allow it with --unknown-network"


def _mains(facts: Facts) -> str:
    if facts.on_mains is None:
        return "this machine cannot tell whether it is plugged in"
    return "" if facts.on_mains else "on battery"


def _battery(facts: Facts, least: int | None) -> str:
    if least is None or facts.on_mains:
        return ""
    if facts.battery_percent is None:
        return f"this machine cannot tell how full its battery is, {least}% asked for"
    if facts.battery_percent >= least:
        return ""
    return f"the battery is at {int(facts.battery_percent)}%, {least}% asked for"


def _idle(facts: Facts) -> str:
    if facts.idle is None:
        return f"this machine cannot tell whether it is in use ({facts.activity})"
    return "" if facts.idle else f"in use: {facts.activity}"


def _time(minute_of_day: int, between: DailyWindow | None) -> str:
    if between is None or between.holds(minute_of_day):
        return ""
    return f"outside {between.start}-{between.end} (it is {minute_of_day // 60:02}:{minute_of_day % 60:02})"
