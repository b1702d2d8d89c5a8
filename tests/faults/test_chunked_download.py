"""Downloads in chunks, over several connections, from servers that misbehave and mirrors that lie."""

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from overair.core import retry
from overair.errors import CancelledError, HTTPStatusError, IntegrityError, NetworkError, StorageError
from overair.store.pieces import Pieces
from overair.transport.chunked import ChunkedDownload
from overair.transport.folder import Folder
from overair.transport.http import HTTP
from overair.transport.pace import Pace
from support.misbehaving import (
    Answer,
    CutAt,
    Fault,
    FlipByte,
    Gzip,
    Headers,
    IgnoreRange,
    MisbehavingServer,
    NeverAnswer,
    NoETag,
    Page,
    StallAt,
    Status,
    Trickle,
    Wire,
    WrongContentRange,
)

DATA = hashlib.shake_256(b"another model").digest(1_000_000)
DIGEST = hashlib.sha256(DATA).hexdigest()
CHUNK = 64 * 1024
DIGESTS = [hashlib.sha256(DATA[at : at + CHUNK]).digest() for at in range(0, len(DATA), CHUNK)]
PATH = "/model.gguf"

CHILD = """
import sys
from pathlib import Path
from overair.formats.chunks import read_chunk_index
from overair.store.pieces import Pieces
from overair.transport.chunked import ChunkedDownload
from overair.transport.folder import Folder
from overair.transport.http import HTTP
folder, url, size, digest, index = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5]
digests = read_chunk_index(bytes.fromhex(index), size_bytes=size, chunk_bytes=65536)
with HTTP() as web, Pieces.open(folder, digest, size, 65536) as pieces:
    print(ChunkedDownload(web, urls=[url], digests=digests, file=pieces, connections=2).run())
"""


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MisbehavingServer]:
    folder = tmp_path / "served"
    folder.mkdir()
    for name in ("model.gguf", "mirror.gguf"):
        (folder / name).write_bytes(DATA)
    with MisbehavingServer(folder) as server:
        yield server


class Device:
    """A folder for downloads under way."""

    def __init__(self, folder: Path, server: MisbehavingServer) -> None:
        self.folder = folder
        self.url = server.url + PATH
        self.mirror = server.url + "/mirror.gguf"
        self.received = 0

    def fetch(
        self,
        *,
        urls: list[str] | None = None,
        cancel: threading.Event | None = None,
        silence_s: float = 0.5,
        **options: Any,
    ) -> bytes:
        options = {"chance": lambda: 0.0, **options}
        with (
            HTTP(connect_timeout_s=2.0, read_timeout_s=silence_s) as web,
            Pieces.open(self.folder, DIGEST, len(DATA), CHUNK) as pieces,
        ):
            download = ChunkedDownload(web, urls=urls or [self.url], digests=DIGESTS, file=pieces, **options)
            cancel = cancel or threading.Event()
            too_long = threading.Timer(20.0, cancel.set)  # a download that never ends fails its test
            too_long.start()
            try:
                return download.run(cancel).read_bytes()
            finally:
                too_long.cancel()
                too_long.join()
                self.received = download.bytes_received

    def claims(self) -> int:
        path = self.folder / f"{DIGEST}.map"
        return path.read_bytes().count(1) if path.exists() else 0

    def chunks_here(self) -> set[int]:
        with Pieces.open(self.folder, DIGEST, len(DATA), CHUNK) as pieces:
            return set(pieces.claimed())


@pytest.fixture
def device(server: MisbehavingServer, tmp_path: Path) -> Device:
    return Device(tmp_path / "partial", server)


def _poll(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.01)


def _is_stopped_in_the_middle(server: MisbehavingServer, device: Device, position: int = 500_000) -> None:
    """What is left when the server fails at a position and then for good."""
    server.faults[PATH] = [CutAt(position), Status(404, body=b"")]
    with pytest.raises(HTTPStatusError):
        device.fetch(connections=1)
    server.faults.clear()
    server.forget()


@pytest.mark.parametrize("connections", [None, 1, 2, 4, 8])
def test_a_whole_file_comes_and_no_byte_twice(
    server: MisbehavingServer, device: Device, connections: int | None
) -> None:
    progress: list[int] = []
    assert device.fetch(connections=connections, on_bytes=progress.append) == DATA
    assert (progress[0], progress[-1]) == (0, len(DATA))
    assert progress == sorted(progress)
    assert server.bytes_served(PATH) == len(DATA)


def test_one_connection_asks_once(server: MisbehavingServer, device: Device) -> None:
    device.fetch(connections=1)
    assert len(server.requests()) == 1


def test_over_tls_it_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(DATA)
    with (
        MisbehavingServer(tmp_path, tls=True) as server,
        HTTP(ca_file=server.ca_file) as web,
        Pieces.open(tmp_path / "partial", DIGEST, len(DATA), CHUNK) as pieces,
    ):
        download = ChunkedDownload(web, urls=[server.url + PATH], digests=DIGESTS, file=pieces, connections=3)
        assert download.run().read_bytes() == DATA


def test_a_folder_brings_chunks_as_a_server_does(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(DATA)
    folder = Folder(tmp_path, "https://models.example.com")
    with folder.open("https://models.example.com/model.gguf", start=5, stop=11) as body:
        buffer = memoryview(bytearray(100))
        assert (body.start, body.stop, body.total) == (5, 11, len(DATA))
        assert bytes(buffer[: body.read_into(buffer)]) == DATA[5:11]
        assert body.read_into(buffer) == 0
    with Pieces.open(tmp_path / "partial", DIGEST, len(DATA), CHUNK) as pieces:
        download = ChunkedDownload(
            folder, urls=["https://models.example.com/model.gguf"], digests=DIGESTS, file=pieces, connections=2
        )
        assert download.run().read_bytes() == DATA
    assert download.bytes_received == len(DATA)


def test_connections_are_kept_for_the_next_range(server: MisbehavingServer, device: Device) -> None:
    device.fetch(connections=2)
    assert len(server.requests()) > 2
    assert server.connections <= 2


def test_a_cut_loses_no_byte(server: MisbehavingServer, device: Device) -> None:
    server.faults[PATH] = [CutAt(at) for at in (100, 70_000, 131_072, 131_073, 400_000, 400_001, 999_999)]
    assert device.fetch(connections=1) == DATA
    assert server.bytes_served(PATH) == len(DATA)
    assert len(server.requests()) == 8


@pytest.mark.parametrize("position", range(0, len(DATA), 99_991))
def test_a_flipped_bit_from_one_of_two_mirrors_costs_one_chunk_and_the_mirror(
    server: MisbehavingServer, device: Device, position: int, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults["/mirror.gguf"] = FlipByte(position)
    assert device.fetch(urls=[device.mirror + "?secret", device.url], connections=2) == DATA
    wrong = [record.getMessage() for record in caplog.records if "not what was promised" in record.getMessage()]
    assert len(wrong) <= 1
    assert all(f"chunk {position // CHUNK} that came from {device.mirror} is" in text for text in wrong)
    assert "secret" not in caplog.text
    total = server.bytes_served(PATH) + server.bytes_served("/mirror.gguf")
    assert total <= len(DATA) + CHUNK * len(wrong)


def test_a_wrong_mirror_is_not_asked_again(server: MisbehavingServer, device: Device) -> None:
    server.faults["/mirror.gguf"] = FlipByte(10)
    assert device.fetch(urls=[device.mirror, device.url], connections=1) == DATA
    assert server.bytes_served(PATH) >= CHUNK


def test_a_wrong_chunk_from_the_only_source_is_fetched_once_more(server: MisbehavingServer, device: Device) -> None:
    server.faults[PATH] = [FlipByte(200_000)]
    progress: list[int] = []
    assert device.fetch(connections=1, on_bytes=progress.append) == DATA
    assert server.bytes_served(PATH) == len(DATA) + CHUNK
    assert server.requests()[1].headers["range"] == f"bytes={3 * CHUNK}-{4 * CHUNK - 1}"


def test_a_chunk_that_is_wrong_twice_is_named_with_its_source_and_the_others_stay(
    server: MisbehavingServer, device: Device
) -> None:
    server.faults[PATH] = FlipByte(200_000)
    with pytest.raises(IntegrityError, match=rf"chunk 3 that came from {device.url} is not what was promised"):
        device.fetch(connections=1)
    assert server.bytes_served(PATH) == len(DATA) + CHUNK
    assert device.chunks_here() == set(range(len(DIGESTS))) - {3}
    server.faults.clear()
    server.forget()
    assert device.fetch() == DATA
    assert server.bytes_served(PATH) == CHUNK


def test_a_later_process_fetches_only_what_is_missing(server: MisbehavingServer, device: Device) -> None:
    _is_stopped_in_the_middle(server, device)
    progress: list[int] = []
    assert device.fetch(on_bytes=progress.append) == DATA
    assert progress[0] == 7 * CHUNK
    assert server.bytes_served(PATH) == len(DATA) - 7 * CHUNK


def test_what_a_map_claims_is_not_believed(server: MisbehavingServer, device: Device) -> None:
    _is_stopped_in_the_middle(server, device)
    with (device.folder / DIGEST).open("r+b") as file:
        file.seek(2 * CHUNK + 77)
        file.write(b"garbage")
    assert device.fetch() == DATA
    assert server.bytes_served(PATH) == len(DATA) - 6 * CHUNK


def test_a_process_killed_in_the_middle_is_continued_by_the_next(server: MisbehavingServer, device: Device) -> None:
    stall = StallAt(800_000)
    server.faults[PATH] = stall
    # Both connections stand still in chunk 12: what came before it is there, and what lies behind it came as well.
    command = [sys.executable, "-c", CHILD, str(device.folder), device.url, str(len(DATA)), DIGEST]
    command.append(b"".join(DIGESTS).hex())
    with subprocess.Popen(command) as child:
        _poll(lambda: device.claims() == 12, "the child did not get as far as the server went")
        child.kill()
    before = server.bytes_served(PATH)
    stall.go_on.set()
    server.faults.clear()
    server.forget()
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert Path(done.stdout.strip()).read_bytes() == DATA
    assert before + server.bytes_served(PATH) <= 1.1 * len(DATA) + 2 * CHUNK


def test_a_disk_that_does_not_keep_what_it_takes_is_noticed(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Pieces.write
    lies = [250_000]

    def lie(pieces: Pieces, offset: int, data: memoryview) -> None:
        write(pieces, offset, data)
        if lies and offset <= lies[0] < offset + len(data):
            write(pieces, lies.pop(), memoryview(b"\0"))

    monkeypatch.setattr(Pieces, "write", lie)
    assert device.fetch(connections=2) == DATA
    assert lies == []
    assert device.received > len(DATA)


def test_it_can_be_stopped_and_run_again_without_losing_a_byte_or_reading_one_twice(
    server: MisbehavingServer, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[int] = []
    digest_of = Pieces.digest_of

    def note(pieces: Pieces, number: int, buffer: memoryview) -> bytes:
        verified.append(number)
        return digest_of(pieces, number, buffer)

    monkeypatch.setattr(Pieces, "digest_of", note)
    with (
        HTTP() as web,
        Pieces.open(device.folder, DIGEST, len(DATA), CHUNK) as pieces,
    ):
        progress: list[int] = []
        download = ChunkedDownload(
            web, urls=[device.url], digests=DIGESTS, file=pieces, connections=2, on_bytes=progress.append
        )
        for position in (150_001, 650_000, 900_000):
            stall = StallAt(position)
            server.faults[PATH] = stall
            cancel = threading.Event()
            thread = threading.Thread(target=_cancel_when_still, args=(progress, stall, cancel))
            thread.start()
            with pytest.raises(CancelledError):
                download.run(cancel)
            took = time.monotonic() - _cancelled_at[-1]
            thread.join()
            assert took < 0.3
        server.faults.clear()
        assert download.run().read_bytes() == DATA
    assert download.bytes_received == len(DATA)
    assert sorted(verified) == list(range(len(DIGESTS)))
    assert progress == sorted(progress)


_cancelled_at: list[float] = []


def _cancel_when_still(progress: list[int], stall: StallAt, cancel: threading.Event) -> None:
    stall.reached.wait(10)
    came = -1
    while came != progress[-1]:
        came = progress[-1]
        threading.Event().wait(0.15)
    _cancelled_at.append(time.monotonic())
    cancel.set()


@pytest.mark.parametrize("fault", [NeverAnswer(), Status(503, {"Retry-After": "60"}), StallAt(0), Trickle(1, 0.01)])
def test_cancel_ends_every_kind_of_waiting(server: MisbehavingServer, device: Device, fault: Fault) -> None:
    server.faults[PATH] = fault
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()
    began = time.monotonic()
    with pytest.raises(CancelledError):
        device.fetch(cancel=cancel, silence_s=10.0)
    assert time.monotonic() - began < 0.2 + 0.4


def test_a_server_without_ranges_is_read_once_over_one_connection(server: MisbehavingServer, device: Device) -> None:
    server.faults[PATH] = IgnoreRange()
    assert device.fetch(connections=4) == DATA
    # Those that find out later than the first hang up at once; what the kernel's buffers took is thrown away.
    assert device.received < 1.3 * len(DATA)


def test_a_server_without_ranges_completes_what_an_earlier_try_left(server: MisbehavingServer, device: Device) -> None:
    _is_stopped_in_the_middle(server, device)
    server.faults[PATH] = IgnoreRange()
    assert device.fetch() == DATA
    assert device.chunks_here() == set(range(len(DIGESTS)))
    assert len(server.requests()) == 1


def test_a_server_that_always_cuts_and_knows_no_ranges_is_the_end(server: MisbehavingServer, device: Device) -> None:
    class NoRangesAndCut(CutAt):
        see = IgnoreRange.see

    server.faults[PATH] = NoRangesAndCut(300_000)
    with pytest.raises(NetworkError):
        device.fetch(connections=1)
    assert len(server.requests()) <= retry.MAX_FAILURES + 1


@pytest.mark.parametrize("fault", [WrongContentRange(), Status(416)])
def test_an_answer_that_is_no_such_part_leads_to_the_whole_file(
    server: MisbehavingServer, device: Device, fault: Fault
) -> None:
    class OnlyParts(Fault):
        def change(self, answer: Answer) -> Answer:
            return fault.change(answer) if answer.status == 206 else answer

    server.faults[PATH] = OnlyParts()
    assert device.fetch(connections=1) == DATA
    assert ["range" in request.headers for request in server.requests()] == [True, False]


class ChangeTo(CutAt):
    """Cut the connection, and have another file at the next request."""

    def __init__(self, position: int, path: Path, data: bytes) -> None:
        super().__init__(position)
        object.__setattr__(self, "replace_by", (path, data))

    def change(self, answer: Answer) -> Answer:
        path, data = self.__dict__["replace_by"]
        path.write_bytes(data)
        return super().change(answer)


def test_a_file_that_changed_to_the_right_one_in_the_middle_is_never_mixed(
    server: MisbehavingServer, device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    path = server.folder / "model.gguf"
    path.write_bytes(DATA[:100_000] + DATA[:-100_000])
    server.faults[PATH] = [ChangeTo(400_000, path, DATA)]
    assert device.fetch(connections=1) == DATA
    assert "has changed" in caplog.text
    assert server.requests()[1].headers["if-range"]


def test_a_file_that_changed_to_a_wrong_one_is_an_integrity_error_and_the_right_chunks_stay(
    server: MisbehavingServer, device: Device
) -> None:
    path = server.folder / "model.gguf"
    server.faults[PATH] = [ChangeTo(400_000, path, DATA[::-1])]
    with pytest.raises(IntegrityError, match="is not what was promised"):
        device.fetch(connections=1)
    assert device.chunks_here() >= set(range(6))


def test_a_tag_that_changes_with_every_request_does_not_stop_a_download(
    server: MisbehavingServer, device: Device
) -> None:
    class NewTag(Fault):
        def __init__(self) -> None:
            self.count = 0

        def see(self, request: Any) -> Any:
            self.count += 1
            return request

        def change(self, answer: Answer) -> Answer:
            return answer.with_headers(ETag=f'"{self.count}"')

    server.faults[PATH] = NewTag()
    assert device.fetch(connections=1) == DATA


@pytest.mark.parametrize("fault", [NoETag(), Headers({"ETag": 'W/"weak"'})])
def test_chunks_need_no_tag(server: MisbehavingServer, device: Device, fault: Fault) -> None:
    server.faults[PATH] = fault
    assert device.fetch(connections=2) == DATA
    assert all("if-range" not in request.headers for request in server.requests())


def test_a_part_of_a_file_of_another_length_is_refused(server: MisbehavingServer, device: Device) -> None:
    (server.folder / "model.gguf").write_bytes(DATA + b"x")
    with pytest.raises(IntegrityError, match="has 1000001 bytes, 1000000 were promised"):
        device.fetch()


def test_a_login_page_is_named(server: MisbehavingServer, device: Device) -> None:
    server.faults[PATH] = Page()
    with pytest.raises(IntegrityError, match="a page of HTML came instead"):
        device.fetch()


def test_a_file_that_was_compressed_on_the_way_is_refused(server: MisbehavingServer, device: Device) -> None:
    server.faults[PATH] = Gzip()
    with pytest.raises(IntegrityError, match="changed the bytes"):
        device.fetch()


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_link_that_has_expired_says_its_status_and_another_link_continues(
    server: MisbehavingServer, device: Device, status: int
) -> None:
    server.faults[PATH] = [CutAt(500_000), *[Status(status)] * 50]
    with (
        HTTP() as web,
        Pieces.open(device.folder, DIGEST, len(DATA), CHUNK) as pieces,
    ):
        download = ChunkedDownload(
            web, urls=[device.url], digests=DIGESTS, file=pieces, connections=1, chance=lambda: 0.0
        )
        with pytest.raises(HTTPStatusError) as caught:
            download.run()
        assert caught.value.status == status
        server.forget()
        again = ChunkedDownload(web, urls=[device.mirror], digests=DIGESTS, file=pieces)
        assert again.run().read_bytes() == DATA
    assert server.bytes_served("/mirror.gguf") <= len(DATA) - 500_000 + CHUNK


def test_a_server_that_asks_for_patience_is_given_it(server: MisbehavingServer, device: Device) -> None:
    server.faults[PATH] = [Status(429, {"Retry-After": "1"}), Status(503, {"Retry-After": "1"})]
    began = time.monotonic()
    assert device.fetch(connections=1) == DATA
    assert 2.0 <= time.monotonic() - began < 4.0
    assert len(server.requests()) == 3


def test_six_failures_in_a_row_without_progress_are_the_end(server: MisbehavingServer, device: Device) -> None:
    server.faults[PATH] = [CutAt(100_000), *[Status(503)] * 50]
    with pytest.raises(HTTPStatusError, match="503"):
        device.fetch(connections=1)
    assert len(server.requests()) == retry.MAX_FAILURES


def test_a_mirror_that_never_answers_does_not_hold_the_others_up(server: MisbehavingServer, device: Device) -> None:
    server.faults["/mirror.gguf"] = NeverAnswer()
    began = time.monotonic()
    assert device.fetch(urls=[device.mirror, device.url], connections=2, silence_s=10.0) == DATA
    assert time.monotonic() - began < 4.0
    assert server.bytes_served("/mirror.gguf") == 0


def test_a_mirror_that_is_gone_is_passed_over(server: MisbehavingServer, device: Device) -> None:
    server.faults["/mirror.gguf"] = Status(404)
    assert device.fetch(urls=[device.mirror, device.url]) == DATA
    assert len(server.requests("/mirror.gguf")) == 1


def test_a_server_that_takes_one_connection_only_is_left_with_one(server: MisbehavingServer, device: Device) -> None:
    class OneAtATime(Fault):
        """Sends slowly, and refuses whoever comes meanwhile."""

        def __init__(self) -> None:
            self.busy = threading.Lock()

        def change(self, answer: Answer) -> Answer:
            if not self.busy.acquire(blocking=False):
                return Status(403, body=b"").change(answer)

            def then(wire: Wire) -> None:
                try:
                    for at in range(0, len(answer.body), 10_000):
                        wire.send(answer.body[at : at + 10_000])
                        wire.ended.wait(0.015)
                finally:
                    self.busy.release()

            return replace(answer, body=b"", then=then)

    server.faults[PATH] = OneAtATime()
    assert device.fetch() == DATA
    assert server.bytes_served(PATH) == len(DATA)
    assert len(server.requests()) == 2


def test_a_trickle_is_dropped_and_replaced(server: MisbehavingServer, device: Device) -> None:
    server.faults[PATH] = [Trickle(1, 0.02)]
    assert device.fetch(connections=1, floor_s=0.3) == DATA
    assert server.bytes_served(PATH) < 1.1 * len(DATA)


def test_a_slow_connection_gets_less(server: MisbehavingServer, device: Device) -> None:
    server.faults["/mirror.gguf"] = Trickle(2000, 0.02)
    assert device.fetch(urls=[device.mirror, device.url], connections=2) == DATA
    assert server.bytes_served("/mirror.gguf") < len(DATA) / 4


def test_the_rate_is_kept(server: MisbehavingServer, device: Device) -> None:
    began = time.monotonic()
    assert device.fetch(pace=Pace(1_000_000), connections=4) == DATA
    assert 0.8 <= time.monotonic() - began < 1.3  # a fifth of a second's bytes may come at once
    assert server.connections == 1


def test_a_disk_that_refuses_ends_the_download_and_it_can_be_run_again(
    server: MisbehavingServer, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Pieces.write
    refusals = [StorageError("cannot write: broken")]

    def refuse(pieces: Pieces, offset: int, data: memoryview) -> None:
        if refusals and offset > 300_000:
            raise refusals.pop()
        write(pieces, offset, data)

    monkeypatch.setattr(Pieces, "write", refuse)
    with HTTP() as web, Pieces.open(device.folder, DIGEST, len(DATA), CHUNK) as pieces:
        download = ChunkedDownload(web, urls=[device.url], digests=DIGESTS, file=pieces, connections=2)
        with pytest.raises(StorageError):
            download.run()
        assert download.run().read_bytes() == DATA
    assert server.requests() != []


def test_no_thread_stays(device: Device) -> None:
    before = threading.active_count()
    device.fetch(connections=4)
    _poll(lambda: threading.active_count() <= before + 0, "a thread stayed")
