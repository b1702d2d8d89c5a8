"""Mirrors that lie, sleep, trickle or die, and files that change, while several connections fetch one file."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overair.errors import CancelledError, IntegrityError, NetworkError
from support.trouble import Ask, Trouble, TroubleServer, in_turn, serving
from support.trouble_device import CHUNK, CHUNKS, DATA, PATH, Device

OTHER = DATA[::-1]


@pytest.fixture
def mirrors() -> Iterator[list[TroubleServer]]:
    with serving(PATH, DATA, count=2) as servers:
        yield servers


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "partial")


def _urls(mirrors: list[TroubleServer]) -> list[str]:
    return [mirror.url + PATH for mirror in mirrors]


def _sent(mirrors: list[TroubleServer]) -> int:
    return sum(mirror.bytes_sent(PATH) for mirror in mirrors)


# --- wrong bytes -----------------------------------------------------------------------------------------------


def test_a_flipped_bit_in_each_chunk_in_turn_costs_that_chunk_and_the_source_is_named(
    mirrors: list[TroubleServer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad, _ = mirrors
    for number in range(CHUNKS):
        flipped = min(number * CHUNK + number * 61, len(DATA) - 1)  # at the front of the first, near the end of others
        bad.trouble[PATH] = Trouble(flips=frozenset({flipped}))
        device = Device(tmp_path / f"partial-{number}")
        assert device.fetch(*_urls(mirrors), connections=1) == DATA
        assert device.received <= len(DATA) + CHUNK
        assert f"chunk {number} that came from {bad.url}{PATH} is not what was promised" in caplog.text
        caplog.clear()


def test_a_mirror_that_is_all_wrong_costs_no_more_than_what_it_had_under_way(
    mirrors: list[TroubleServer], device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    mirrors[0].files[PATH] = OTHER
    assert device.fetch(*_urls(mirrors)) == DATA
    assert len(mirrors[0].asks(PATH)) <= 4
    assert f"came from {mirrors[0].url}{PATH}" in caplog.text
    # A chunk that one began and the other ended names both, and puts out neither.
    assert f"came from {mirrors[1].url}{PATH} is not" not in caplog.text


def test_when_all_mirrors_are_wrong_it_is_an_integrity_error_that_names_one(
    mirrors: list[TroubleServer], device: Device
) -> None:
    for mirror in mirrors:
        mirror.files[PATH] = OTHER
    with pytest.raises(IntegrityError, match="is not what was promised") as caught:
        device.fetch(*_urls(mirrors))
    assert any(mirror.url in caught.value.message for mirror in mirrors)
    assert caught.value.hint


# --- files that change -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("blind", [False, True])
def test_a_file_that_changes_to_the_right_one_in_the_middle_is_never_a_mixture(
    mirrors: list[TroubleServer], device: Device, connections: int, blind: bool
) -> None:
    server = mirrors[0]
    server.files[PATH] = OTHER

    def change(ask: Ask) -> Trouble:
        if len(server.asks(PATH)) > 1:  # the first answer is of the old file to its end
            server.files[PATH] = DATA
        return Trouble(blind=blind, cut_at=ask.start + 30_000 if "range" in ask.headers else None)

    server.trouble[PATH] = change
    assert device.fetch(server.url + PATH, connections=connections) == DATA
    assert device.received <= (3 if blind else 2) * len(DATA)


def test_a_file_that_changes_to_another_in_the_middle_is_refused_and_its_right_chunks_stay(
    mirrors: list[TroubleServer], device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    server = mirrors[0]

    def change(ask: Ask) -> Trouble:
        if server.bytes_sent(PATH) > len(DATA) // 2:
            server.files[PATH] = OTHER
        return Trouble(cut_at=ask.start + 30_000)

    server.trouble[PATH] = change
    with pytest.raises(IntegrityError):
        device.fetch(server.url + PATH, connections=1)
    assert "has changed" in caplog.text
    assert device.fetch(mirrors[1].url + PATH) == DATA
    assert mirrors[1].bytes_sent(PATH) <= len(DATA) // 2 + CHUNK


def test_a_file_replaced_between_two_runs_costs_no_chunk_that_is_the_same(
    mirrors: list[TroubleServer], tmp_path: Path
) -> None:
    old = DATA[: 32 * CHUNK] + OTHER[32 * CHUNK :]
    server = mirrors[0]
    server.files[PATH] = old
    device = Device(tmp_path / "partial")
    with pytest.raises(IntegrityError):
        device.fetch(server.url + PATH, connections=1)
    server.files[PATH] = DATA
    server.forget()
    assert device.fetch(server.url + PATH) == DATA
    assert server.bytes_sent(PATH) <= len(DATA) - 28 * CHUNK  # a request that is shared out ends a little late


# --- slow and silent ---------------------------------------------------------------------------------------------


def test_a_connection_that_stalls_is_replaced_and_its_bytes_are_not_fetched_twice(
    mirrors: list[TroubleServer], device: Device
) -> None:
    server = mirrors[0]
    server.trouble[PATH] = in_turn(Trouble(stall_at=3 * CHUNK))
    began = time.monotonic()
    assert device.fetch(server.url + PATH, connections=1, silence_s=0.3) == DATA
    assert 0.3 <= time.monotonic() - began < 3.0
    assert server.bytes_sent(PATH) <= len(DATA) + CHUNK


def test_connections_that_trickle_are_dropped_and_replaced(mirrors: list[TroubleServer], device: Device) -> None:
    server = mirrors[0]
    server.trouble[PATH] = in_turn(*[Trouble(bytes_per_second=200)] * 4)
    began = time.monotonic()
    assert device.fetch(server.url + PATH, floor_s=0.5, silence_s=5.0) == DATA
    assert time.monotonic() - began < 5.0
    assert server.bytes_sent(PATH) <= 1.1 * len(DATA)


def test_a_silent_mirror_does_not_hold_the_other_up(mirrors: list[TroubleServer], device: Device) -> None:
    mirrors[0].trouble[PATH] = lambda ask: Trouble(stall_at=ask.start)
    began = time.monotonic()
    assert device.fetch(*_urls(mirrors), silence_s=0.4) == DATA
    assert time.monotonic() - began < 4.0
    assert mirrors[1].bytes_sent(PATH) >= len(DATA) - CHUNK


def test_a_mirror_that_is_ten_times_slower_brings_a_tenth(mirrors: list[TroubleServer], device: Device) -> None:
    mirrors[0].trouble[PATH] = Trouble(bytes_per_second=25_000)
    mirrors[1].trouble[PATH] = Trouble(bytes_per_second=250_000)
    began = time.monotonic()
    assert device.fetch(*_urls(mirrors), connections=2) == DATA
    # Half of the file from each would take five seconds.
    assert time.monotonic() - began < 3.0
    assert mirrors[0].bytes_sent(PATH) < len(DATA) // 3


def test_a_mirror_that_dies_in_the_middle_is_passed_over(
    mirrors: list[TroubleServer], device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    dead = mirrors[0]
    dead.trouble[PATH] = lambda ask: Trouble(cut_at=max(ask.start, 60_000))
    assert device.fetch(*_urls(mirrors)) == DATA
    assert dead.url in caplog.text
    assert _sent(mirrors) <= 1.1 * len(DATA)


def test_a_mirror_where_nobody_listens_is_passed_over(mirrors: list[TroubleServer], device: Device) -> None:
    mirrors[0].hang_up()
    assert device.fetch(*_urls(mirrors)) == DATA
    assert mirrors[1].bytes_sent(PATH) <= 1.1 * len(DATA)


def test_when_every_mirror_is_gone_the_error_says_so_and_nothing_waits_for_ever(
    mirrors: list[TroubleServer], device: Device
) -> None:
    for mirror in mirrors:
        mirror.hang_up()
    began = time.monotonic()
    with pytest.raises(NetworkError, match="connection refused") as caught:
        device.fetch(*_urls(mirrors))
    assert not isinstance(caught.value, CancelledError)
    assert time.monotonic() - began < 10.0
