"""Which conditions hold, and what the machine knows about itself."""

import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from overair.core.conditions import short_of_space, unmet
from overair.core.plan import make_plan
from overair.errors import UsageError
from overair.host import activity, bus, facts, network
from overair.host.activity import Sample, share_of_others
from overair.host.power import Power, from_sysfs
from overair.model.conditions import Conditions, DailyWindow
from overair.model.facts import Facts, Metered
from overair.model.release import Artifact, Release

ANYTHING = Conditions(unmetered=False, min_free_bytes=0)
EVERYTHING = Conditions(charging=True, min_battery_percent=50, idle=True, between=DailyWindow("01:00", "05:00"))
GOOD = Facts(
    metered=Metered.NO,
    network="NetworkManager",
    on_mains=True,
    battery_percent=80,
    idle=True,
    activity="",
    minute_of_day=2 * 60,
)
BAD = Facts(
    metered=Metered.YES,
    network="NetworkManager",
    on_mains=False,
    battery_percent=31.4,
    idle=False,
    activity="somebody is at work (logind)",
    minute_of_day=14 * 60 + 20,
)
UNKNOWN = Facts(
    metered=Metered.UNKNOWN,
    network="NetworkManager does not run here",
    on_mains=None,
    battery_percent=None,
    idle=None,
    activity="the system does not say how busy it is",
    minute_of_day=2 * 60,
)


def test_nothing_stands_in_the_way_when_all_holds() -> None:
    assert unmet(EVERYTHING, GOOD) == ()


def test_every_condition_that_fails_is_named_with_what_is_and_what_was_asked() -> None:
    assert unmet(EVERYTHING, BAD) == (
        "the network is metered (NetworkManager)",
        "on battery",
        "the battery is at 31%, 50% asked for",
        "in use: somebody is at work (logind)",
        "outside 01:00-05:00 (it is 14:20)",
    )


def test_what_nobody_knows_fails_and_says_so() -> None:
    assert unmet(EVERYTHING, UNKNOWN) == (
        f"nobody can tell whether the network is metered ({UNKNOWN.network}): allow it with --unknown-network",
        "this machine cannot tell whether it is plugged in",
        "this machine cannot tell how full its battery is, 50% asked for",
        "this machine cannot tell whether it is in use (the system does not say how busy it is)",
    )


@pytest.mark.parametrize("known", [GOOD, BAD, UNKNOWN])
def test_what_was_not_asked_for_does_not_count(known: Facts) -> None:
    assert unmet(ANYTHING, known) == ()


@pytest.mark.parametrize(
    ("metered", "holds", "holds_if_unknown_is_unmetered"),
    [
        (Metered.NO, True, True),
        (Metered.GUESSED_NO, True, True),
        (Metered.UNKNOWN, False, True),
        (Metered.GUESSED_YES, False, False),
        (Metered.YES, False, False),
    ],
)
def test_unknown_counts_as_metered_unless_the_app_says_otherwise(
    metered: Metered, holds: bool, holds_if_unknown_is_unmetered: bool
) -> None:
    known = replace(GOOD, metered=metered)
    assert (unmet(Conditions(), known) == ()) is holds
    assert (unmet(Conditions(unknown_is_unmetered=True), known) == ()) is holds_if_unknown_is_unmetered


def test_a_guess_is_told_apart_from_knowledge() -> None:
    assert unmet(Conditions(), replace(GOOD, metered=Metered.GUESSED_YES)) == (
        "the network is probably metered (NetworkManager)",
    )


@pytest.mark.parametrize(
    ("on_mains", "percent", "holds"),
    [
        (False, 50, True),
        (False, 49.9, False),
        (True, 3, True),
        (None, 90, True),
        (None, 10, False),
        (True, None, True),
        (False, None, False),
    ],
)
def test_the_level_of_the_battery_counts_only_while_it_does_not_charge(
    on_mains: bool | None, percent: float | None, holds: bool
) -> None:
    known = replace(GOOD, on_mains=on_mains, battery_percent=percent)
    assert (unmet(Conditions(min_battery_percent=50), known) == ()) is holds


@pytest.mark.parametrize(
    ("start", "end", "minute", "holds"),
    [
        ("01:00", "05:00", 60, True),
        ("01:00", "05:00", 300, False),
        ("01:00", "05:00", 59, False),
        ("22:00", "06:00", 23 * 60, True),
        ("22:00", "06:00", 5 * 60, True),
        ("22:00", "06:00", 12 * 60, False),
        ("03:00", "03:00", 12 * 60, True),
    ],
)
def test_a_window_may_reach_over_midnight(start: str, end: str, minute: int, holds: bool) -> None:
    asked = Conditions(between=DailyWindow(start, end))
    assert (unmet(asked, replace(GOOD, minute_of_day=minute)) == ()) is holds


def test_the_floor_of_free_space_is_named() -> None:
    asked = Conditions(min_free_bytes=2_000)
    assert short_of_space(asked, 2_000) == ()
    assert short_of_space(asked, 1_999) == ("the disk has 1,999 bytes free, and 2,000 are to stay free",)


def test_bytes_that_a_download_has_reserved_are_not_asked_for_twice() -> None:
    artifact = Artifact(role="model", name="m.gguf", url="https://x/m", size_bytes=1_000, sha256="a" * 64)
    release = Release(tier="1b", version="1.0.0", artifacts=(artifact,))
    asked = Conditions(min_free_bytes=100)

    def needed(present: int, reserved: int | None = None) -> int:
        held = None if reserved is None else {artifact.sha256: reserved}
        return make_plan(release, {artifact.sha256: present}, 10_000, asked, reserved=held).disk_bytes_needed

    assert needed(present=0) == 1_100
    assert needed(present=400) == 700
    assert needed(present=400, reserved=1_000) == 100
    assert needed(present=1_000) == 0


@pytest.mark.parametrize("url", ["http://localhost:8080/m", "http://127.0.0.5/m", "https://[::1]:1/m", "/mnt/carried"])
def test_this_machine_itself_costs_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
    assert network.metered(url) == (Metered.NO, "this machine itself")


@pytest.mark.parametrize("url", ["https://cdn.example.com/m", "http://127.0.0.1.example.com/m", "http://[::1/m"])
def test_elsewhere_is_unknown_where_nobody_can_be_asked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
    assert network.metered(url)[0] is Metered.UNKNOWN


def test_a_proxy_leads_away_from_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
    monkeypatch.setenv("http_proxy", "http://proxy.example.com:3128")
    assert network.metered("http://127.0.0.1/m")[0] is Metered.UNKNOWN
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert network.metered("http://127.0.0.1/m")[0] is Metered.NO


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_a_system_that_cannot_be_asked_is_named(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    known, why = network.metered("https://cdn.example.com/m")
    assert known is Metered.UNKNOWN
    assert why == f"Overair cannot ask {'Windows' if platform == 'win32' else 'macOS'}"


def supplies(folder: Path, **files: dict[str, str]) -> Path:
    for name, entries in files.items():
        (folder / name).mkdir()
        for entry, text in entries.items():
            (folder / name / entry).write_text(f"{text}\n")
    return folder


BATTERY = {"type": "Battery", "present": "1", "status": "Discharging", "capacity": "31"}
MOUSE = {"type": "Battery", "scope": "Device", "status": "Discharging", "capacity": "7"}


@pytest.mark.parametrize(
    ("found", "power"),
    [
        ({}, Power(True, None)),
        ({"AC": {"type": "Mains", "online": "1"}}, Power(True, None)),
        ({"hidpp_battery_0": MOUSE}, Power(True, None)),
        ({"BAT1": BATTERY | {"present": "0"}}, Power(True, None)),
        ({"BAT0": BATTERY}, Power(False, 31)),
        ({"BAT0": BATTERY, "hidpp_battery_0": MOUSE}, Power(False, 31)),
        ({"BAT0": BATTERY, "ADP1": {"type": "Mains", "online": "1"}}, Power(True, 31)),
        ({"BAT0": BATTERY | {"status": "Full"}, "ADP1": {"type": "Mains", "online": "0"}}, Power(False, 31)),
        ({"C1AB": BATTERY | {"status": "Charging"}}, Power(True, 31)),
        ({"BAT0": BATTERY | {"status": "Unknown"}}, Power(None, 31)),
        ({"BAT0": BATTERY | {"capacity": ""}}, Power(False, None)),
        ({"BAT0": BATTERY, "BAT1": BATTERY | {"capacity": "91"}}, Power(False, 61)),
    ],
)
def test_linux_says_what_a_machine_runs_on(found: dict[str, dict[str, str]], power: Power, tmp_path: Path) -> None:
    assert from_sysfs(supplies(tmp_path, **found)) == power


def test_a_machine_without_a_list_of_power_supplies_does_not_know(tmp_path: Path) -> None:
    assert from_sysfs(tmp_path / "none") == Power(None, None)


@pytest.mark.parametrize(
    ("busy_s", "own_s", "share"),
    [(0.0, 0.0, 0.0), (1.0, 1.0, 0.0), (2.0, 1.0, 0.25), (4.0, 0.0, 1.0), (0.5, 0.6, 0.0), (9.0, 0.0, 1.0)],
)
def test_our_own_work_is_no_activity(busy_s: float, own_s: float, share: float) -> None:
    later = Sample(at_s=12.0, busy_s=100 + busy_s, own_s=7 + own_s)
    assert share_of_others(Sample(at_s=10.0, busy_s=100, own_s=7), later, processors=2) == share


def test_the_work_of_this_process_is_counted_as_its_own_in_every_thread() -> None:
    def work() -> None:
        deadline = time.thread_time() + 0.15
        while time.thread_time() < deadline:
            pass

    before = activity.sample()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    after = activity.sample()
    assert after.own_s - before.own_s >= 0.12
    assert after.busy_s - before.busy_s >= 0.1


def test_the_work_of_another_process_is_activity() -> None:
    before = activity.sample()
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        deadline = time.monotonic() + 20
        while (share := share_of_others(before, activity.sample(), processors=1)) < 0.3:
            assert time.monotonic() < deadline, share
            time.sleep(0.02)
    finally:
        other.kill()
        other.wait()


def test_facts_that_nobody_asks_for_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("read although nobody asked")

    for place, name in ((bus, "ask"), (facts, "read_power"), (activity, "sample")):
        monkeypatch.setattr(place, name, refuse)
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    known = facts.read_facts("https://cdn.example.com/m", now=noon, conditions=ANYTHING)
    assert unmet(ANYTHING, known) == ()


def test_the_minute_is_that_of_the_machines_own_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")  # half an hour beside most others
    time.tzset()
    try:
        now = datetime(2026, 11, 23, 4, 30, tzinfo=timezone(timedelta(hours=-5)))
        assert facts.read_facts("/carried", now=now, conditions=ANYTHING).minute_of_day == 15 * 60
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_reading_everything_says_something_about_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
    known = facts.read_facts("https://cdn.example.com/m", now=datetime.now(UTC))
    assert known.metered is Metered.UNKNOWN
    assert known.network == "no system bus runs here"
    assert known.idle is not None
    assert known.idle or "of the processors" in known.activity


@pytest.mark.parametrize(
    "values",
    [
        {"max_bytes_per_second": 0},
        {"max_bytes_per_second": -5},
        {"max_bytes_per_second": 2e6},
        {"min_free_bytes": -1},
        {"min_free_bytes": True},
        {"min_battery_percent": 101},
    ],
)
def test_numbers_that_make_no_sense_are_refused_when_an_app_makes_them(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(values))):
        Conditions(**values)


@pytest.mark.parametrize(
    ("start", "end"), [("25:00", "01:00"), ("01:00", "x"), ("1:00", "02:00"), ("01:00\n", "02:00")]
)
def test_a_window_that_is_none_is_refused_when_an_app_makes_it(start: str, end: str) -> None:
    with pytest.raises(UsageError, match="not a time of day"):
        DailyWindow(start, end)
