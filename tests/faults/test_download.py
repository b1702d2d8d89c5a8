"""Downloads from a server that misbehaves, in processes that die, onto disks that fill up."""

import hashlib
import itertools
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overair.core.retry import MAX_FAILURES
from overair.errors import CancelledError, HTTPStatusError, IntegrityError, NetworkError, NoSpaceError, OverairError
from overair.store.partial import Partial
from overair.transport.http import HTTP
from overair.transport.pace import FLOOR_S
from support.misbehaving import (
    CutAt,
    EndlessBody,
    Fault,
    FlipByte,
    Gzip,
    Headers,
    IgnoreIfRange,
    IgnoreRange,
    MisbehavingServer,
    NeverAnswer,
    NoETag,
    Page,
    StallAt,
    Status,
    Trickle,
    WrongContentRange,
)
from support.streams import download

DATA = hashlib.shake_256(b"a model").digest(1_000_000)
DIGEST = hashlib.sha256(DATA).hexdigest()
PATH = "/model.gguf"

CHILD = """
import sys
from pathlib import Path
from overair.store.partial import Partial
from overair.transport.download import StreamDownload
from overair.transport.http import HTTP
folder, url, size, digest = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
with HTTP() as http, Partial.open(folder, digest, size) as partial:
    print(StreamDownload(http, urls=[url], size_bytes=size, sha256=digest, partial=partial).run())
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MisbehavingServer]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(DATA)
    with MisbehavingServer(folder) as server:
        yield server


class Device:
    """A folder for partial downloads, and a clock that only waiting moves."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.now = 0.0
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def fetch(self, *, digest: str = DIGEST, size_bytes: int = len(DATA), **options: Any) -> bytes:
        options = {"clock": lambda: self.now, "wait": self.wait, "chance": lambda: 0.5, **options}
        with (
            HTTP(connect_timeout_s=2.0, read_timeout_s=0.3) as http,
            Partial.open(self.folder, digest, size_bytes) as partial,
        ):
            path = download(http, self.url, size_bytes=size_bytes, sha256=digest, partial=partial, **options)
        return path.read_bytes()

    def bytes_here(self) -> bytes:
        path = self.folder / DIGEST
        return path.read_bytes() if path.exists() else b""


@pytest.fixture
def device(server: MisbehavingServer, tmp_path: Path) -> Device:
    return Device(tmp_path / "partial", server.url + PATH)


def _one_try_then_gone(server: MisbehavingServer, device: Device, fault: Fault) -> bytes:
    """What is left of a download when the server fails in the middle and then for good."""
    server.faults[PATH] = [fault, Status(404, body=b"")]
    with pytest.raises(HTTPStatusError):
        device.fetch()
    server.faults.clear()
    server.forget()
    return device.bytes_here()


def test_a_whole_file_comes_with_one_request(server: MisbehavingServer, device: Device) -> None:
    progress: list[int] = []
    assert device.fetch(on_bytes=progress.append) == DATA
    assert progress[-1] == len(DATA)
    assert progress == sorted(progress)
    assert len(server.requests()) == 1
    assert device.waits == []


def test_connection_cut_at_20_places_continues_and_fetches_nothing_twice(
    server: MisbehavingServer, device: Device
) -> None:
    chance = random.Random(7)  # noqa: S311 - places that are the same in every run
    positions = sorted(chance.sample(range(1, len(DATA)), 20))
    server.faults[PATH] = [CutAt(position) for position in positions]
    assert device.fetch() == DATA
    assert server.bytes_served(PATH) < 1.1 * len(DATA)
    assert len(server.requests()) == 21


def test_connection_reset_in_the_middle_continues(server: MisbehavingServer, device: Device) -> None:
    server.faults[PATH] = [CutAt(400_000, reset=True), StallAt(600_000)]
    assert device.fetch() == DATA
    assert server.requests()[-1].headers["range"].startswith("bytes=")


def test_six_failures_in_a_row_without_progress_are_the_end(server: MisbehavingServer, device: Device) -> None:
    server.faults[PATH] = [CutAt(100_000), *[Status(503)] * 50]
    with pytest.raises(HTTPStatusError, match="503"):
        device.fetch()
    assert len(server.requests()) == 1 + MAX_FAILURES - 1
    assert device.waits == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert device.bytes_here() == DATA[:100_000]


def test_progress_allows_more_than_six_tries(server: MisbehavingServer, device: Device) -> None:
    server.faults[PATH] = [CutAt(position) for position in range(50_000, 1_000_000, 50_000)]
    assert device.fetch() == DATA
    assert len(server.requests()) == 20
    assert set(device.waits) == {0.5}


def test_a_server_that_always_cuts_and_knows_no_ranges_does_not_hold_a_device_for_ever(
    server: MisbehavingServer, device: Device
) -> None:
    class NoRangesAndCut(CutAt):
        see = IgnoreRange.see

    server.faults[PATH] = NoRangesAndCut(300_000)
    with pytest.raises(NetworkError):
        device.fetch()
    assert len(server.requests()) == MAX_FAILURES


def test_status_404_is_not_tried_again(server: MisbehavingServer, device: Device) -> None:
    server.faults[PATH] = Status(404)
    with pytest.raises(HTTPStatusError, match="404"):
        device.fetch()
    assert len(server.requests()) == 1


def test_a_server_that_asks_for_patience_is_given_it(server: MisbehavingServer, device: Device) -> None:
    server.faults[PATH] = [Status(429, {"Retry-After": "77"}), Status(503, {"Retry-After": "100000"})]
    assert device.fetch() == DATA
    assert device.waits == [77.0, 300.0]


def test_server_ignores_range_full_download_succeeds(server: MisbehavingServer, device: Device) -> None:
    assert _one_try_then_gone(server, device, CutAt(400_000)) == DATA[:400_000]
    server.faults[PATH] = IgnoreRange()
    assert device.fetch() == DATA
    assert len(server.requests()) == 1


def test_a_later_call_continues_where_the_first_stopped(server: MisbehavingServer, device: Device) -> None:
    assert _one_try_then_gone(server, device, CutAt(400_000)) == DATA[:400_000]
    progress: list[int] = []
    assert device.fetch(on_bytes=progress.append) == DATA
    assert progress[0] == 400_000
    assert server.bytes_served(PATH) == 600_000
    headers = server.requests()[0].headers
    assert headers["range"] == "bytes=400000-"
    assert headers["if-range"] == f'"{DIGEST[:16]}"'


def test_a_signature_that_changed_in_the_url_does_not_stop_a_resume(server: MisbehavingServer, device: Device) -> None:
    url = device.url
    device.url = url + "?signature=first"
    assert _one_try_then_gone(server, device, CutAt(400_000)) == DATA[:400_000]
    assert b"signature" not in (device.folder / f"{DIGEST}.json").read_bytes()
    device.url = url + "?signature=second"
    assert device.fetch() == DATA
    assert server.bytes_served(PATH) == 600_000


def test_bytes_of_another_url_are_not_continued(server: MisbehavingServer, device: Device) -> None:
    _one_try_then_gone(server, device, CutAt(400_000))
    (server.folder / "moved.gguf").write_bytes(DATA)
    device.url = server.url + "/moved.gguf"
    assert device.fetch() == DATA
    assert "range" not in server.requests()[0].headers


@pytest.mark.parametrize("fault", [NoETag(), Headers({"ETag": 'W/"weak"'})])
def test_without_a_strong_tag_a_resume_starts_over(server: MisbehavingServer, device: Device, fault: Fault) -> None:
    class Both(CutAt):
        def change(self, answer: Any) -> Any:
            return fault.change(super().change(answer))

    server.faults[PATH] = [Both(400_000), fault]
    assert device.fetch() == DATA
    assert all("range" not in request.headers for request in server.requests())


def test_a_wrong_content_range_is_refused_and_the_whole_file_fetched(server: MisbehavingServer, device: Device) -> None:
    _one_try_then_gone(server, device, CutAt(400_000))
    server.faults[PATH] = WrongContentRange()
    assert device.fetch() == DATA
    assert ["range" in request.headers for request in server.requests()] == [True, False]


def test_status_416_starts_over(server: MisbehavingServer, device: Device) -> None:
    _one_try_then_gone(server, device, CutAt(400_000))
    server.faults[PATH] = [Status(416)]
    assert device.fetch() == DATA
    assert ["range" in request.headers for request in server.requests()] == [True, False]


@pytest.mark.parametrize("fault", [Fault(), IgnoreIfRange()])
def test_a_file_that_changed_in_the_middle_comes_whole_and_never_mixed(
    server: MisbehavingServer, device: Device, fault: Fault
) -> None:
    (server.folder / "model.gguf").write_bytes(DATA[::-1])
    assert _one_try_then_gone(server, device, CutAt(400_000)) == DATA[::-1][:400_000]
    (server.folder / "model.gguf").write_bytes(DATA)
    server.faults[PATH] = fault
    assert device.fetch() == DATA
    assert server.bytes_served(PATH) <= 2 * len(DATA)


def test_a_garbled_tail_of_an_earlier_try_is_fetched_once_more_from_zero(
    server: MisbehavingServer, device: Device
) -> None:
    _one_try_then_gone(server, device, CutAt(400_000))
    with (device.folder / DIGEST).open("r+b") as file:
        file.seek(399_000)
        file.write(bytes(1000))
    assert device.fetch() == DATA
    assert ["range" in request.headers for request in server.requests()] == [True, False]


def test_a_resumed_download_that_is_wrong_twice_is_an_integrity_error(
    server: MisbehavingServer, device: Device
) -> None:
    _one_try_then_gone(server, device, CutAt(400_000))
    server.faults[PATH] = FlipByte(500_000)
    with pytest.raises(IntegrityError, match="is not the file that was promised"):
        device.fetch()
    assert len(server.requests()) == 2
    assert device.bytes_here() == b""


def test_a_wrong_digest_names_both_digests_and_the_url_and_leaves_nothing(
    server: MisbehavingServer, device: Device
) -> None:
    server.faults[PATH] = FlipByte(999_999)
    wrong = hashlib.sha256(DATA[:-1] + bytes([DATA[-1] ^ 0xFF])).hexdigest()
    with pytest.raises(IntegrityError) as caught:
        device.fetch()
    for part in (DIGEST, wrong, device.url):
        assert part in caught.value.message
    assert list(device.folder.iterdir()) == []
    assert len(server.requests()) == 1


def test_a_whole_file_that_is_already_here_needs_no_server(server: MisbehavingServer, device: Device) -> None:
    device.fetch()
    server.forget()
    server.faults[PATH] = Status(500)
    assert device.fetch() == DATA
    assert server.requests() == []


def test_a_whole_file_that_is_here_but_wrong_is_fetched_again(server: MisbehavingServer, device: Device) -> None:
    device.fetch()
    (device.folder / DIGEST).write_bytes(bytes(len(DATA)))
    assert device.fetch() == DATA
    assert ["range" in request.headers for request in server.requests()] == [False, False]


@pytest.mark.parametrize("delta", [-1, 1])
def test_a_file_of_another_length_is_refused_and_both_lengths_named(device: Device, delta: int) -> None:
    with pytest.raises(IntegrityError, match=rf"has {len(DATA)} bytes, {len(DATA) + delta} were promised"):
        device.fetch(size_bytes=len(DATA) + delta)


def test_a_range_of_a_file_of_another_length_is_refused_and_the_bytes_stay(
    server: MisbehavingServer, device: Device
) -> None:
    _one_try_then_gone(server, device, CutAt(400_000))
    server.faults[PATH] = Headers({"Content-Range": "bytes 400000-1000000/1000001", "Content-Length": "600001"})
    with pytest.raises(IntegrityError, match="has 1000001 bytes, 1000000 were promised"):
        device.fetch()
    assert device.bytes_here() == DATA[:400_000]


def test_an_endless_body_is_left_at_the_first_byte_too_many(server: MisbehavingServer, device: Device) -> None:
    server.faults[PATH] = EndlessBody()
    with pytest.raises(IntegrityError, match="more than the promised 1000000 bytes"):
        device.fetch()
    assert len(device.bytes_here()) <= len(DATA)
    assert server.bytes_served(PATH) < 20 * len(DATA)


def test_a_body_of_unknown_length_that_is_right_is_taken(server: MisbehavingServer, device: Device) -> None:
    server.faults[PATH] = Headers({"Content-Length": None, "Connection": "close"})
    assert device.fetch() == DATA


def test_a_body_of_unknown_length_that_ends_early_continues(server: MisbehavingServer, device: Device) -> None:
    class Short(CutAt):
        def change(self, answer: Any) -> Any:
            return super().change(answer).with_headers(Content_Length=None, Connection="close")

    server.faults[PATH] = [Short(300_000)]
    assert device.fetch() == DATA
    assert server.bytes_served(PATH) == len(DATA)


def test_a_login_page_is_named_and_the_bytes_stay(server: MisbehavingServer, device: Device) -> None:
    _one_try_then_gone(server, device, CutAt(400_000))
    server.faults[PATH] = Page()
    with pytest.raises(IntegrityError, match="a page of HTML came instead"):
        device.fetch()
    assert device.bytes_here() == DATA[:400_000]


def test_a_file_that_was_compressed_on_the_way_is_refused(server: MisbehavingServer, device: Device) -> None:
    server.faults[PATH] = Gzip()
    with pytest.raises(IntegrityError, match="changed the bytes"):
        device.fetch()
    assert len(server.requests()) == 1


def test_a_server_that_never_answers_ends_after_six_tries(server: MisbehavingServer, device: Device) -> None:
    server.faults[PATH] = NeverAnswer()
    with pytest.raises(NetworkError, match="sent nothing"):
        device.fetch()
    assert len(server.requests()) == MAX_FAILURES


def test_a_trickle_is_dropped_and_the_download_goes_on(server: MisbehavingServer, device: Device) -> None:
    server.faults[PATH] = [Trickle()]
    ticks = itertools.count(step=FLOOR_S / 5)
    progress: list[int] = []
    assert device.fetch(clock=lambda: next(ticks), on_bytes=progress.append) == DATA
    assert progress[0] < 100
    assert "range" in server.requests()[1].headers


def test_the_rate_is_kept(server: MisbehavingServer, device: Device) -> None:
    assert device.fetch(max_bytes_per_second=100_000) == DATA
    assert device.now == pytest.approx(len(DATA) / 100_000, rel=0.15)
    assert max(device.waits) <= 0.5
    assert len(server.requests()) == 1


def _cancel_after(seconds: float) -> threading.Event:
    cancel = threading.Event()
    threading.Timer(seconds, cancel.set).start()
    return cancel


@pytest.mark.parametrize("fault", [StallAt(400_000), NeverAnswer(), Status(503, {"Retry-After": "60"})])
def test_cancel_ends_every_kind_of_waiting_within_half_a_second(
    server: MisbehavingServer, device: Device, fault: Fault
) -> None:
    server.faults[PATH] = fault
    began = time.monotonic()
    with HTTP() as http, Partial.open(device.folder, DIGEST, len(DATA)) as partial, pytest.raises(CancelledError):
        download(http, device.url, size_bytes=len(DATA), sha256=DIGEST, partial=partial, cancel=_cancel_after(0.2))
    assert time.monotonic() - began < 0.2 + 0.5


def test_cancel_ends_waiting_for_the_rate_and_keeps_the_bytes(device: Device) -> None:
    began = time.monotonic()
    with pytest.raises(CancelledError):
        device.fetch(
            max_bytes_per_second=1000, cancel=(cancel := _cancel_after(0.2)), wait=cancel.wait, clock=time.monotonic
        )
    assert time.monotonic() - began < 0.2 + 0.5
    assert 0 < len(device.bytes_here()) < len(DATA)
    assert device.fetch() == DATA


def test_cancel_before_the_first_byte_sends_no_request(server: MisbehavingServer, device: Device) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CancelledError):
        device.fetch(cancel=cancel)
    assert server.requests() == []


def _poll(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.01)


def test_a_process_killed_in_the_middle_is_continued_by_the_next(server: MisbehavingServer, device: Device) -> None:
    stall = StallAt(600_000)
    server.faults[PATH] = [stall]
    command = [sys.executable, "-c", CHILD, str(device.folder), device.url, str(len(DATA)), DIGEST]
    with subprocess.Popen(command) as child:
        _poll(lambda: len(device.bytes_here()) == 600_000, "the child did not get as far as the server went")
        child.kill()
    assert device.bytes_here() == DATA[:600_000]
    server.forget()
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert Path(done.stdout.strip()).read_bytes() == DATA
    assert server.bytes_served(PATH) == 400_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a small disk needs Linux and root")
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], check=False)
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_named_and_the_download_goes_on_when_there_is_space(
    server: MisbehavingServer, small_disk: Path
) -> None:
    device = Device(small_disk / "partial", server.url + PATH)
    with pytest.raises(NoSpaceError) as caught:
        device.fetch()
    assert "free some space" in caught.value.hint
    here = len(device.bytes_here())
    assert 300_000 < here < len(DATA)
    assert device.bytes_here() == DATA[:here]
    assert len(server.requests()) == 1
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    server.forget()
    assert device.fetch() == DATA
    assert server.bytes_served(PATH) == len(DATA) - here


def test_no_error_of_a_download_shows_the_signature(server: MisbehavingServer, device: Device) -> None:
    device.url += "?signature=secret"
    faults: list[Fault] = [Status(403), Gzip(), Page(), FlipByte(0), EndlessBody()]
    for fault in faults:
        server.faults[PATH] = fault
        with pytest.raises(OverairError) as caught:
            device.fetch()
        assert "secret" not in caught.value.message + caught.value.hint
        assert "\n" not in caught.value.message
