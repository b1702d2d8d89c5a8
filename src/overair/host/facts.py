"""What this machine knows about itself now, as far as anybody asks."""

from datetime import datetime

from overair.host.activity import Load, read_activity
from overair.host.network import metered
from overair.host.power import Power, read_power
from overair.model.conditions import Conditions
from overair.model.facts import Facts, Metered

_NOT_ASKED = "nobody asked"


def read_facts(url: str, *, now: datetime, conditions: Conditions | None = None, load: Load | None = None) -> Facts:
    """What this machine knows about itself.

    Args:
        url: Where bytes will come from.
        now: The time, aware; the minute of the day is taken in this machine's time zone.
        conditions: What will be decided with it; what they do not ask for is not read. None reads everything.
        load: What earlier calls saw of the processors; without it every call that wants to know takes 0.3 s.
    """
    local = now.astimezone()
    network = metered(url) if conditions is None or conditions.unmetered else (Metered.UNKNOWN, _NOT_ASKED)
    power = read_power() if _asks_for_power(conditions) else Power(None, None)
    idle = read_activity(load or Load()) if conditions is None or conditions.idle else (None, _NOT_ASKED)
    return Facts(
        metered=network[0],
        network=network[1],
        on_mains=power.on_mains,
        battery_percent=power.battery_percent,
        idle=idle[0],
        activity=idle[1],
        minute_of_day=local.hour * 60 + local.minute,
    )


def _asks_for_power(conditions: Conditions | None) -> bool:
    return conditions is None or conditions.charging or conditions.min_battery_percent is not None
