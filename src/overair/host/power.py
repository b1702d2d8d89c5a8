"""Whether this machine is plugged in, and how full its battery is."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Linux, Documentation/ABI/testing/sysfs-class-power. psutil reads it too, but takes the battery of a wireless mouse
# for the machine's own, and knows a mains adapter by two names only.
SUPPLIES: Final = Path("/sys/class/power_supply")
_FED: Final = frozenset({"Full", "Not charging"})


@dataclass(frozen=True, slots=True)
class Power:
    """What a machine runs on; None is what it cannot tell.

    Args:
        on_mains: It is plugged in, or has no battery.
        battery_percent: The charge of its battery, from 0 to 100, or None where there is none.
    """

    on_mains: bool | None
    battery_percent: float | None


def read_power() -> Power:
    """What this machine runs on now."""
    return from_sysfs(SUPPLIES) if sys.platform == "linux" else _from_psutil()


def from_sysfs(folder: Path) -> Power:
    """What a Linux machine runs on, by the kernel's list of power supplies."""
    try:
        supplies = [supply for supply in sorted(folder.iterdir()) if _word(supply / "scope") != "Device"]
    except OSError:
        return Power(None, None)
    kinds = {supply: _word(supply / "type") for supply in supplies}
    batteries = [s for s in supplies if kinds[s] == "Battery" and _word(s / "present") != "0"]
    if not batteries:
        return Power(True, None)
    lines = [_word(s / "online") for s in supplies if kinds[s] not in {"Battery", "UPS"}]
    states = [_word(battery / "status") for battery in batteries]
    return Power(_on_mains(lines, states), _mean([_word(battery / "capacity") for battery in batteries]))


def _on_mains(lines: list[str], states: list[str]) -> bool | None:
    """By the adapters where one says something, by the batteries where none does."""
    if "1" in lines or "Charging" in states:
        return True
    if "0" in lines or "Discharging" in states:
        return False
    return True if _FED.intersection(states) else None


def _mean(percents: list[str]) -> float | None:
    known = [int(percent) for percent in percents if percent.isdecimal()]
    return sum(known) / len(known) if known else None


def _word(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(64).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _from_psutil() -> Power:
    import psutil

    try:
        battery = psutil.sensors_battery()
    except (AttributeError, OSError, RuntimeError, psutil.Error):
        return Power(None, None)
    return Power(True, None) if battery is None else Power(battery.power_plugged, battery.percent)
