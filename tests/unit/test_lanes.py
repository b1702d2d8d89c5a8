"""How many connections a download uses."""

from collections.abc import Callable

import pytest

from overair.core.lanes import MOST_LANES, Lanes


def _run(
    lanes: Lanes, rate: Callable[[int], float], seconds: float, *, start: float = 0.0, round_trip_s: float = 0.0
) -> list[int]:
    """How many there are every 0.1 seconds, when so many connections bring so many bytes a second."""
    counts, received = [], 0.0
    for tick in range(int(seconds * 10)):
        counts.append(lanes.count)
        lanes.observe(start + tick / 10, int(received), streaming=lanes.count, round_trip_s=round_trip_s)
        received += rate(lanes.count) / 10
    return counts


def test_where_each_connection_brings_the_same_all_are_used_soon() -> None:
    counts = _run(Lanes(), lambda count: 20e6 * count, 3.0)
    assert counts[:4] == [1] * 4
    assert MOST_LANES in counts[:14]
    assert counts[-1] == MOST_LANES


def test_where_one_brings_all_there_is_one_is_used_and_others_are_tried_less_and_less() -> None:
    counts = _run(Lanes(), lambda _: 1e8, 60.0)
    assert set(counts) == {1, 2}
    assert counts.count(2) / len(counts) < 0.1


def test_where_one_brings_more_than_can_be_written_down_no_other_is_tried() -> None:
    assert set(_run(Lanes(), lambda count: 1e9 * count, 10.0)) == {1}


def test_it_settles_on_what_is_enough() -> None:
    counts = _run(Lanes(), lambda count: 20e6 * min(count, 4), 10.0)
    assert counts[25:40] == [4] * 15


def test_a_path_that_becomes_wider_is_used_after_a_while() -> None:
    lanes = Lanes()
    _run(lanes, lambda _: 1e6, 5.0)
    counts = _run(lanes, lambda count: 1e6 * count, 30.0, start=5.0)
    assert counts[-1] == MOST_LANES


def test_a_long_way_is_given_time() -> None:
    assert _run(Lanes(), lambda count: 1e6 * count, 1.2, round_trip_s=0.2) == [1] * 12


def test_a_connection_that_is_still_opening_is_waited_for() -> None:
    lanes = Lanes()
    for tick in range(100):
        lanes.observe(tick / 10, tick * 100, streaming=0, round_trip_s=0.0)
    assert lanes.count == 1


def test_a_server_that_refuses_more_is_not_asked_for_more() -> None:
    lanes = Lanes()
    _run(lanes, lambda count: 1e6 * count, 3.0)
    lanes.refused(3)
    assert set(_run(lanes, lambda count: 1e6 * count, 60.0, start=3.0)) == {3}
    lanes.refused(0)
    assert lanes.count == 3


@pytest.mark.parametrize("fixed", [1, 4])
def test_a_fixed_number_stays(fixed: int) -> None:
    lanes = Lanes(fixed)
    lanes.refused(1)
    assert set(_run(lanes, lambda count: 1e6 * count, 5.0)) == {fixed}
