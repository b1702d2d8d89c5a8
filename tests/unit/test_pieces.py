"""What is left of a download in chunks when its process or its machine is gone."""

import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from overair.errors import IntegrityError, NoSpaceError, StorageError
from overair.store import durable
from overair.store.chunk_map import Header
from overair.store.partial import CHECKPOINT_BYTES, CHECKPOINT_S, Partial
from overair.store.pieces import Pieces

CHUNK = 4096
DATA = hashlib.shake_256(b"pieces").digest(10 * CHUNK + 100)
DIGEST = hashlib.sha256(DATA).hexdigest()


def _open(folder: Path) -> Pieces:
    return Pieces.open(folder, DIGEST, len(DATA), CHUNK)


def _put(pieces: Pieces, *numbers: int) -> None:
    for number in numbers:
        pieces.write(number * CHUNK, memoryview(DATA)[number * CHUNK : (number + 1) * CHUNK])
        pieces.claim(number)


def test_chunks_and_claims_are_there_when_opened_again(tmp_path: Path) -> None:
    with _open(tmp_path) as pieces:
        assert pieces.claimed() == []
        _put(pieces, 0, 7, 10)
        pieces.disclaim(7)
    with _open(tmp_path) as pieces:
        assert pieces.claimed() == [0, 10]
        buffer = memoryview(bytearray(1000))
        assert pieces.digest_of(0, buffer) == hashlib.sha256(DATA[:CHUNK]).digest()
        assert pieces.digest_of(10, buffer) == hashlib.sha256(DATA[-100:]).digest()


def test_a_finished_file_is_whole(tmp_path: Path) -> None:
    with _open(tmp_path) as pieces:
        _put(pieces, *range(11))
        assert pieces.finish().read_bytes() == DATA


def test_bytes_present_counts_claims_and_not_the_length_of_the_file(tmp_path: Path) -> None:
    with _open(tmp_path) as pieces:
        assert Partial.bytes_present(tmp_path, DIGEST) == 0
        assert (tmp_path / DIGEST).stat().st_size == len(DATA)
        _put(pieces, 3)
        assert Partial.bytes_present(tmp_path, DIGEST) == CHUNK
        _put(pieces, 10)
        assert Partial.bytes_present(tmp_path, DIGEST) == CHUNK + 100


def test_the_room_is_there_before_the_first_byte(tmp_path: Path) -> None:
    with _open(tmp_path):
        assert sys.platform != "linux" or (tmp_path / DIGEST).stat().st_blocks * 512 >= len(DATA)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"{}\n" + bytes(11), b'{"size_bytes":0,"chunk_bytes":1}\n', b"\x00" * 100, b"\xff\n" + b"\x01" * 11],
)
def test_a_map_that_cannot_be_read_claims_nothing(tmp_path: Path, text: bytes) -> None:
    with _open(tmp_path) as pieces:
        _put(pieces, 1, 2)
    (tmp_path / f"{DIGEST}.map").write_bytes(text)
    assert Partial.bytes_present(tmp_path, DIGEST) == 0
    with _open(tmp_path) as pieces:
        assert pieces.claimed() == []


@pytest.mark.parametrize(("size_bytes", "chunk_bytes"), [(len(DATA) - 1, CHUNK), (len(DATA), CHUNK * 2)])
def test_chunks_of_another_length_begin_anew(tmp_path: Path, size_bytes: int, chunk_bytes: int) -> None:
    with _open(tmp_path) as pieces:
        _put(pieces, 1, 2)
    with Pieces.open(tmp_path, DIGEST, size_bytes, chunk_bytes) as pieces:
        assert pieces.claimed() == []
        assert pieces.path.stat().st_size == size_bytes


def test_a_map_without_its_file_claims_nothing_that_counts(tmp_path: Path) -> None:
    with _open(tmp_path) as pieces:
        _put(pieces, 1)
    (tmp_path / DIGEST).unlink()
    assert Partial.bytes_present(tmp_path, DIGEST) == 0
    with _open(tmp_path) as pieces:
        assert pieces.digest_of(1, memoryview(bytearray(10))) != hashlib.sha256(DATA[CHUNK : 2 * CHUNK]).digest()


def test_what_came_as_one_stream_is_claimed(tmp_path: Path) -> None:
    with Partial.open(tmp_path, DIGEST, len(DATA)) as partial:
        partial.restart("https://x/", '"a"')
        partial.write(memoryview(DATA)[: 3 * CHUNK + 5])
    with _open(tmp_path) as pieces:
        assert pieces.claimed() == [0, 1, 2]
        assert pieces.digest_of(2, memoryview(bytearray(999))) == hashlib.sha256(DATA[2 * CHUNK : 3 * CHUNK]).digest()
    assert Partial.bytes_present(tmp_path, DIGEST) == 3 * CHUNK


def test_one_stream_over_chunks_begins_anew(tmp_path: Path) -> None:
    with _open(tmp_path) as pieces:
        _put(pieces, 0)
    with Partial.open(tmp_path, DIGEST, len(DATA)) as partial:
        assert partial.length == 0
    assert Partial.bytes_present(tmp_path, DIGEST) == 0


class _DiesError(BaseException):
    """The process is gone."""


STEPS = ["make_directory", "remove_file", "write_file", "reserve", "sync_directory", "start_write_back", "sync_file"]


@pytest.mark.parametrize("step", range(40))
def test_a_crash_between_any_two_steps_leaves_claims_that_hold_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Of a download that is opened over one stream's bytes, written, synced and finished."""
    with Partial.open(tmp_path, DIGEST, len(DATA)) as partial:
        partial.restart("https://x/", '"a"')
        partial.write(memoryview(DATA)[: 3 * CHUNK])
    with monkeypatch.context() as dying:
        calls = iter(range(1000))
        for name in STEPS:
            original = getattr(durable, name)

            def call(*args: object, original: object = original, **options: object) -> object:
                if next(calls) == step:
                    raise _DiesError
                return original(*args, **options)  # type: ignore[operator] # whatever durable has there

            dying.setattr(durable, name, call)
        try:
            with _open(tmp_path) as pieces:
                _put(pieces, 5, 6)
                pieces.checkpoint()
                _put(pieces, 9)
                pieces.finish()
        except _DiesError:
            pass
        else:
            assert next(calls) <= step
    here = Partial.bytes_present(tmp_path, DIGEST)
    assert here >= 3 * CHUNK, "what came before is lost"
    with _open(tmp_path) as pieces:
        claims = pieces.claimed()
        buffer = memoryview(bytearray(CHUNK))
        for number in claims:
            right = hashlib.sha256(DATA[number * CHUNK : (number + 1) * CHUNK]).digest()
            assert pieces.digest_of(number, buffer) == right
    assert len(claims) * CHUNK >= here


@pytest.mark.parametrize("before", [0, 2 * CHUNK])
def test_no_room_is_said_at_once_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    if before:
        with Partial.open(tmp_path, DIGEST, len(DATA)) as partial:
            partial.restart("https://x/", '"a"')
            partial.write(memoryview(DATA)[:before])
    names = {path.name for path in tmp_path.iterdir()}

    def refuse(descriptor: int, size_bytes: int) -> None:
        os.truncate(descriptor, size_bytes)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(durable, "reserve", refuse)
        with pytest.raises(NoSpaceError, match="make room"):
            _open(tmp_path)
    assert Partial.bytes_present(tmp_path, DIGEST) == before
    assert sum(path.stat().st_size for path in tmp_path.glob(DIGEST)) == before
    assert {path.name for path in tmp_path.iterdir()} <= names | ({f"{DIGEST}.map"} if before else set())
    with _open(tmp_path) as pieces:
        assert len(pieces.claimed()) * CHUNK == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a small disk needs Linux and root")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_too_small_is_said_before_the_first_byte(small_disk: Path) -> None:
    with pytest.raises(NoSpaceError):
        Pieces.open(small_disk / "partial", DIGEST, 1_000_000, CHUNK)
    assert list((small_disk / "partial").iterdir()) == []


def test_where_nothing_can_be_reserved_the_file_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_linux_libc", lambda: None)
    with _open(tmp_path) as pieces:
        _put(pieces, *range(11))
        pieces.verified(3)
        assert pieces.finish().read_bytes() == DATA


def test_what_came_is_synced_before_its_map_every_64_mib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    chunk = CHECKPOINT_BYTES // 2
    with Pieces.open(tmp_path, DIGEST, 3 * chunk, chunk, clock=lambda: 0.0) as pieces:
        monkeypatch.setattr(durable, "sync_file", synced.append)
        pieces.claim(0)
        pieces.checkpoint_if_due()
        assert synced == []
        pieces.claim(1)
        pieces.checkpoint_if_due()
        assert synced == [pieces._file.fileno(), pieces._claims.fileno()]
        pieces.checkpoint_if_due()
        assert len(synced) == 2


def test_what_came_is_synced_every_10_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    now = 0.0
    with Pieces.open(tmp_path, DIGEST, len(DATA), CHUNK, clock=lambda: now) as pieces:
        monkeypatch.setattr(durable, "sync_file", synced.append)
        pieces.checkpoint_if_due()
        assert synced == []
        now = CHECKPOINT_S
        pieces.checkpoint_if_due()
        assert len(synced) == 2


def test_a_checkpoint_of_a_closed_download_does_nothing(tmp_path: Path) -> None:
    pieces = _open(tmp_path)
    pieces.close()
    pieces.checkpoint()
    pieces.close()


def test_all_is_synced_before_the_file_is_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _open(tmp_path) as pieces:
        synced: list[int] = []
        monkeypatch.setattr(durable, "sync_file", synced.append)
        descriptor = pieces._file.fileno()
        pieces.finish()
    assert synced == [descriptor]


def test_bytes_leave_the_page_cache_after_others_and_a_disk_that_failed_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[tuple[int, int]] = []

    def let_go(_descriptor: int, start: int, stop: int) -> None:
        gone.append((start, stop))
        if start:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(durable, "let_go", let_go)
    with Pieces.open(tmp_path, DIGEST, 40 * CHUNK, CHUNK) as pieces:
        for number in range(17):
            pieces.verified(number)
        assert gone == [(0, CHUNK)]
        with pytest.raises(StorageError):
            pieces.verified(17)


def test_a_damaged_blob_is_taken_over_as_far_as_it_goes(tmp_path: Path) -> None:
    damaged = tmp_path / "blob"
    damaged.write_bytes(DATA[: 4 * CHUNK + 10])
    with _open(tmp_path / "partial") as pieces:
        _put(pieces, 8)
        pieces.take_over(damaged)
        assert pieces.claimed() == [0, 1, 2, 3, 8]
        pieces.take_over(tmp_path / "nothing")
        buffer = memoryview(bytearray(CHUNK))
        assert pieces.digest_of(3, buffer) == hashlib.sha256(DATA[3 * CHUNK : 4 * CHUNK]).digest()


def test_discarding_leaves_nothing(tmp_path: Path) -> None:
    with _open(tmp_path) as pieces:
        _put(pieces, 1)
        pieces.discard()
    assert list(tmp_path.iterdir()) == []


def test_no_path_is_built_from_a_name_that_is_no_digest(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="not a digest"):
        Pieces.open(tmp_path, "../../etc/passwd", 10, 4096)


def test_a_disk_that_refuses_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / DIGEST).mkdir()
    with pytest.raises(StorageError):
        _open(tmp_path)


def test_the_last_chunk_counts_with_its_own_length() -> None:
    header = Header(size_bytes=10, chunk_bytes=4)
    assert [header.bytes_in(claims) for claims in (b"\0\0\0", b"\1\0\0", b"\0\0\1", b"\1\1\1")] == [0, 4, 2, 10]
