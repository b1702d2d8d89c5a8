"""Numbers with units that somebody typed."""

from collections.abc import Mapping
from typing import Final

from overair.errors import UsageError

_BYTES: Final = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


def quantity(text: str, *, least: int = 1) -> int:
    """A number of bytes, as 2MB or 1500k.

    Raises:
        UsageError: It is not one, or too small.
    """
    words = text.strip().lower().removesuffix("b")
    return _number(text, words, _BYTES, "a number of bytes", "500kB, 2MB or 1.5GB", least=least)


def seconds(text: str) -> int:
    """A time in seconds, as 90s, 30m, 6h or 1d.

    Raises:
        UsageError: It is not one, or not above 0.
    """
    return _number(text, text.strip().lower(), _SECONDS, "a time", "90s, 30m, 6h or 1d", least=1)


def _number(text: str, typed: str, units: Mapping[str, int], what: str, examples: str, *, least: int) -> int:
    unit = typed[-1:] if typed[-1:] in units else ""
    try:
        value = round(float(typed.removesuffix(unit)) * units[unit])
    except (ValueError, OverflowError):
        value = -1
    if value < least:
        raise UsageError(f"not {what}: {text[:40]!r}", hint=f"write it as {examples}")
    return value


def share(text: str) -> float:
    """A share, 10% or 0.1, as a fraction.

    Raises:
        UsageError: It is not a share from 0% to 100%.
    """
    number, percent, rest = text.strip().partition("%")
    try:
        value = float(number) / (100 if percent else 1)
    except ValueError:
        value = -1.0
    # A bare 10 is refused: it may mean 10% or 10 of 1.
    if rest or not 0 <= value <= 1:
        raise UsageError(f"not a share of the devices: {text[:40]!r}", hint="write it as 10% or 0.1, from 0 to 100%")
    return value
