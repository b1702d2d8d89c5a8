"""What the threads of one download share: who fetches what, which chunks are to be verified, and how it stands."""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from overair.core.lanes import Lanes
from overair.core.sources import Source, Sources
from overair.core.spans import Span, Spans
from overair.errors import HTTPStatusError, IntegrityError, OverairError
from overair.transport.failures import refuse_another_file, shown
from overair.transport.source import Body

_LOG: Final = logging.getLogger("overair")
# A request is to last some seconds: often enough to be shared out anew, seldom enough to cost no round trips.
_LONGEST_BYTES: Final = 64 << 20
_LONGEST_S: Final = 4.0
# A rate is of the last second or so.
_MEMORY_S: Final = 0.5
# A connection that waits this long for an answer brings nothing, and others may take its bytes.
_LONGEST_HEAD_S: Final = 1.0
# A chunk that comes wrong from several sources mixed is fetched again this often.
_MAX_REFUSALS: Final = 4
# Statuses by which a server says that it has no such part: another part came, or there is none.
_NO_PART: Final = frozenset({206, 416})
_WRONG: Final = (
    "try again; if it stays so, the server has other bytes than were published, or this disk does not keep what is "
    "written to it"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Bytes for one connection to fetch, and from where."""

    span: Span
    source: Source
    etag: str | None
    asked_at: float
    is_part: bool

    def is_answered_by(self, stream: Body) -> bool:
        """Whether a stream brings these bytes and no others."""
        return stream.start == self.span.start and stream.stop is not None and stream.stop <= self.span.stop


class Work:
    """The state of one download, guarded by one lock. Only the methods here change it.

    Args:
        urls: Where the file is.
        size_bytes: Its length.
        chunk_bytes: The length of its chunks.
        claimed: The chunks that an earlier try left, not yet verified.
        lanes: How many connections there are.
        clock: Tells the time in seconds, never backwards.
        chance: A random number from 0 to 1.
    """

    def __init__(
        self,
        *,
        urls: Iterable[str],
        size_bytes: int,
        chunk_bytes: int,
        claimed: Iterable[int],
        lanes: Lanes,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._to_verify = deque(claimed)
        here = set(self._to_verify)
        self.chunks_left = -(-size_bytes // chunk_bytes)
        self._spans = Spans(
            size_bytes=size_bytes,
            chunk_bytes=chunk_bytes,
            missing=(number for number in range(self.chunks_left) if number not in here),
        )
        self._sources = Sources(urls)
        self._lanes = lanes
        self._size_bytes = size_bytes
        self._clock = clock
        self._chance = chance
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._chunk_came = threading.Condition(self._lock)
        self._makers: dict[int, set[tuple[str, int]]] = {}
        self._refusals: dict[int, int] = {}
        self._streaming: dict[int, int] = {}
        self._rates: dict[int, float] = {}
        self._asked: dict[int, float] = {}
        self._busy: set[int] = set()
        self._round_trip_s = 0.0
        self._ticked_at = clock()
        self.stopping = threading.Event()
        self.error: BaseException | None = None
        self.bytes_here = sum(len(self._spans.chunk(number)) for number in here)
        self.bytes_received = 0

    def begin(self) -> None:
        """Start, or start again after a stop."""
        with self._lock:
            self.stopping.clear()
            self.error = None
            self._streaming.clear()
            self._lanes.pause()

    def stop(self, error: BaseException | None = None) -> None:
        """Have every thread end soon."""
        with self._lock:
            if not self.stopping.is_set():
                self.error = self.error or error
            self.stopping.set()
            self._wake_all()

    def wait(self, seconds: float) -> bool:
        """Wait for the end, at most so long; returns whether it has come."""
        with self._lock:
            self._changed.wait_for(self._is_over, seconds)
            return self._is_over()

    def tick(self) -> int:
        """Look at what the connections bring; returns how many there should be."""
        with self._lock:
            now = self._clock()
            passed, self._ticked_at = max(now - self._ticked_at, 1e-6), now
            keep = 0.5 ** (passed / _MEMORY_S)
            for lane, count in self._streaming.items():
                self._rates[lane] = keep * self._rates.get(lane, count / passed) + (1 - keep) * count / passed
                self._streaming[lane] = 0
            for lane, asked_at in self._asked.items():
                if now - asked_at > _LONGEST_HEAD_S:
                    self._rates[lane] = 0.0
            if len(self._busy) >= self._lanes.count:  # else there is no work for more
                self._lanes.observe(
                    now, self.bytes_received, streaming=len(self._streaming), round_trip_s=self._round_trip_s
                )
            self.error = self.error or self._sources.why_none_is_left()
            self._changed.notify_all()
            return self._lanes.count

    # What connections ask and tell.

    def next_job(self, lane: int) -> Job | None:
        """Bytes to fetch, as soon as there are some; None when this connection is not needed any more."""
        with self._lock:
            while not self._is_over() and lane < self._lanes.count:
                source = self._sources.pick(self._clock())
                span = source and self._spans.take(
                    lane, lanes=self._lanes.count, longest_bytes=self._longest(lane), rates=self._rates
                )
                if source and span:
                    source.lanes += 1
                    self._asked[lane] = self._clock()
                    self._busy.add(lane)
                    return Job(
                        span=span,
                        source=source,
                        etag=source.etag,
                        asked_at=self._clock(),
                        is_part=source.has_ranges,
                    )
                self._changed.wait()
            self._streaming.pop(lane, None)
            return None

    def opened(self, lane: int, job: Job, stream: Body) -> bool:
        """Look at the head of an answer; returns whether to read its body.

        Raises:
            IntegrityError: The server has another file.
        """
        with self._lock:
            self._asked.pop(lane, None)
            refuse_another_file(
                job.source.url, total=stream.total, content_type=stream.content_type, size_bytes=self._size_bytes
            )
            self._streaming.setdefault(lane, 0)
            self._round_trip_s = self._clock() - job.asked_at
            if self._sources.saw(job.source, stream.etag):
                _LOG.warning("the file at %s has changed; its bytes are still verified", shown(job.source.url))
                return False
            if job.is_answered_by(stream):
                return True
            # All of it comes, which is of use once: who finds that out later than another connection leaves it to that.
            is_first, job.source.has_ranges = job.source.has_ranges, False
            return is_first or job.source.lanes == 1

    def take_from(self, lane: int, offset: int) -> Span | None:
        """The next missing bytes for a connection that gets everything from the first byte on."""
        with self._lock:
            return self._spans.take_from(lane, offset)

    def stop_of(self, lane: int) -> int:
        """How far a connection is to fetch, at this moment."""
        with self._lock:
            return self._spans.stop_of(lane)

    def reserve(self, lane: int, job: Job, count: int) -> int:
        """How many of the bytes that came a connection may write; nobody else will write them."""
        with self._lock:
            self.bytes_received += count
            self._streaming[lane] += count
            own = self._spans.reserve(lane, count)
            self.bytes_here += own
            self._sources.brought(job.source, own)
            return own

    def lost(self, span: Span) -> None:
        """Bytes that were reserved could not be written."""
        with self._lock:
            self.bytes_here -= len(span)
            self._spans.lost(span)

    def wrote(self, job: Job, span: Span) -> list[int]:
        """Bytes are in the file; returns the chunks that are complete by them, to be claimed and verified."""
        maker = (job.source.url, job.source.edition)
        with self._lock:
            for number in self._spans.chunks_of(span):
                self._makers.setdefault(number, set()).add(maker)
            return self._spans.wrote(span)

    def ended(self, lane: int, job: Job) -> None:
        """A connection has brought what it was to bring."""
        with self._lock:
            self._leave(lane, job)

    def failed(self, lane: int, job: Job, error: OverairError) -> None:
        """A connection has ended with an error; others take what it left."""
        with self._lock:
            self._leave(lane, job)
            self._streaming.pop(lane, None)
            _LOG.info("%s", error)
            status = error.status if isinstance(error, HTTPStatusError) else None
            if status in _NO_PART and job.is_part:
                job.source.has_ranges = False  # perhaps the whole file comes
                return
            others_work = job.source.lanes > 0 and bool(self._streaming)
            if status is not None and others_work:
                self._lanes.refused(len(self._streaming))
            self._sources.failed(
                job.source,
                error,
                asked_at=job.asked_at,
                now=self._clock(),
                chance=self._chance(),
                works=others_work,
            )
            self.error = self.error or self._sources.why_none_is_left()

    # What verifiers ask and tell.

    def came(self, number: int) -> None:
        """A chunk is in the file."""
        with self._lock:
            self._to_verify.append(number)
            self._chunk_came.notify()

    def next_chunk(self) -> int | None:
        """A chunk to verify, as soon as there is one; None at the end."""
        with self._lock:
            self._chunk_came.wait_for(lambda: self._to_verify or self._is_over())
            return None if self._is_over() else self._to_verify.popleft()

    def put_back(self, number: int) -> None:
        """A chunk was not verified after all."""
        with self._lock:
            self._to_verify.appendleft(number)

    def accept(self, number: int) -> None:
        """A chunk is what the index says."""
        with self._lock:
            self._makers.pop(number, None)
            self.chunks_left -= 1
            if not self.chunks_left:
                self._wake_all()

    def refuse(self, number: int) -> None:
        """A chunk is wrong: it is fetched again, from elsewhere if there is an elsewhere."""
        with self._lock:
            self._spans.refuse(number)
            self.bytes_here -= len(self._spans.chunk(number))
            makers = self._makers.pop(number, set())
            if makers:  # else it is what an earlier try left
                self._blame(number, makers)
            self._changed.notify_all()

    def _blame(self, number: int, makers: set[tuple[str, int]]) -> None:
        names = " and ".join(sorted({shown(url) for url, _ in makers}))
        error = IntegrityError(f"chunk {number} that came from {names} is not what was promised", hint=_WRONG)
        _LOG.warning("%s", error)
        self._refusals[number] = refusals = self._refusals.get(number, 0) + 1
        if len(makers) > 1:
            if refusals >= _MAX_REFUSALS:
                self.error = self.error or error
            return
        source = self._sources.at(next(iter(makers))[0])
        source.wrong += 1
        if self._sources.others(source) or refusals > 1:
            self._sources.put_out(source, error)
            self.error = self.error or self._sources.why_none_is_left()

    def _leave(self, lane: int, job: Job) -> None:
        self._spans.give_back(lane)
        self._asked.pop(lane, None)
        self._busy.discard(lane)
        job.source.lanes -= 1
        self._changed.notify_all()

    def _longest(self, lane: int) -> int:
        return max(_LONGEST_BYTES, int(_LONGEST_S * self._rates.get(lane, 0.0)))

    def _wake_all(self) -> None:
        self._changed.notify_all()
        self._chunk_came.notify_all()

    def _is_over(self) -> bool:
        return self.stopping.is_set() or self.error is not None or not self.chunks_left
