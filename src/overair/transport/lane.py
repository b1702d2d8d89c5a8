"""One connection of a download: asks for bytes, and puts them where they belong in the file."""

import threading
import time
from typing import Final, Protocol

from overair.core.spans import Span
from overair.errors import CancelledError, NetworkError, OverairError, StorageError
from overair.transport.failures import shown
from overair.transport.pace import Floor, Pace
from overair.transport.source import Body
from overair.transport.source import Source as Web
from overair.transport.work import Job, Work

_NAME: Final = "overair-lane"


class File(Protocol):
    """What a lane needs of the file; `overair.store.pieces` has one."""

    @property
    def chunk_bytes(self) -> int:
        """The length of its chunks."""

    def write(self, offset: int, data: memoryview) -> None:
        """Put bytes into the file."""

    def claim(self, number: int) -> None:
        """Note that a chunk's bytes are in the file."""


class Lane(threading.Thread):
    """One connection at a time, until it is not needed any more.

    Args:
        number: Which lane it is, from 0.
        web: What opens connections.
        work: What there is to do.
        file: Where bytes go.
        pace: How fast all lanes together may go.
        floor_s: How long a connection may be too slow, in seconds.
    """

    def __init__(self, number: int, *, web: Web, work: Work, file: File, pace: Pace, floor_s: float) -> None:
        super().__init__(name=f"{_NAME}-{number}", daemon=True)
        self._number = number
        self._web = web
        self._work = work
        self._file = file
        self._pace = pace
        self._floor_s = floor_s
        # No longer than a chunk: what is in it when the process dies is fetched again.
        self._buffer = memoryview(bytearray(min(pace.most_at_once, file.chunk_bytes)))

    def run(self) -> None:
        """Fetch what there is to fetch; a failure that no other connection can make good ends the download."""
        try:
            while job := self._work.next_job(self._number):
                self._fetch(job)
        except BaseException as error:  # noqa: BLE001 - it is raised again by the thread that waits for all
            self._work.stop(error)

    def _fetch(self, job: Job) -> None:
        try:
            with self._open(job) as stream:
                if self._work.opened(self._number, job, stream):
                    self._take(stream, job)
        except (CancelledError, StorageError):
            self._work.ended(self._number, job)
            raise
        except OverairError as error:
            self._work.failed(self._number, job, error)
        else:
            self._work.ended(self._number, job)

    def _open(self, job: Job) -> Body:
        url, stopping, buffer_bytes = job.source.url, self._work.stopping, self._pace.kernel_bytes
        if not job.source.has_ranges:
            return self._web.open(url, cancel=stopping, buffer_bytes=buffer_bytes)
        start, stop = job.span.start, job.span.stop
        return self._web.open(
            url, start=start, stop=stop, if_range=job.etag, cancel=stopping, buffer_bytes=buffer_bytes
        )

    def _take(self, stream: Body, job: Job) -> None:
        floor = Floor(self._floor_s)
        if job.is_answered_by(stream):
            self._receive(stream, job, stream.start, floor)
            return
        # The server sends all that it has, whatever is asked for: take what is missing of it.
        offset = stream.start
        while not job.source.is_given_up and (span := self._work.take_from(self._number, offset)):
            while offset < span.start:
                offset += self._read(stream, job, span.start - offset, floor)
            offset = self._receive(stream, job, offset, floor)

    def _receive(self, stream: Body, job: Job, offset: int, floor: Floor) -> int:
        """Take this lane's bytes from a stream that is at `offset`; returns where it is then."""
        while not job.source.is_given_up and (stop := self._work.stop_of(self._number)) > offset != stream.stop:
            count = self._read(stream, job, stop - offset, floor)
            own = Span(offset, offset + self._work.reserve(self._number, job, count))
            self._write(own)
            for number in self._work.wrote(job, own):
                self._file.claim(number)
                self._work.came(number)
            offset += count
        return offset

    def _write(self, span: Span) -> None:
        try:
            self._file.write(span.start, self._buffer[: len(span)])
        except StorageError:
            self._work.lost(span)
            raise

    def _read(self, stream: Body, job: Job, most: int, floor: Floor) -> int:
        asked_at = time.monotonic()
        count = stream.read_into(self._buffer[:most])
        if not count:
            raise NetworkError(f"cannot fetch {shown(job.source.url)}: it ended before its last byte")
        floor.check(job.source.url, count, time.monotonic() - asked_at)
        pause_s = self._pace.after(count)
        if pause_s:
            self._work.stopping.wait(pause_s)
        return count
