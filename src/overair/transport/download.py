"""Fetch one file of a known length and digest, as one stream, over however many connections it takes in turn."""

import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from overair.core import retry
from overair.core.sources import PROGRESS_BYTES
from overair.errors import CancelledError, HTTPStatusError, IntegrityError, NetworkError, OverairError
from overair.model.digest import Digest
from overair.transport.failures import REPUBLISH, AnswerError, refuse_another_file, shown
from overair.transport.pace import BUFFER_BYTES, FLOOR_S, Floor, Pace
from overair.transport.source import Body
from overair.transport.source import Source as Web

_LOG: Final = logging.getLogger("overair")


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


class StreamDownload:
    """One file on its way that has no chunk index: one stream, hashed as it comes.

    It can be stopped and run again, in this process or, from the same partial file, in a later one.

    Args:
        web: What to fetch it with.
        urls: Where it is; the first is preferred, the others are tried when it fails.
        size_bytes: Its length.
        sha256: Its digest.
        partial: What is here of it.
        pace: How fast it may go.
        on_bytes: Called with the number of bytes that are here.
        clock: Tells the time in seconds, never backwards.
        wait: Waits for a number of seconds, or until the caller stops.
        chance: A random number from 0 to 1.
    """

    def __init__(
        self,
        web: Web,
        *,
        urls: Sequence[str],
        size_bytes: int,
        sha256: Digest,
        partial: Partial,
        pace: Pace | None = None,
        on_bytes: Callable[[int], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._urls = tuple(dict.fromkeys(urls))
        self._sha256 = sha256
        self._chance = chance
        self._transfer = _Transfer(
            web=web,
            url=self._urls[0],
            size_bytes=size_bytes,
            partial=partial,
            on_bytes=on_bytes or _ignore,
            pace=pace or Pace(),
            clock=clock,
            custom_wait=wait,
        )

    @property
    def bytes_received(self) -> int:
        """How many bytes came over the network so far."""
        return self._transfer.bytes_received

    def run(self, cancel: threading.Event | None = None) -> Path:
        """Fetch what is missing, and return the file, verified and durable.

        Args:
            cancel: Stops it within 0.3 seconds when set; what came is kept, and `run` can be called again.

        Raises:
            CancelledError: The caller stopped.
            NetworkError: The bytes did not come in spite of several tries; what came is kept.
            IntegrityError: No place has the file that was promised.
            NoSpaceError: The disk is full; what came is kept.
            StorageError: The disk refused.
        """
        self._transfer.cancel = cancel or threading.Event()
        for url in self._urls[:-1]:
            try:
                return self._from(url)
            except CancelledError:
                raise
            except (NetworkError, IntegrityError) as error:
                _LOG.warning("%s; another place is tried", error)
        return self._from(self._urls[-1])

    def _from(self, url: str) -> Path:
        transfer = self._transfer
        transfer.url = url
        transfer.hash_what_is_here()
        transfer.fetch_the_rest(self._chance)
        if transfer.hexdigest() != self._sha256 and transfer.continued:
            # A file's tail may be garbage after a power cut, and a server may say of two files that they are one.
            transfer.forget()
            transfer.fetch_the_rest(self._chance)
        if transfer.hexdigest() != self._sha256:
            wrong = IntegrityError(
                f"{shown(url)} is not the file that was promised: "
                f"expected sha256 {self._sha256}, got {transfer.hexdigest()}",
                hint=REPUBLISH,
            )
            transfer.discard(last=url == self._urls[-1])
            raise wrong
        return transfer.partial.finish()


@dataclass(kw_only=True)
class _Transfer:
    """One file on its way: what is here, its hash, and the rules for taking more."""

    web: Web
    url: str
    size_bytes: int
    partial: Partial
    on_bytes: Callable[[int], object]
    pace: Pace
    clock: Callable[[], float]
    custom_wait: Callable[[float], object] | None
    cancel: threading.Event = field(default_factory=threading.Event)
    continued: bool = False
    bytes_received: int = 0

    def __post_init__(self) -> None:
        self._hasher = hashlib.sha256()
        self._hashed = 0
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

    def hexdigest(self) -> str:
        """The digest of what is here."""
        return self._hasher.hexdigest()

    def hash_what_is_here(self) -> None:
        """Read the bytes of an earlier try, if they can be continued; those of an earlier run are hashed already."""
        if not self._can_continue() and self.partial.length < self.size_bytes:
            return
        while count := self.partial.read_into(self._buffer, self._hashed):
            self._stop_if_cancelled()
            self._hasher.update(self._buffer[:count])
            self._hashed += count
            self.continued = True
        self.on_bytes(self.partial.length)

    def forget(self) -> None:
        """Begin again with nothing."""
        self._begin(shown(self.url), None)

    def discard(self, *, last: bool) -> None:
        """Remove what is wrong; unless it was the last place, make room for what another one has."""
        if last:
            self.partial.discard()
        else:
            self.forget()

    def fetch_the_rest(self, chance: Callable[[], float]) -> None:
        """Try until all bytes are here, or several tries in a row brought nothing."""
        failures, furthest = 0, self.partial.length
        while self.partial.length < self.size_bytes:
            self._stop_if_cancelled()
            try:
                self._fetch_once()
            except OverairError as error:
                if self.partial.length >= furthest + PROGRESS_BYTES:
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
        self._wait(pause_s)

    def _fetch_once(self) -> None:
        """Take what one connection brings."""
        with self._open() as stream:
            refuse_another_file(
                self.url, total=stream.total, content_type=stream.content_type, size_bytes=self.size_bytes
            )
            if stream.start == 0:
                self._begin(shown(self.url), stream.etag)
            else:
                self.continued = True
            floor = Floor(FLOOR_S)
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
                return self.web.open(
                    self.url,
                    start=self.partial.length,
                    if_range=source.etag,
                    cancel=self.cancel,
                    buffer_bytes=self.pace.kernel_bytes,
                )
            except HTTPStatusError as error:
                if error.status not in {206, 416}:
                    raise
        return self.web.open(self.url, cancel=self.cancel, buffer_bytes=self.pace.kernel_bytes)

    def _can_continue(self) -> bool:
        """Whether the server can be asked for the rest of the very file that the bytes here came from."""
        source = self.partial.source
        return bool(self.partial.length and source and source.etag and source.url == shown(self.url))

    def _begin(self, url: str, etag: str | None) -> None:
        self.partial.restart(url, etag)
        self._hasher, self._hashed = hashlib.sha256(), 0
        self.continued = False

    def _receive(self, stream: Body, floor: Floor) -> bool:
        """Take what has come; False at the end. One byte more than promised is asked for, to notice it."""
        missing = self.size_bytes - self.partial.length
        asked_at = self.clock()
        count = stream.read_into(self._buffer[: min(self.pace.most_at_once, missing + 1)])
        if count > missing:
            raise IntegrityError(
                f"cannot fetch {shown(self.url)}: more than the promised {self.size_bytes} bytes came",
                hint=REPUBLISH,
            )
        waited_s = self.clock() - asked_at
        self.bytes_received += count
        self.partial.write(self._buffer[:count])
        self._hasher.update(self._buffer[:count])
        self._hashed += count
        self.on_bytes(self.partial.length)
        if count and count < missing:
            floor.check(self.url, count, waited_s)
            self._wait(self.pace.after(count))
        return count > 0

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            (self.custom_wait or self.cancel.wait)(seconds)

    def _stop_if_cancelled(self) -> None:
        if self.cancel.is_set():
            raise CancelledError(f"stopped fetching {shown(self.url)}")


def _ignore(_count: int) -> None:
    pass
