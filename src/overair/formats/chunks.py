"""The chunk index of a blob: the SHA-256 of each of its chunks, 32 bytes one after the other.

How long the chunks are and how many there are follows from what the signed manifest says of the blob, so the index has
no header: the last chunk is as long as what is left.
"""

import hashlib
from typing import Final

from overair.errors import IntegrityError

CHUNK_BYTES: Final = 4 << 20
INDEX_FROM_BYTES: Final = 8 << 20
MAX_INDEX_BYTES: Final = 32 << 20
DIGEST_BYTES: Final = 32


class ChunkIndexWriter:
    """Makes the chunk index of bytes that are handed to it one after the other.

    Args:
        chunk_bytes: The length of a chunk, in bytes.
    """

    def __init__(self, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._chunk_bytes = chunk_bytes
        self._left = chunk_bytes
        self._hasher = hashlib.sha256()
        self._digests = bytearray()

    def update(self, data: memoryview) -> None:
        """Take the next bytes."""
        while data:
            part = data[: self._left]
            self._hasher.update(part)
            self._left -= len(part)
            data = data[len(part) :]
            if not self._left:
                self._close_chunk()

    def finish(self) -> bytes:
        """The index of all that came."""
        if self._left < self._chunk_bytes:
            self._close_chunk()
        return bytes(self._digests)

    def _close_chunk(self) -> None:
        self._digests += self._hasher.digest()
        self._hasher = hashlib.sha256()
        self._left = self._chunk_bytes


def chunk_count(size_bytes: int, chunk_bytes: int) -> int:
    """How many chunks a blob has."""
    return -(-size_bytes // chunk_bytes)


def chunk_range(number: int, size_bytes: int, chunk_bytes: int) -> tuple[int, int]:
    """The offset of a chunk's first byte, and of the byte after its last."""
    return number * chunk_bytes, min((number + 1) * chunk_bytes, size_bytes)


def read_chunk_index(data: bytes, *, size_bytes: int, chunk_bytes: int) -> tuple[bytes, ...]:
    """The digests of a blob's chunks, 32 bytes each.

    Raises:
        IntegrityError: The index does not have the length that a blob of `size_bytes` needs.
    """
    count = chunk_count(size_bytes, chunk_bytes)
    if len(data) != count * DIGEST_BYTES:
        raise IntegrityError(
            f"a chunk index of {len(data)} bytes came, and {count * DIGEST_BYTES} are needed for {count} chunks",
            hint="the publisher must publish the release again",
        )
    return tuple(data[i : i + DIGEST_BYTES] for i in range(0, len(data), DIGEST_BYTES))
