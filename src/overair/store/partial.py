"""A download under way: its bytes in `partial/<digest>`, its journal in `partial/<digest>.json`.

The journal says where the bytes came from and how many of them have been synced. Bytes beyond those survive the
death of the process, not a power cut; they are continued all the same, and the digest of the whole decides. The two
files are ordered so that a crash between any two steps leaves bytes that fit their journal or a pair that does not
fit, which is discarded: the bytes are cut off durably before a new source is written down.
"""

import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Self

import msgspec

from overair.model.digest import Digest, parse_digest
from overair.store import durable
from overair.store.chunk_map import map_of, read_map

CHECKPOINT_BYTES: Final = 64 << 20
CHECKPOINT_S: Final = 10.0
MAX_JOURNAL_BYTES: Final = 16_384
WRITE_BACK_BYTES: Final = 4 << 20


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where bytes came from: a URL without its query, and the strong entity tag that the file had, if any."""

    url: str
    etag: str | None


class _Journal(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    etag: str | None
    size_bytes: Annotated[int, msgspec.Meta(ge=1)]
    durable_bytes: Annotated[int, msgspec.Meta(ge=0)]

    def fits(self, size_bytes: int, length: int) -> bool:
        """Whether it describes a file of `length` bytes that will have `size_bytes`."""
        return self.size_bytes == size_bytes and self.durable_bytes <= length <= size_bytes


class Partial:
    """The bytes of one blob, as far as they came; a context manager that closes the file and keeps it.

    Only one process may have it open; the store's download lock sees to that. Every method raises `StorageError`
    when the disk refuses, `NoSpaceError` when it is full; the bytes that were written stay.
    """

    def __init__(
        self,
        path: Path,
        file: FileIO,
        *,
        size_bytes: int,
        source: Source | None,
        length: int,
        clock: Callable[[], float],
    ) -> None:
        self.path = path
        self.source = source
        self.length = length
        self._file = file
        self._size_bytes = size_bytes
        self._clock = clock
        self._synced_bytes = length
        self._synced_at = clock()
        self._handed_over = length  # what the kernel was told to write

    @classmethod
    def open(
        cls, folder: Path, digest: Digest, size_bytes: int, *, clock: Callable[[], float] = time.monotonic
    ) -> Self:
        """Open the download of a blob of `size_bytes` bytes, where it stopped or new.

        Raises:
            IntegrityError: `digest` is not one.
            StorageError: The disk refused.
        """
        path = folder / parse_digest(digest)
        durable.make_directory(folder)
        journal, length = _inspect(path)
        if journal is None or not journal.fits(size_bytes, length):
            durable.remove_file(path)
            durable.remove_file(journal_of(path))
            journal, length = None, 0
        durable.remove_file(map_of(path))
        with durable.storage_errors("open", path):
            file = FileIO(path, "r+" if path.exists() else "x+")
        source = Source(url=journal.url, etag=journal.etag) if journal else None
        return cls(path, file, size_bytes=size_bytes, source=source, length=length, clock=clock)

    @classmethod
    def bytes_present(cls, folder: Path, digest: Digest) -> int:
        """How many bytes of this blob need not be fetched again, if its file has not changed on the server.

        It counts what came as one stream as well as what came in chunks (`overair.store.pieces`).

        Raises:
            IntegrityError: `digest` is not one.
            StorageError: The disk refused.
        """
        path = folder / parse_digest(digest)
        journal, length = _inspect(path)
        chunks = read_map(path)
        if chunks is not None and chunks[0].size_bytes == length:
            return chunks[0].bytes_in(chunks[1])
        if journal is None or not journal.fits(journal.size_bytes, length):
            return 0
        return length if journal.etag or length == journal.size_bytes else 0

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Read bytes that are here from `offset` on; returns their number."""
        with durable.storage_errors("read", self.path):
            self._file.seek(offset)
            return self._file.readinto(buffer) or 0

    def restart(self, url: str, etag: str | None) -> None:
        """Forget the bytes; those that follow come from `url`, from a file with this strong entity tag."""
        with durable.storage_errors("write", self.path):
            self._file.truncate(0)
        self.length = self._handed_over = 0
        self.source = Source(url=url, etag=etag)
        self.checkpoint()

    def write(self, data: memoryview) -> None:
        """Append bytes; now and then, wait until they are on the disk."""
        with durable.storage_errors("write", self.path):
            self._file.seek(self.length)
            while data:
                written = self._file.write(data)
                self.length += written
                data = data[written:]
        if self.length - self._handed_over >= WRITE_BACK_BYTES:
            durable.start_write_back(self._file.fileno(), self._handed_over, self.length)
            self._handed_over = self.length
        new_bytes = self.length - self._synced_bytes
        if new_bytes >= CHECKPOINT_BYTES or self._clock() - self._synced_at >= CHECKPOINT_S:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Wait until what was written is on the disk, and write that down."""
        self._sync()
        if self.source is not None:
            journal = _Journal(
                url=self.source.url,
                etag=self.source.etag,
                size_bytes=self._size_bytes,
                durable_bytes=self.length,
            )
            durable.write_file(journal_of(self.path), msgspec.json.encode(journal))

    def finish(self) -> Path:
        """Wait until all is on the disk, close, and return the file, ready to be renamed.

        The journal stays until then, so that a crash before the rename loses nothing.
        """
        self._sync()
        self.close()
        return self.path

    def discard(self) -> None:
        """Close, and remove the bytes and the journal."""
        self.close()
        durable.remove_file(self.path)
        durable.remove_file(journal_of(self.path))

    def close(self) -> None:
        """Close the file and keep it."""
        with durable.storage_errors("close", self.path):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sync(self) -> None:
        with durable.storage_errors("sync", self.path):
            durable.sync_file(self._file.fileno())
        self._synced_bytes = self.length
        self._synced_at = self._clock()


def journal_of(path: Path) -> Path:
    """Where the journal of a download lies."""
    return path.with_name(f"{path.name}.json")


def _inspect(path: Path) -> tuple[_Journal | None, int]:
    """The journal, if it can be read, and how many bytes are there."""
    with durable.storage_errors("read", path):
        length = path.stat().st_size if path.exists() else 0
    journal = journal_of(path)
    with durable.storage_errors("read", journal):
        if not journal.exists():
            return None, length
        with journal.open("rb") as file:
            data = file.read(MAX_JOURNAL_BYTES)
    try:
        return msgspec.json.decode(data, type=_Journal), length
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None, length
