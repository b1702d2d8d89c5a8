"""Fetch one file of a known length and digest, over however many connections it takes."""

import hashlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from overair.core import retry
from overair.errors import CancelledError, HTTPStatusError, IntegrityError, NetworkError, OverairError
from overair.model.digest import Digest
from overair.transport.failures import AnswerError, shown
from overair.transport.source import Body
from overair.transport.source import Source as Web

BUFFER_BYTES: Final = 512 * 1024
FLOOR_BYTES: Final = 1024
FLOOR_S: Final = 15.0
# A burst of one second at the allowed rate makes up for the time that reading itself takes.
_BURST_S: Final = 1.0
_READS_A_SECOND: Final = 4


class Source(Protocol):
    """Where bytes came from."""

    @property
    def url(self) -> str:
        """Without its query."""

    @property
    def etag(self) -> str | None:
        """The strong entity tag that the file had, if any."""


class Partial(Protocol):
    """What a download needs of the file that it writes; `overair.store.partial` has one."""

    @property
    def source(self) -> Source | None:
        """Where the bytes that are there came from."""

    @property
    def length(self) -> int:
        """How many bytes are there."""

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Read bytes that are there; returns their number."""

    def restart(self, url: str, etag: str | None) -> None:
        """Forget the bytes; those that follow come from here."""

    def write(self, data: memoryview) -> None:
        """Append bytes."""

    def finish(self) -> Path:
        """Make all of it durable and return the file."""

    def discard(self) -> None:
        """Remove the bytes."""


def download(
    http: Web,
    url: str,
    *,
    size_bytes: int,
    sha256: Digest,
    partial: Partial,
    on_bytes: Callable[[int], object] | None = None,
    cancel: threading.Event | None = None,
    max_bytes_per_second: int | None = None,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], object] | None = None,
    chance: Callable[[], float] = random.random,
) -> Path:
    """Fetch a file, continuing where an earlier try stopped, and return it verified and durable.

    Args:
        http: What to fetch it with.
        url: Where it is.
        size_bytes: Its length.
        sha256: Its digest.
        partial: What is here of it.
        on_bytes: Called with the number of bytes that are here.
        cancel: Stops the download within half a second when set.
        max_bytes_per_second: The most to take of the network.
        clock: Tells the time in seconds, never backwards.
        wait: Waits for a number of seconds, or until `cancel` is set.
        chance: A random number from 0 to 1.

    Raises:
        CancelledError: The caller stopped; what came is kept.
        NetworkError: The bytes did not come in spite of several tries; what came is kept.
        IntegrityError: The server has another file than was promised.
        NoSpaceError: The disk is full; what came is kept.
        StorageError: The disk refused.
    """
    cancel = cancel or threading.Event()
    wait = wait or cancel.wait
    transfer = _Transfer(
        http=http,
        url=url,
        size_bytes=size_bytes,
        partial=partial,
        on_bytes=on_bytes or _ignore,
        cancel=cancel,
        pace=_Pace(max_bytes_per_second, clock, wait),
        clock=clock,
        wait=wait,
    )
    transfer.hash_what_is_here()
    transfer.fetch_the_rest(chance)
    if transfer.hexdigest() != sha256 and transfer.continued:
        # The tail of a file may be garbage after a power cut, and a server may say of two files that they are one.
        transfer.forget()
        transfer.fetch_the_rest(chance)
    if transfer.hexdigest() != sha256:
        partial.discard()
        raise IntegrityError(
            f"{shown(url)} is not the file that was promised: expected sha256 {sha256}, got {transfer.hexdigest()}",
            hint="check for an update again; if this repeats, the publisher must upload the file again",
        )
    return partial.finish()


@dataclass(kw_only=True)
class _Transfer:
    """One file on its way: what is here, its hash, and the rules for taking more."""

    http: Web
    url: str
    size_bytes: int
    partial: Partial
    on_bytes: Callable[[int], object]
    cancel: threading.Event
    pace: "_Pace"
    clock: Callable[[], float]
    wait: Callable[[float], object]
    continued: bool = False

    def __post_init__(self) -> None:
        self._hasher = hashlib.sha256()
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

    def hexdigest(self) -> str:
        """The digest of what is here."""
        return self._hasher.hexdigest()

    def hash_what_is_here(self) -> None:
        """Read the bytes of an earlier try, if they can be continued."""
        if not self._can_continue() and self.partial.length < self.size_bytes:
            return
        hashed = 0
        while count := self.partial.read_into(self._buffer, hashed):
            self._stop_if_cancelled()
            self._hasher.update(self._buffer[:count])
            hashed += count
        self.continued = True
        self.on_bytes(self.partial.length)

    def forget(self) -> None:
        """Begin again with nothing."""
        self._begin(shown(self.url), None)

    def fetch_the_rest(self, chance: Callable[[], float]) -> None:
        """Try until all bytes are here, or several tries in a row brought nothing."""
        failures, furthest = 0, self.partial.length
        while self.partial.length < self.size_bytes:
            self._stop_if_cancelled()
            try:
                self._fetch_once()
            except OverairError as error:
                if self.partial.length >= furthest + FLOOR_BYTES:
                    failures, furthest = 0, self.partial.length
                failures += 1
                self._pause_or_give_up(error, failures, chance())

    def _pause_or_give_up(self, error: OverairError, failures: int, chance: float) -> None:
        if not retry.worth_retrying(error):
            raise error
        retry_after_s = error.retry_after_s if isinstance(error, AnswerError) else None
        pause_s = retry.pause_s(failures, chance, retry_after_s=retry_after_s)
        if pause_s is None:
            raise error
        self.wait(pause_s)

    def _fetch_once(self) -> None:
        """Take what one connection brings."""
        with self._open() as stream:
            self._refuse_another_file(stream)
            if stream.start == 0:
                self._begin(shown(self.url), stream.etag)
            else:
                self.continued = True
            floor = _Floor()
            while self._receive(stream, floor):
                self._stop_if_cancelled()
        if self.partial.length < self.size_bytes:
            raise NetworkError(
                f"cannot fetch {shown(self.url)}: it ended after {self.partial.length} of {self.size_bytes} bytes"
            )

    def _open(self) -> Body:
        """Continue if that is possible, or begin at the first byte."""
        source = self.partial.source
        if source is not None and self._can_continue():
            try:
                return self.http.open(self.url, start=self.partial.length, if_range=source.etag, cancel=self.cancel)
            except HTTPStatusError as error:
                if error.status not in {206, 416}:
                    raise
        return self.http.open(self.url, cancel=self.cancel)

    def _can_continue(self) -> bool:
        """Whether the server can be asked for the rest of the very file that the bytes here came from."""
        source = self.partial.source
        return bool(self.partial.length and source and source.etag and source.url == shown(self.url))

    def _begin(self, url: str, etag: str | None) -> None:
        self.partial.restart(url, etag)
        self._hasher = hashlib.sha256()
        self.continued = False

    def _refuse_another_file(self, stream: Body) -> None:
        if stream.total == self.size_bytes:
            return
        if stream.content_type == "text/html":
            raise IntegrityError(
                f"cannot fetch {shown(self.url)}: a page of HTML came instead of the file (a login page?)",
                hint="is there a login page on this network, or a wrong URL? try again on another network",
            )
        if stream.total is not None:
            raise IntegrityError(
                f"cannot fetch {shown(self.url)}: the server's file has {stream.total} bytes, "
                f"{self.size_bytes} were promised",
                hint="check for an update again; if this repeats, the publisher must upload the file again",
            )

    def _receive(self, stream: Body, floor: "_Floor") -> bool:
        """Take what has come; False at the end. One byte more than promised is asked for, to notice it."""
        missing = self.size_bytes - self.partial.length
        asked_at = self.clock()
        count = stream.read_into(self._buffer[: min(self.pace.most_at_once, missing + 1)])
        if count > missing:
            raise IntegrityError(
                f"cannot fetch {shown(self.url)}: more than the promised {self.size_bytes} bytes came",
                hint="check for an update again; if this repeats, the publisher must upload the file again",
            )
        data = self._buffer[:count]
        self.partial.write(data)
        self._hasher.update(data)
        self.on_bytes(self.partial.length)
        if count and count < missing:
            floor.check(self.url, count, self.clock() - asked_at)
            self.pace.after(count)
        return count > 0

    def _stop_if_cancelled(self) -> None:
        if self.cancel.is_set():
            raise CancelledError(f"stopped fetching {shown(self.url)}")


class _Floor:
    """Drops a connection that trickles: silence ends by itself, a byte now and then does not."""

    def __init__(self) -> None:
        self._bytes = 0
        self._seconds = 0.0

    def check(self, url: str, count: int, seconds: float) -> None:
        """Count bytes and the time that they were awaited; raise when there are too few."""
        self._bytes += count
        self._seconds += seconds
        if self._bytes >= FLOOR_BYTES:
            self._bytes, self._seconds = 0, 0.0
        elif self._seconds >= FLOOR_S:
            raise NetworkError(f"cannot fetch {shown(url)}: fewer than {FLOOR_BYTES} bytes in {FLOOR_S:g} s")


class _Pace:
    """Takes no more of the network than the caller allows."""

    def __init__(
        self, max_bytes_per_second: int | None, clock: Callable[[], float], wait: Callable[[float], object]
    ) -> None:
        self._rate = max_bytes_per_second
        self._clock = clock
        self._wait = wait
        self._paid_until = clock()

    @property
    def most_at_once(self) -> int:
        """How many bytes to ask for, so that no wait is long."""
        return BUFFER_BYTES if self._rate is None else max(1, min(BUFFER_BYTES, self._rate // _READS_A_SECOND))

    def after(self, count: int) -> None:
        """Wait as long as that many bytes should have taken."""
        if self._rate is None:
            return
        now = self._clock()
        self._paid_until = max(self._paid_until, now - _BURST_S) + count / max(1, self._rate)
        if self._paid_until > now:
            self._wait(self._paid_until - now)


def _ignore(_count: int) -> None:
    pass
