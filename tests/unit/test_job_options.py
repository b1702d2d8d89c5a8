"""The conditions that somebody types."""

import pytest

from overair.cli.conditions import conditions
from overair.errors import UsageError
from overair.model.conditions import GB, Conditions, DailyWindow


def test_without_options_the_defaults_hold() -> None:
    assert conditions() == Conditions()


def test_every_option_is_a_condition() -> None:
    typed = conditions(
        any_network=True,
        unknown_network=True,
        charging=True,
        min_battery=40,
        idle=True,
        between="23:30 - 05:00",
        min_free="1.5GB",
        max_rate="2MB/s",
    )
    assert typed == Conditions(
        unmetered=False,
        unknown_is_unmetered=True,
        charging=True,
        min_battery_percent=40,
        idle=True,
        between=DailyWindow(start="23:30", end="05:00"),
        min_free_bytes=3 * GB // 2,
        max_bytes_per_second=2_000_000,
    )


@pytest.mark.parametrize("text", ["", "1-5", "01:00", "01:00-", "24:00-05:00", "01:00-05:60", "01:00-05:00-06:00", "x"])
def test_what_is_no_time_of_day_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a time of the day") as caught:
        conditions(between=text)
    assert "01:00-05:00" in caught.value.hint


@pytest.mark.parametrize("options", [{"min_free": "much"}, {"max_rate": "0"}, {"max_rate": "2MB/min"}])
def test_what_is_no_number_of_bytes_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="not a number of bytes"):
        conditions(**options)  # type: ignore[arg-type]
