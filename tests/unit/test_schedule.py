"""When a device asks next."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.core.schedule import DAY_S, FIRST_SPREAD_S, first_check_s, interval_s, next_check_s

CHANCES = st.floats(0.0, 1.0)


@pytest.mark.parametrize(
    ("poll_seconds", "seconds"),
    [(None, DAY_S), (1, 300), (300, 300), (7200, 7200), (7 * 86_400, 7 * DAY_S), (10**12, 7 * DAY_S)],
)
def test_the_publisher_decides_within_bounds(poll_seconds: int | None, seconds: float) -> None:
    assert interval_s(poll_seconds) == seconds


def test_devices_that_were_switched_on_together_are_spread_but_a_new_one_does_not_wait() -> None:
    assert first_check_s(1.0, installed=True) == FIRST_SPREAD_S
    assert first_check_s(0.0, installed=True) == 0.0
    assert first_check_s(1.0, installed=False) == 0.0


@given(chance=CHANCES, interval=st.floats(300, 7 * DAY_S))
def test_a_check_that_went_well_is_repeated_after_the_interval_with_a_tenth_of_jitter(
    chance: float, interval: float
) -> None:
    assert 0.9 * interval - 1 <= next_check_s(interval, 0, chance) <= 1.1 * interval + 1


@given(chance=CHANCES, interval=st.floats(300, 7 * DAY_S), failures=st.integers(1, 10_000))
def test_failures_are_repeated_later_and_later_up_to_the_interval(
    chance: float, interval: float, failures: int
) -> None:
    pause = next_check_s(interval, failures, chance)
    assert 5.0 <= pause <= interval
    assert pause <= 60.0 * 2.0 ** min(failures - 1, 30)
    assert next_check_s(interval, failures + 1, chance) >= pause


def test_the_longest_pauses_double() -> None:
    assert [next_check_s(DAY_S, failures, 1.0) for failures in (1, 2, 3, 4)] == [60, 120, 240, 480]
    assert next_check_s(DAY_S, 12, 1.0) == DAY_S


@given(chance=CHANCES, failures=st.integers(1, 50))
def test_what_the_server_asks_for_is_done_up_to_a_day(chance: float, failures: int) -> None:
    assert next_check_s(DAY_S, failures, chance, retry_after_s=7200.0) >= 7200.0
    assert next_check_s(DAY_S, failures, chance, retry_after_s=1e12) == DAY_S


def test_a_fleet_that_starts_together_is_soon_spread_over_the_day() -> None:
    """The figure of the docstring: after ten days the checks of a thousand devices fill more than half of a day."""
    draw = random.Random(7)  # noqa: S311 - no secret
    moments = []
    for _ in range(1000):
        at = first_check_s(draw.random(), installed=True)
        while at < 10 * DAY_S:
            at += next_check_s(DAY_S, 0, draw.random())
        moments.append(at % DAY_S)
    hours = [sum(int(at // 3600) == hour for at in moments) for hour in range(24)]
    assert sum(count > 0 for count in hours) > 12
    assert max(hours) < 200, "a fifth of the fleet comes in one hour"
