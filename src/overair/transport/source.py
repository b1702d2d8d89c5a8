"""Where a device gets files from: a server, or a folder that somebody carried here."""

import threading
from types import TracebackType
from typing import Protocol, Self

from overair.transport.http import Document, NotModified


class Body(Protocol):
    """A file that is read as it comes; a context manager. See `overair.transport.http.Stream`."""

    url: str
    start: int
    total: int | None
    stop: int | None
    etag: str | None
    content_type: str

    def read_into(self, buffer: memoryview) -> int:
        """Wait for bytes, put what came at the front of `buffer`, and return their number; 0 at the end."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Source(Protocol):
    """Gets documents and files by URL. See `overair.transport.http.HTTP`."""

    def get(
        self, url: str, *, max_bytes: int, etag: str | None = None, total_timeout_s: float = 60.0
    ) -> Document | NotModified:
        """Fetch a short document."""

    def open(
        self,
        url: str,
        *,
        start: int = 0,
        stop: int | None = None,
        if_range: str | None = None,
        cancel: threading.Event | None = None,
        buffer_bytes: int | None = None,
    ) -> Body:
        """Begin to fetch a file, or only its bytes from `start` up to `stop` if the source can."""

    def close(self) -> None:
        """Let go of what is open."""
