"""Conditions on a real system bus, while bytes flow."""

import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jeepney import DBusAddress, new_method_call, new_method_return

from overair.device.gate import Gate, Reasons
from overair.host import activity, network
from overair.host.activity import Load
from overair.host.bus import MAX_ANSWER_BYTES
from overair.model.conditions import Conditions
from overair.model.facts import Metered
from support.bus import NetworkManager, false_bus, logind, network_manager, stay_silent, system_bus

URL = "https://cdn.example.com/m.gguf"
ONLY_FREE = Conditions(min_free_bytes=0)
ANY = Conditions(min_free_bytes=0, unmetered=False)
YES, NO, GUESSED_YES, GUESSED_NO = 1, 2, 3, 4


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[NetworkManager]:
    with network_manager(metered=NO) as manager:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", manager.address)
        yield manager


def test_every_value_of_network_manager_has_its_meaning(manager: NetworkManager) -> None:
    meanings = []
    for value in (0, YES, NO, GUESSED_YES, GUESSED_NO, 99):
        manager.set_metered(value)
        meanings.append(network.metered(URL))
    assert meanings == [
        (Metered.UNKNOWN, "NetworkManager does not know"),
        (Metered.YES, "NetworkManager"),
        (Metered.NO, "NetworkManager"),
        (Metered.GUESSED_YES, "NetworkManager"),
        (Metered.GUESSED_NO, "NetworkManager"),
        (Metered.UNKNOWN, "NetworkManager does not know"),
    ]


def test_a_download_pauses_when_the_network_turns_metered_and_goes_on_by_itself(manager: NetworkManager) -> None:
    gate, cancel = Gate(ONLY_FREE, URL), threading.Event()
    said: list[Reasons] = []

    def turn_free(reasons: Reasons) -> None:
        said.append(reasons)
        manager.set_metered(GUESSED_NO)

    gate.wait(cancel, turn_free)
    with gate.watching(cancel) as stop:
        assert not stop.wait(0.5), gate.waiting_for
        manager.set_metered(YES)
        turned = time.monotonic()
        assert stop.wait(5), "bytes went on over a metered network"
        assert time.monotonic() - turned < 2
    gate.wait(cancel, turn_free)
    assert said == [("the network is metered (NetworkManager)",)]
    with gate.watching(cancel) as stop:
        assert not stop.wait(1.2), gate.waiting_for


def test_a_download_pauses_when_network_manager_leaves(manager: NetworkManager) -> None:
    gate = Gate(ONLY_FREE, URL, interval_s=0.1)
    with gate.watching(threading.Event()) as stop:
        manager.stop()
        assert stop.wait(2)
    (reason,) = gate.waiting_for
    assert "NetworkManager does not run here" in reason


def test_a_download_that_may_use_any_network_does_not_ask(manager: NetworkManager) -> None:
    manager.set_metered(YES)
    assert Gate(ANY, URL).unmet() == ()
    assert Gate(ONLY_FREE, URL).unmet() == ("the network is metered (NetworkManager)",)


def test_a_network_manager_that_is_too_old_to_say_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    with network_manager(metered=None) as manager:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", manager.address)
        assert network.metered(URL) == (Metered.UNKNOWN, "NetworkManager does not say")


def test_a_bus_without_network_manager_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    with system_bus() as bus:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
        assert network.metered(URL) == (Metered.UNKNOWN, "NetworkManager does not run here")


def test_asking_starts_no_network_manager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with system_bus() as bus:
        bus.start_on_demand(NetworkManager.name, f"/usr/bin/touch {tmp_path}/started")
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
        assert network.metered(URL) == (Metered.UNKNOWN, "NetworkManager does not run here")
    assert list(tmp_path.iterdir()) == []


def test_a_bus_that_does_not_answer_costs_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    with false_bus(stay_silent) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        started = time.monotonic()
        assert network.metered(URL) == (Metered.UNKNOWN, "the system bus gave no answer within 1 s")
        assert time.monotonic() - started < 1.5


def test_a_bus_that_dribbles_costs_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """A letter now and then, so that no single wait is long."""

    def dribble(line: socket.socket) -> None:
        for _ in range(60):
            line.sendall(b"O")
            time.sleep(0.05)

    with false_bus(dribble) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        started = time.monotonic()
        assert network.metered(URL)[0] is Metered.UNKNOWN
        assert time.monotonic() - started < 1.5


def test_a_bus_that_says_more_than_it_should_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []

    def flood(line: socket.socket) -> None:
        let_in(line)
        line.sendall(b"l\x04\x01\x01" + (100_000_000).to_bytes(4, "little"))
        while True:
            sent.append(line.send(bytes(4096)))

    with false_bus(flood) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        assert network.metered(URL) == (Metered.UNKNOWN, "what the system bus says cannot be read")
    assert sum(sent) < 10 * MAX_ANSWER_BYTES  # the socket's own buffer, and what was taken


def test_a_damaged_answer_is_never_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    question = new_method_call(DBusAddress("/x", ":1.1"), "Get")
    question.header.serial = 2
    good = new_method_return(question, "v", (("u", NO),)).serialise(serial=7)
    chance = random.Random(5)  # noqa: S311 - it has to be the same again
    coming = [good, *(damaged(good, chance) for _ in range(400))]
    said = iter(coming)

    def answer(line: socket.socket) -> None:
        let_in(line)
        line.sendall(next(said))

    with false_bus(answer) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        results = [network.metered(URL) for _ in coming]
    assert results[0] == (Metered.NO, "NetworkManager")
    assert (Metered.UNKNOWN, "what the system bus says cannot be read") in results


def let_in(line: socket.socket) -> None:
    """What a bus says before it listens to questions."""
    line.recv(4096)
    line.sendall(b"OK 0123456789abcdef0123456789abcdef\r\n")
    line.recv(4096)


def damaged(data: bytes, chance: random.Random) -> bytes:
    copy = bytearray(data)
    for _ in range(chance.choice((1, 2, 3))):
        copy[chance.randrange(len(copy))] = chance.randrange(256)
    return bytes(copy)


def test_a_session_that_is_in_use_speaks_against_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    with logind(idle=False) as service:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", service.address)
        idle, why = activity.read_activity(Load())
        assert idle is False
        assert "somebody is at work (logind)" in why
        service.set_idle(True)
        assert "logind" not in activity.read_activity(Load())[1]
