"""A download in chunks under way: its bytes in `partial/<digest>`, and in `partial/<digest>.map` which chunks came.

The map has one byte for each chunk. It is a claim and no proof: the byte is written after the chunk's bytes, without a
sync, so it outlives the process; every 64 MiB or 10 s the bytes and then the map are synced, so most of it outlives a
power cut. Whoever opens the download again reads the claimed chunks back and compares them with the signed index, so
nothing here has to be true, and it does not matter where bytes came from: no URL and no entity tag is kept.

The map is made before the file has its length: without one, a long file of holes would look like bytes that came.
"""

import contextlib
import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from overair.errors import StorageError
from overair.formats.chunks import chunk_range
from overair.model.digest import Digest, parse_digest
from overair.store import durable
from overair.store.chunk_map import CAME, MISSING, Header, map_of, read_map
from overair.store.partial import CHECKPOINT_BYTES, CHECKPOINT_S, Partial, journal_of
from overair.store.positioned import PositionedFile

# So many chunks may wait for the disk; fewer, and verifying would.
_CACHED_CHUNKS: Final = 16
_COPY_BYTES: Final = 1 << 20


class Pieces:
    """The bytes of one blob, chunk by chunk; a context manager that closes the files and keeps them.

    Only one process may have it open; the store's download lock sees to that. Its methods may be called from several
    threads; each raises `StorageError` when the disk refuses, `NoSpaceError` when it is full.
    """

    def __init__(
        self, path: Path, file: FileIO, claims: FileIO, header: Header, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self.size_bytes = header.size_bytes
        self.chunk_bytes = header.chunk_bytes
        self.count = header.count
        self._file = PositionedFile(file)
        self._claims = PositionedFile(claims)
        self._claims_start = len(header.line)
        self._clock = clock
        self._syncing = threading.Lock()
        self._cached: deque[int] = deque()
        self._new_bytes = 0
        self._synced_at = clock()
        self._is_open = True

    @classmethod
    def open(
        cls,
        folder: Path,
        digest: Digest,
        size_bytes: int,
        chunk_bytes: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Open the download of a blob of `size_bytes` bytes, where it stopped or new, with room for all of it.

        Raises:
            IntegrityError: `digest` is not one.
            NoSpaceError: The disk has no room for it; what came earlier is kept.
            StorageError: The disk refused.
        """
        path = folder / parse_digest(digest)
        header = Header(size_bytes=size_bytes, chunk_bytes=chunk_bytes)
        durable.make_directory(folder)
        found = read_map(path)
        if found is None or found[0] != header:
            _begin(path, header, is_new=found is None)
        with contextlib.ExitStack() as opened:
            with durable.storage_errors("open", path):
                file = opened.enter_context(FileIO(path, "r+" if path.exists() else "x+"))
                claims = opened.enter_context(FileIO(map_of(path), "r+"))
            _reserve(path, file, size_bytes)
            durable.remove_file(journal_of(path))
            durable.sync_directory(folder)
            opened.pop_all()
        return cls(path, file, claims, header, clock=clock)

    def claimed(self) -> list[int]:
        """The numbers of the chunks that came, as far as the map knows."""
        found = read_map(self.path)
        return [number for number, claim in enumerate(found[1]) if claim == CAME[0]] if found else []

    def claim(self, number: int) -> None:
        """A chunk's bytes are in the file; have them written to the disk soon."""
        start, stop = self._range(number)
        durable.start_write_back(self._file.fileno(), start, stop)
        self._mark(number, CAME)
        self._new_bytes += stop - start

    def disclaim(self, number: int) -> None:
        """A chunk's bytes are wrong."""
        self._mark(number, MISSING)

    def verified(self, number: int) -> None:
        """A chunk is right, and need not be read any more: after some others it leaves the page cache."""
        self._cached.append(number)
        while len(self._cached) > _CACHED_CHUNKS:
            with durable.storage_errors("write", self.path):
                durable.let_go(self._file.fileno(), *self._range(self._cached.popleft()))

    def take_over(self, damaged: Path) -> None:
        """Copy what can be read of a damaged blob, and claim it: whoever verifies the claims finds the damage."""
        missing = set(range(self.count)).difference(self.claimed())
        buffer = memoryview(bytearray(_COPY_BYTES))
        with contextlib.suppress(OSError), FileIO(damaged) as file:
            old = PositionedFile(file)
            for number in sorted(missing):
                with contextlib.suppress(OSError):  # a bad sector costs its chunk
                    if self._copy_from(old, number, buffer):
                        self.claim(number)

    def _copy_from(self, old: PositionedFile, number: int, buffer: memoryview) -> bool:
        offset, stop = self._range(number)
        while offset < stop and (count := old.read_into(offset, buffer[: stop - offset])):
            self.write(offset, buffer[:count])
            offset += count
        return offset == stop

    def write(self, offset: int, data: memoryview) -> None:
        """Put bytes into the file."""
        with durable.storage_errors("write", self.path):
            self._file.write(offset, data)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Read bytes back; returns their number."""
        with durable.storage_errors("read", self.path):
            return self._file.read_into(offset, buffer)

    def digest_of(self, number: int, buffer: memoryview) -> bytes:
        """The SHA-256 of a chunk as the file holds it, by way of a buffer."""
        hasher = hashlib.sha256()
        offset, stop = self._range(number)
        while offset < stop and (count := self.read_into(offset, buffer[: stop - offset])):
            hasher.update(buffer[:count])
            offset += count
        return hasher.digest()

    def checkpoint_if_due(self) -> None:
        """Now and then, wait until what came is on the disk, and then the map."""
        if self._new_bytes >= CHECKPOINT_BYTES or self._clock() - self._synced_at >= CHECKPOINT_S:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Wait until what came is on the disk, and then the map."""
        with self._syncing, durable.storage_errors("sync", self.path):
            if not self._is_open:
                return
            self._new_bytes, self._synced_at = 0, self._clock()
            durable.sync_file(self._file.fileno())
            durable.sync_file(self._claims.fileno())

    def finish(self) -> Path:
        """Wait until all is on the disk, close, and return the file, ready to be renamed.

        The map stays until then, so that a crash before the rename loses nothing.
        """
        with self._syncing, durable.storage_errors("sync", self.path):
            durable.sync_file(self._file.fileno())
        self.close()
        return self.path

    def discard(self) -> None:
        """Close, and remove the bytes and the map."""
        self.close()
        durable.remove_file(self.path)
        durable.remove_file(map_of(self.path))

    def close(self) -> None:
        """Close the files and keep them."""
        with self._syncing, durable.storage_errors("close", self.path):
            self._is_open = False
            self._file.close()
            self._claims.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _range(self, number: int) -> tuple[int, int]:
        return chunk_range(number, self.size_bytes, self.chunk_bytes)

    def _mark(self, number: int, what: bytes) -> None:
        with durable.storage_errors("write", map_of(self.path)):
            self._claims.write(self._claims_start + number, memoryview(what))


def _begin(path: Path, header: Header, *, is_new: bool) -> None:
    """Make a map. Bytes that came as one stream before are claimed, others removed."""
    whole_chunks = Partial.bytes_present(path.parent, path.name) // header.chunk_bytes if is_new else 0
    if not whole_chunks:
        durable.remove_file(path)
    claims = CAME * min(whole_chunks, header.count)
    durable.write_file(map_of(path), header.line + claims.ljust(header.count, MISSING))


def _reserve(path: Path, file: FileIO, size_bytes: int) -> None:
    """Give the file its full length; when the disk has no room, leave it as it was, or remove a new one."""
    with durable.storage_errors("make room for", path):
        before = path.stat().st_size
        try:
            durable.reserve(file.fileno(), size_bytes)
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(before)
            if not before:
                with contextlib.suppress(StorageError):
                    durable.remove_file(path)
                    durable.remove_file(map_of(path))
            raise
