"""What is left of a download when its process is gone."""

import hashlib
import os
from pathlib import Path

import pytest

from overair.errors import IntegrityError, StorageError
from overair.store import durable
from overair.store.partial import CHECKPOINT_BYTES, CHECKPOINT_S, Partial, Source
from overair.transport.download import Partial as WhatADownloadNeeds

DATA = bytes(range(256)) * 16
DIGEST = hashlib.sha256(DATA).hexdigest()
URL = "https://cdn.example.com/a"
ETAG = '"one"'


def _journal(folder: Path) -> Path:
    return folder / f"{DIGEST}.json"


def _begin(folder: Path, data: bytes = DATA[:1000]) -> None:
    with Partial.open(folder, DIGEST, len(DATA)) as partial:
        partial.restart(URL, ETAG)
        partial.write(memoryview(data))


def _bytes_of(partial: Partial) -> bytes:
    buffer = memoryview(bytearray(10_000))
    return bytes(buffer[: partial.read_into(buffer, 0)])


def test_a_download_takes_a_partial(tmp_path: Path) -> None:
    with Partial.open(tmp_path, DIGEST, len(DATA)) as partial:
        needed: WhatADownloadNeeds = partial
        assert needed.length == 0
        assert needed.source is None


def test_bytes_and_their_source_are_there_when_opened_again(tmp_path: Path) -> None:
    _begin(tmp_path / "partial")
    with Partial.open(tmp_path / "partial", DIGEST, len(DATA)) as partial:
        assert partial.source == Source(url=URL, etag=ETAG)
        assert _bytes_of(partial) == DATA[:1000]
        partial.write(memoryview(DATA)[1000:])
        path = partial.finish()
    assert path == tmp_path / "partial" / DIGEST
    assert path.read_bytes() == DATA


def test_reading_what_is_there_does_not_disturb_writing(tmp_path: Path) -> None:
    _begin(tmp_path)
    with Partial.open(tmp_path, DIGEST, len(DATA)) as partial:
        buffer = memoryview(bytearray(10))
        assert partial.read_into(buffer, 5) == 10
        assert bytes(buffer) == DATA[5:15]
        partial.write(memoryview(DATA)[1000:1010])
        assert _bytes_of(partial) == DATA[:1010]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "\x00" * 100,
        "[" * 20_000,
        '{"url": "https://x/", "etag": null}',
        '{"url": "https://x/", "etag": null, "size_bytes": 4097, "durable_bytes": 0}',
        '{"url": "https://x/", "etag": null, "size_bytes": 4096, "durable_bytes": 1001}',
        '{"url": "https://x/", "etag": null, "size_bytes": 4096, "durable_bytes": -1}',
        '{"url": "https://x/", "etag": 3, "size_bytes": 4096, "durable_bytes": 0}',
    ],
)
def test_a_journal_that_does_not_fit_is_discarded_with_the_bytes(tmp_path: Path, text: str) -> None:
    _begin(tmp_path)
    _journal(tmp_path).write_text(text)
    assert Partial.bytes_present(tmp_path, DIGEST) == 0
    with Partial.open(tmp_path, DIGEST, len(DATA)) as partial:
        assert (partial.length, partial.source) == (0, None)
        assert not _journal(tmp_path).exists()


def test_bytes_without_a_journal_are_discarded(tmp_path: Path) -> None:
    _begin(tmp_path)
    _journal(tmp_path).unlink()
    with Partial.open(tmp_path, DIGEST, len(DATA)) as partial:
        assert partial.length == 0


def test_more_bytes_than_the_blob_has_are_discarded(tmp_path: Path) -> None:
    _begin(tmp_path, DATA + b"x")
    with Partial.open(tmp_path, DIGEST, len(DATA)) as partial:
        assert partial.length == 0


def test_bytes_of_a_blob_that_has_another_length_now_are_discarded(tmp_path: Path) -> None:
    _begin(tmp_path)
    with Partial.open(tmp_path, DIGEST, len(DATA) + 1) as partial:
        assert partial.length == 0


def test_a_restart_cuts_the_bytes_off_and_names_the_new_source(tmp_path: Path) -> None:
    _begin(tmp_path)
    with Partial.open(tmp_path, DIGEST, len(DATA)) as partial:
        partial.restart("https://other.example.com/a", None)
    with Partial.open(tmp_path, DIGEST, len(DATA)) as partial:
        assert partial.length == 0
        assert partial.source == Source(url="https://other.example.com/a", etag=None)


def test_old_bytes_are_gone_from_the_disk_before_a_new_source_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _begin(tmp_path)
    steps: list[str] = []
    sync, write = durable.sync_file, durable.write_file

    def note_sync(descriptor: int) -> None:
        steps.append(f"sync {os.fstat(descriptor).st_size}")
        sync(descriptor)

    def note_write(path: Path, data: bytes) -> None:
        steps.append("journal")
        write(path, data)

    with Partial.open(tmp_path, DIGEST, len(DATA)) as partial:
        monkeypatch.setattr(durable, "write_file", note_write)
        monkeypatch.setattr(durable, "sync_file", note_sync)
        partial.restart(URL, '"two"')
    assert steps[:2] == ["sync 0", "journal"]


def test_a_finished_file_is_synced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    sync = durable.sync_file

    def note_sync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        sync(descriptor)

    _begin(tmp_path)
    with Partial.open(tmp_path, DIGEST, len(DATA)) as partial:
        partial.write(memoryview(DATA)[1000:])
        monkeypatch.setattr(durable, "sync_file", note_sync)
        partial.finish()
    assert synced == [len(DATA)]


def test_what_is_written_is_synced_every_64_mib(tmp_path: Path) -> None:
    block = memoryview(bytes(CHECKPOINT_BYTES // 4))
    with Partial.open(tmp_path, DIGEST, CHECKPOINT_BYTES * 2, clock=lambda: 0.0) as partial:
        partial.restart(URL, ETAG)
        for _ in range(3):
            partial.write(block)
        assert b'"durable_bytes":0' in _journal(tmp_path).read_bytes()
        partial.write(block)
        assert f'"durable_bytes":{CHECKPOINT_BYTES}'.encode() in _journal(tmp_path).read_bytes()


def test_what_is_written_is_synced_every_10_seconds(tmp_path: Path) -> None:
    now = 0.0
    with Partial.open(tmp_path, DIGEST, len(DATA), clock=lambda: now) as partial:
        partial.restart(URL, ETAG)
        partial.write(memoryview(DATA)[:10])
        assert b'"durable_bytes":0' in _journal(tmp_path).read_bytes()
        now = CHECKPOINT_S
        partial.write(memoryview(DATA)[10:20])
        assert b'"durable_bytes":20' in _journal(tmp_path).read_bytes()


def test_bytes_present_counts_what_can_be_continued(tmp_path: Path) -> None:
    assert Partial.bytes_present(tmp_path / "none", DIGEST) == 0
    _begin(tmp_path)
    assert Partial.bytes_present(tmp_path, DIGEST) == 1000
    with Partial.open(tmp_path, DIGEST, len(DATA)) as partial:
        partial.restart(URL, None)
        partial.write(memoryview(DATA)[:1000])
        assert Partial.bytes_present(tmp_path, DIGEST) == 0
        partial.write(memoryview(DATA)[1000:])
        assert Partial.bytes_present(tmp_path, DIGEST) == len(DATA)


def test_discarding_leaves_nothing(tmp_path: Path) -> None:
    with Partial.open(tmp_path, DIGEST, len(DATA)) as partial:
        partial.restart(URL, ETAG)
        partial.discard()
    assert list(tmp_path.iterdir()) == []


def test_no_path_is_built_from_a_name_that_is_no_digest(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="not a digest"):
        Partial.open(tmp_path, "../../etc/passwd", 10)


def test_a_disk_that_refuses_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / DIGEST).mkdir()
    with pytest.raises(StorageError, match=DIGEST):
        Partial.open(tmp_path, DIGEST, len(DATA))
