"""What people type on the command line: shares, sizes, times."""

import pytest

from overair.cli.output import duration, size
from overair.cli.quantities import quantity, seconds, share
from overair.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value"), [("10%", 0.1), ("0.1", 0.1), ("100%", 1.0), ("1", 1.0), ("0%", 0.0), (" 5 %", 0.05)]
)
def test_a_share_is_a_percentage_or_a_fraction(text: str, value: float) -> None:
    assert share(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["10", "101%", "-1%", "nan", "nan%", "inf", "10%%", "ten", "", "1e9%"])
def test_what_is_no_share_is_refused_and_never_everybody(text: str) -> None:
    with pytest.raises(UsageError):
        share(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("2MB", 2_000_000), ("500k", 500_000), ("1.5GB", 1_500_000_000), ("7", 7), ("7b", 7), ("2 mb", 2_000_000)],
)
def test_a_number_of_bytes_has_a_decimal_unit(text: str, value: int) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize("text", ["", "fast", "-1MB", "0", "nan", "inf", "1e400", "2MiB/s"])
def test_what_is_no_number_of_bytes_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        quantity(text)


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("90s", 90), ("30m", 1800), ("6h", 21_600), (" 1.5D ", 129_600)]
)
def test_a_time_has_a_unit(text: str, value: int) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "soon", "-1h", "0s", "1w", "nan"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        seconds(text)


def test_nothing_is_a_number_of_bytes_where_it_may_be() -> None:
    assert quantity("0", least=0) == 0


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (98_362_432, "98.4 MB"), (999_600, "1.0 MB"), (2e15, "2000 TB")],
)
def test_a_size_for_people(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0.04, "0.0 s"), (9.96, "10 s"), (99.6, "1 min 40 s"), (3700, "1 h 01 min")]
)
def test_a_time_for_people(count: float, text: str) -> None:
    assert duration(count) == text
