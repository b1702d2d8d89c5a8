"""When a device asks for updates next. Time and chance are passed in.

What a fleet costs its publisher, at one check a day and two requests of some hundred bytes each: a million devices
are 12 checks a second on average. The jitter keeps them apart: devices that were switched on together, by an app's
release or after a power cut, are spread over two minutes at their first check, and drift apart by up to a tenth of
the interval at each later one, so that after ten days they fill more than half of the day. After an outage of the
server they return over at least as long as the outage lasted, up to the interval.
"""

from typing import Final

DAY_S: Final = 86_400.0
SHORTEST_INTERVAL_S: Final = 300.0
LONGEST_INTERVAL_S: Final = 7 * DAY_S
FIRST_SPREAD_S: Final = 120.0
FIRST_BACKOFF_S: Final = 60.0
SHORTEST_PAUSE_S: Final = 5.0
LONGEST_RETRY_AFTER_S: Final = DAY_S
_JITTER: Final = 0.1
_MOST_DOUBLINGS: Final = 20


def interval_s(poll_seconds: int | None) -> float:
    """How often to check, in seconds: as the manifest wishes, from five minutes to a week, a day if it says nothing."""
    return DAY_S if poll_seconds is None else min(max(float(poll_seconds), SHORTEST_INTERVAL_S), LONGEST_INTERVAL_S)


def first_check_s(chance: float, *, installed: bool) -> float:
    """How long to wait with the first check after a start, in seconds: not at all where there is no model yet."""
    return chance * FIRST_SPREAD_S if installed else 0.0


def next_check_s(interval: float, failures: int, chance: float, *, retry_after_s: float | None = None) -> float:
    """How long to wait until the next check, in seconds.

    Args:
        interval: How often to check when all is well, in seconds.
        failures: How many checks in a row failed; from 1 on the pause doubles, with full jitter, up to the interval.
        chance: A random number from 0 to 1.
        retry_after_s: How long the server asked to wait; it is believed for up to a day.
    """
    if failures == 0:
        return interval * (1.0 + _JITTER * (2.0 * chance - 1.0))
    longest = min(interval, FIRST_BACKOFF_S * 2.0 ** min(failures - 1, _MOST_DOUBLINGS))
    shortest = min(SHORTEST_PAUSE_S, longest)
    pause = shortest + chance * (longest - shortest)
    return max(pause, min(retry_after_s or 0.0, LONGEST_RETRY_AFTER_S))
