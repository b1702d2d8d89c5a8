"""The gate pauses and resumes; here the test says what the machine knows."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from overair.device.gate import Gate, Reasons
from overair.errors import CancelledError, StorageError
from overair.host import disk
from overair.model.conditions import Conditions
from overair.model.facts import Facts, Metered

FREE = Facts(
    metered=Metered.NO,
    network="NetworkManager",
    on_mains=True,
    battery_percent=None,
    idle=True,
    activity="",
    minute_of_day=0,
)
COSTLY = replace(FREE, metered=Metered.YES)
METERED = ("the network is metered (NetworkManager)",)
URL = "https://cdn.example.com/m.gguf"


class Machine:
    """What a machine knows, look after look; the last is what it knows from then on."""

    def __init__(self, *looks: Facts) -> None:
        self._coming = list(looks)
        self.looks = 0

    def __call__(self) -> Facts:
        self.looks += 1
        return self._coming.pop(0) if len(self._coming) > 1 else self._coming[0]

    def becomes(self, known: Facts) -> None:
        self._coming = [known]


def gate(facts: Callable[[], Facts]) -> Gate:
    return Gate(Conditions(min_free_bytes=0), URL, facts=facts, interval_s=0.02)


def stays_silent(_: Reasons) -> None:
    raise AssertionError("nothing was waited for")


@pytest.fixture(autouse=True)
def _threads_end() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 3
    while any(thread.name == "overair-gate" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "a thread of the gate goes on"
        time.sleep(0.01)


def test_an_open_gate_lets_through_at_once_and_says_nothing() -> None:
    machine = Machine(FREE)
    gate(machine).wait(threading.Event(), stays_silent)
    assert machine.looks <= 2


def test_a_closed_gate_says_why_and_opens_when_two_looks_in_a_row_say_so() -> None:
    machine = Machine(COSTLY, FREE, COSTLY, FREE, FREE)
    said: list[Reasons] = []
    closed = gate(machine)
    closed.wait(threading.Event(), said.append)
    assert said == [METERED]
    assert machine.looks >= 5
    assert closed.waiting_for == ()


def test_what_is_waited_for_is_said_again_when_it_changes() -> None:
    machine = Machine(COSTLY, replace(COSTLY, metered=Metered.GUESSED_YES), FREE)
    said: list[Reasons] = []
    gate(machine).wait(threading.Event(), said.append)
    assert said == [METERED, ("the network is probably metered (NetworkManager)",)]


def test_what_is_waited_for_is_said_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overair.device.gate.REPEAT_S", 0.1)
    cancel = threading.Event()
    said: list[float] = []

    def say(reasons: Reasons) -> None:
        assert reasons == METERED
        said.append(time.monotonic())
        if len(said) == 3:
            cancel.set()

    too_late = threading.Timer(5, cancel.set)
    too_late.start()
    with pytest.raises(CancelledError):
        gate(Machine(COSTLY)).wait(cancel, say)
    too_late.cancel()
    assert len(said) == 3
    assert said[2] - said[0] >= 0.2


def test_cancelling_ends_a_wait_although_a_look_takes_for_ever() -> None:
    cancel, let_go = threading.Event(), threading.Event()

    def slow() -> Facts:
        threading.Timer(0.15, cancel.set).start()  # when the wait has begun
        let_go.wait(10)
        return FREE

    started = time.monotonic()
    with pytest.raises(CancelledError):
        gate(slow).wait(cancel, stays_silent)
    assert time.monotonic() - started < 0.65
    let_go.set()


def test_a_condition_that_stops_holding_stops_the_block_and_is_remembered() -> None:
    machine = Machine(FREE)
    watched = gate(machine)
    with watched.watching(threading.Event()) as stop:
        assert not stop.wait(0.2)
        machine.becomes(COSTLY)
        assert stop.wait(2)
    assert watched.waiting_for == METERED


def test_after_a_pause_one_good_look_is_not_enough() -> None:
    machine = Machine(COSTLY, FREE)
    watched = gate(machine)
    with watched.watching(threading.Event()) as stop:
        assert stop.wait(2)
    before = machine.looks
    said: list[Reasons] = []
    watched.wait(threading.Event(), said.append)
    assert said == [METERED]
    assert machine.looks - before >= 2


def test_cancelling_stops_the_block_although_a_look_takes_for_ever() -> None:
    cancel, let_go, looking = threading.Event(), threading.Event(), threading.Event()

    def slow() -> Facts:
        looking.set()
        let_go.wait(10)
        return FREE

    watched = gate(slow)
    with watched.watching(cancel) as stop:
        assert looking.wait(5)
        cancel.set()
        started = time.monotonic()
        assert stop.wait(5)
        assert time.monotonic() - started < 0.25
    assert watched.waiting_for == ()
    let_go.set()


def test_who_cannot_look_does_not_go_on() -> None:
    def blind() -> Facts:
        raise StorageError("the machine does not say")

    watched = gate(blind)
    with watched.watching(threading.Event()) as stop:
        assert stop.wait(2)
    assert watched.waiting_for == ("the machine does not say",)
    with pytest.raises(StorageError):
        watched.wait(threading.Event(), lambda _: None)


def test_the_floor_of_free_space_is_watched_too(tmp_path: Path) -> None:
    free = disk.free_bytes(tmp_path)
    asked = Conditions(unmetered=False, min_free_bytes=free * 2)
    (reason,) = Gate(asked, URL, path=tmp_path).unmet()
    assert reason.endswith(f"{free * 2:,} are to stay free")
    assert Gate(Conditions(unmetered=False, min_free_bytes=0), URL, path=tmp_path).unmet() == ()


def test_a_look_asks_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
    (reason,) = Gate(Conditions(min_free_bytes=0), URL, path=tmp_path).unmet()
    assert reason.startswith("nobody can tell whether the network is metered (no system bus runs here)")
    assert Gate(Conditions(min_free_bytes=0, unknown_is_unmetered=True), URL, path=tmp_path).unmet() == ()
    assert Gate(Conditions(min_free_bytes=0), "http://127.0.0.1/m.gguf", path=tmp_path).unmet() == ()
