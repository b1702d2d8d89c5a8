"""Answers that are cut, too short, too long, or not what was asked for, while several connections fetch one file."""

import email.utils
import gzip
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from overair.errors import HTTPStatusError, IntegrityError, NetworkError
from support.trouble import Ask, Trouble, TroubleServer, in_turn
from support.trouble_device import CHUNK, CHUNKS, DATA, PATH, Device


@pytest.fixture
def server() -> Iterator[TroubleServer]:
    with TroubleServer({PATH: DATA}) as server:
        yield server


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "partial")


def only_parts(trouble: Trouble) -> Callable[[Ask], Trouble | None]:
    """Trouble for whoever asks for a part; the whole file comes as it should."""
    return lambda ask: trouble if "range" in ask.headers else None


# --- cuts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connections", [1, 4])
def test_cut_at_every_chunk_boundary_no_byte_is_lost(server: TroubleServer, device: Device, connections: int) -> None:
    server.cuts[PATH] = {number * CHUNK for number in range(1, CHUNKS)}
    assert device.fetch(server.url + PATH, connections=connections) == DATA
    assert server.bytes_sent(PATH) <= 1.1 * len(DATA)
    # A boundary at which a request ends anyway cannot be cut.
    assert len(server.cuts[PATH]) <= (0 if connections == 1 else CHUNKS // 2)


@pytest.mark.parametrize("connections", [1, 4])
def test_cut_at_200_random_bytes_no_byte_is_lost(server: TroubleServer, device: Device, connections: int) -> None:
    chance = random.Random(5)  # noqa: S311 - places that are the same in every run
    server.cuts[PATH] = set(chance.sample(range(1, len(DATA)), 200))
    assert device.fetch(server.url + PATH, connections=connections) == DATA
    assert server.bytes_sent(PATH) <= 1.1 * len(DATA)
    assert len(server.cuts[PATH]) < 10


def test_cut_before_the_first_byte_six_times_in_a_row_is_the_end_and_keeps_what_came(
    server: TroubleServer, device: Device
) -> None:
    half = len(DATA) // 2
    server.trouble[PATH] = lambda ask: Trouble(cut_at=max(ask.start, half))
    with pytest.raises(NetworkError, match=PATH):
        device.fetch(server.url + PATH, connections=1)
    server.trouble.clear()
    server.forget()
    assert device.fetch(server.url + PATH) == DATA
    assert server.bytes_sent(PATH) <= len(DATA) - half + CHUNK


def test_eight_connections_that_are_dropped_together_again_and_again_are_no_reason_to_give_up(
    server: TroubleServer, device: Device
) -> None:
    server.trouble[PATH] = Trouble(bytes_per_second=20_000)
    ended = threading.Event()

    def drop_now_and_then() -> None:
        while not ended.wait(0.3):
            server.drop()

    dropper = threading.Thread(target=drop_now_and_then)
    dropper.start()
    try:
        assert device.fetch(server.url + PATH, connections=8) == DATA
    finally:
        ended.set()
        dropper.join()
    assert server.bytes_sent(PATH) <= 1.2 * len(DATA)


# --- too few, too many, another part -----------------------------------------------------------------------------


@pytest.mark.parametrize("lacking", [1, CHUNK, 3 * CHUNK + 7])
def test_too_few_bytes_the_missing_ones_are_asked_for_again(
    server: TroubleServer, device: Device, lacking: int
) -> None:
    server.trouble[PATH] = in_turn(*[Trouble(lacking=lacking)] * 3)
    assert device.fetch(server.url + PATH, connections=2) == DATA
    assert server.bytes_sent(PATH) <= 1.1 * len(DATA)


@pytest.mark.parametrize("connections", [1, 4])
def test_too_many_bytes_are_not_written_and_not_taken_for_the_next_answer(
    server: TroubleServer, device: Device, connections: int
) -> None:
    server.trouble[PATH] = Trouble(extra=b"HTTP/1.1 200 OK\r\n" + bytes(3 * CHUNK))
    assert device.fetch(server.url + PATH, connections=connections) == DATA


def test_200_instead_of_206_the_whole_file_is_read_once(server: TroubleServer, device: Device) -> None:
    server.trouble[PATH] = Trouble(no_ranges=True)
    assert device.fetch(server.url + PATH) == DATA
    assert device.received <= 1.1 * len(DATA)


def test_a_server_that_forgets_its_ranges_in_the_middle_still_delivers(server: TroubleServer, device: Device) -> None:
    server.trouble[PATH] = lambda ask: Trouble(no_ranges=True) if ask.start > len(DATA) // 2 else None
    assert device.fetch(server.url + PATH) == DATA


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("said", ["bytes 1-4096/{size}", "bytes */{size}", "items 0-1/2", None])
def test_a_wrong_content_range_is_believed_by_nobody_and_the_whole_file_comes(
    server: TroubleServer, device: Device, said: str | None, connections: int
) -> None:
    header = said and said.format(size=len(DATA))
    server.trouble[PATH] = only_parts(Trouble(headers={"Content-Range": header}))
    assert device.fetch(server.url + PATH, connections=connections) == DATA


def test_a_part_of_a_file_of_another_length_is_refused(server: TroubleServer, device: Device) -> None:
    server.files[PATH] = DATA + b"!"
    with pytest.raises(IntegrityError, match=f"has {len(DATA) + 1} bytes, {len(DATA)} were promised"):
        device.fetch(server.url + PATH)


@pytest.mark.parametrize("connections", [1, 4])
def test_416_leads_to_the_whole_file(server: TroubleServer, device: Device, connections: int) -> None:
    server.trouble[PATH] = only_parts(Trouble(status=416))
    assert device.fetch(server.url + PATH, connections=connections) == DATA


def test_an_encoding_that_nobody_asked_for_is_refused(server: TroubleServer, device: Device) -> None:
    server.trouble[PATH] = Trouble(body=gzip.compress(DATA), headers={"Content-Encoding": "gzip"})
    with pytest.raises(IntegrityError, match="Content-Encoding gzip"):
        device.fetch(server.url + PATH)


def test_a_login_page_with_200_is_named_and_what_came_stays(server: TroubleServer, device: Device) -> None:
    page = Trouble(body=b"<html>Please log in</html>", headers={"Content-Type": "text/html"})
    server.trouble[PATH] = lambda ask: Trouble(cut_at=80_000) if not ask.start else page
    with pytest.raises(IntegrityError, match="a page of HTML came instead") as caught:
        device.fetch(server.url + PATH, connections=1)
    assert "login page" in caught.value.hint
    server.trouble.clear()
    server.forget()
    assert device.fetch(server.url + PATH) == DATA
    assert server.bytes_sent(PATH) <= len(DATA) - 80_000 + CHUNK


# --- patience and redirects ----------------------------------------------------------------------------------------


def _date_in(seconds: float) -> str:
    return email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("said", ["1", "date"])
def test_retry_after_is_obeyed_in_seconds_and_as_a_date(
    server: TroubleServer, device: Device, status: int, said: str
) -> None:
    # A date has whole seconds, and is late by part of one.
    headers = {"Retry-After": _date_in(2.0) if said == "date" else said}
    server.trouble[PATH] = in_turn(Trouble(status=status, headers=headers))
    began = time.monotonic()
    assert device.fetch(server.url + PATH, connections=1) == DATA
    assert 0.9 <= time.monotonic() - began < 4.0


def test_a_server_that_refuses_more_than_two_connections_is_asked_by_two(server: TroubleServer, device: Device) -> None:
    slow = Trouble(bytes_per_second=400_000)
    server.trouble[PATH] = lambda _: Trouble(status=503) if server.connections > 2 else slow
    assert device.fetch(server.url + PATH, connections=None) == DATA


def test_a_redirect_on_the_same_host_is_followed_by_every_connection(server: TroubleServer, device: Device) -> None:
    server.files["/elsewhere.gguf"] = DATA
    server.trouble[PATH] = Trouble(status=302, headers={"Location": "/elsewhere.gguf"})
    assert device.fetch(server.url + PATH) == DATA
    assert server.bytes_sent("/elsewhere.gguf") <= 1.1 * len(DATA)


def test_a_redirect_in_a_circle_ends(server: TroubleServer, device: Device) -> None:
    server.trouble[PATH] = Trouble(status=302, headers={"Location": PATH})
    with pytest.raises(NetworkError, match="redirects"):
        device.fetch(server.url + PATH, connections=1)
    assert len(server.asks(PATH)) < 60


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_link_that_expires_in_the_middle_ends_with_its_status_and_a_new_link_continues(
    server: TroubleServer, device: Device, status: int
) -> None:
    def expired(ask: Ask) -> Trouble | None:
        gone = "sig=1" in ask.target and server.bytes_sent(PATH) > len(DATA) // 2
        return Trouble(status=status) if gone else Trouble(cut_at=ask.start + 20_000)

    server.trouble[PATH] = expired
    with pytest.raises(HTTPStatusError) as caught:
        device.fetch(server.url + PATH + "?sig=1", connections=2)
    assert caught.value.status == status
    assert "sig=1" not in str(caught.value)
    assert device.fetch(server.url + PATH + "?sig=2") == DATA
    assert server.bytes_sent(PATH) <= 1.1 * len(DATA) + 2 * CHUNK
