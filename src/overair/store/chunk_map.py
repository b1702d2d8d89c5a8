"""The file beside a download in chunks that says which of them came: a line that says of what, and a byte for each."""

from io import FileIO
from pathlib import Path
from typing import Annotated, Final

import msgspec

from overair.formats.chunks import chunk_count
from overair.store import durable

CAME: Final = b"\x01"
MISSING: Final = b"\x00"
_MAX_HEADER_BYTES: Final = 512
_MAX_CHUNKS: Final = 1 << 24


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What the chunks are chunks of: lengths in bytes."""

    size_bytes: Annotated[int, msgspec.Meta(ge=1)]
    chunk_bytes: Annotated[int, msgspec.Meta(ge=1)]

    @property
    def count(self) -> int:
        """How many chunks there are."""
        return chunk_count(self.size_bytes, self.chunk_bytes)

    @property
    def line(self) -> bytes:
        """The first line of the map."""
        return msgspec.json.encode(self) + b"\n"

    def bytes_in(self, claims: bytes) -> int:
        """How many bytes the chunks have that are claimed."""
        last = self.size_bytes - (self.count - 1) * self.chunk_bytes
        return claims.count(CAME) * self.chunk_bytes - (self.chunk_bytes - last if claims[-1:] == CAME else 0)


def map_of(path: Path) -> Path:
    """Where the map of a download lies."""
    return path.with_name(f"{path.name}.map")


def read_map(path: Path) -> tuple[Header, bytes] | None:
    """What the map of a download says, and the byte for each chunk; None if there is none that can be read.

    Raises:
        StorageError: The disk refused.
    """
    place = map_of(path)
    with durable.storage_errors("read", place):
        if not place.exists():
            return None
        with FileIO(place) as file:
            line, _, claims = file.read(_MAX_HEADER_BYTES + _MAX_CHUNKS).partition(b"\n")
    try:
        header = msgspec.json.decode(line[:_MAX_HEADER_BYTES], type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return (header, claims) if len(claims) == header.count and header.line == line + b"\n" else None
