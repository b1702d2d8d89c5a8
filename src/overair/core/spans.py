"""Which bytes of a file each connection fetches.

A lane is one connection's place in a download, named by a number. Every byte belongs to one lane at most: a lane
reserves bytes that have come before it writes them, so nobody else can be given them, and a chunk that was verified is
never written again by a lane that was late.
"""

from bisect import insort
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

# Asking for less costs more round trips than it spreads work.
_LEAST_CHUNKS: Final = 2
# A lane is helped when it has this long to go, in seconds: less is over before another connection brings anything.
_WORTH_HELPING_S: Final = 0.5
# A lane that needs this many times as long as its helper would loses the little that it has left.
_TOO_SLOW: Final = 4.0


class Span(msgspec.Struct, frozen=True, order=True):
    """Bytes from `start` up to and not with `stop`."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


class Spans:
    """The bytes that are missing, and who fetches which of them.

    Args:
        size_bytes: The length of the file.
        chunk_bytes: The length of a chunk.
        missing: The numbers of the chunks that are not here.
    """

    def __init__(self, *, size_bytes: int, chunk_bytes: int, missing: Iterable[int]) -> None:
        self._size_bytes = size_bytes
        self._chunk_bytes = chunk_bytes
        self._free: list[Span] = []
        self._taken: dict[int, Span] = {}
        self._asked: dict[int, int] = {}  # how far the request of a lane reaches, whoever helps it now
        self._arrived: dict[int, int] = {}
        for number in missing:
            self._release(self.chunk(number))

    def chunk(self, number: int) -> Span:
        """The bytes of a chunk."""
        start = number * self._chunk_bytes
        return Span(start, min(start + self._chunk_bytes, self._size_bytes))

    @property
    def free_bytes(self) -> int:
        """How many bytes nobody fetches yet."""
        return sum(map(len, self._free))

    def take(self, lane: int, *, lanes: int, longest_bytes: int, rates: Mapping[int, float]) -> Span | None:
        """Give a lane bytes to fetch: the first that are free, or a part of what another lane has.

        Args:
            lane: Who asks; what it had is free again.
            lanes: How many there are, so that all end at about the same time.
            longest_bytes: The most to ask for in one request.
            rates: What the lanes bring, in bytes a second.
        """
        self.give_back(lane)
        span = self._from_the_free(lanes, longest_bytes) or self._from_another(lane, rates)
        if span is not None:
            self._taken[lane], self._asked[lane] = span, span.stop
        return span

    def take_from(self, lane: int, offset: int) -> Span | None:
        """Give a lane the first free bytes at or after an offset: it reads a stream that only runs forward."""
        self.give_back(lane)
        for span in self._free:
            if span.stop > offset:
                self._free.remove(span)
                taken = Span(max(span.start, offset), span.stop)
                self._release(Span(span.start, taken.start))
                self._taken[lane], self._asked[lane] = taken, taken.stop
                return taken
        return None

    def stop_of(self, lane: int) -> int:
        """The offset after the last byte of a lane, which shrinks when another lane helps; 0 when it has none."""
        span = self._taken.get(lane)
        return span.stop if span else 0

    def reserve(self, lane: int, count: int) -> int:
        """How many of the bytes that came to a lane are its own; they are taken from what it has to fetch."""
        span = self._taken[lane]
        own = min(count, len(span))
        self._taken[lane] = Span(span.start + own, span.stop)
        return own

    def chunks_of(self, span: Span) -> range:
        """The numbers of the chunks that bytes belong to."""
        return range(span.start // self._chunk_bytes, -(-span.stop // self._chunk_bytes))

    def wrote(self, span: Span) -> list[int]:
        """Count bytes that were reserved and are in the file now; returns the chunks that are complete by them."""
        complete = []
        for number in self.chunks_of(span):
            chunk = self.chunk(number)
            here = self._arrived.pop(number, 0) + min(span.stop, chunk.stop) - max(span.start, chunk.start)
            if here == len(chunk):
                complete.append(number)
            else:
                self._arrived[number] = here
        return complete

    def give_back(self, lane: int) -> None:
        """What a lane has not fetched is free again, or goes on to come to the lane that it was taken from."""
        span = self._taken.pop(lane, None)
        if not span:
            return
        for other, theirs in self._taken.items():
            if theirs and theirs.stop == span.start and span.stop <= self._asked[other]:
                self._taken[other] = Span(theirs.start, span.stop)
                return
        self._release(span)

    def lost(self, span: Span) -> None:
        """Bytes that were reserved did not get into the file."""
        self._release(span)

    def refuse(self, number: int) -> None:
        """A complete chunk was wrong: all of it is missing."""
        self._release(self.chunk(number))

    def _release(self, span: Span) -> None:
        """Put bytes among the free ones, and join them with their neighbours."""
        if not span:
            return
        for neighbour in [free for free in self._free if free.stop == span.start or span.stop == free.start]:
            self._free.remove(neighbour)
            span = Span(min(span.start, neighbour.start), max(span.stop, neighbour.stop))
        insort(self._free, span)

    def _from_the_free(self, lanes: int, longest_bytes: int) -> Span | None:
        if not self._free:
            return None
        least = _LEAST_CHUNKS * self._chunk_bytes
        share = self.free_bytes if lanes == 1 else self.free_bytes // (2 * lanes)
        first = self._free.pop(0)
        stop = self._chunk_edge(first.start + max(least, min(share, longest_bytes)))
        if first.stop - stop < least:  # a crumb would cost a request of its own
            return first
        self._free.insert(0, Span(stop, first.stop))
        return Span(first.start, stop)

    def _from_another(self, lane: int, rates: Mapping[int, float]) -> Span | None:
        """The far part of what the lane has left that would end last, or all of it if that lane is far too slow."""
        mine = rates.get(lane) or max(rates.values(), default=0.0)
        if mine <= 0.0:
            return None
        left_s = {other: len(span) / max(rates.get(other, mine), 1.0) for other, span in self._taken.items()}
        last = max(left_s, key=lambda other: left_s[other], default=None)
        if last is None or left_s[last] < _WORTH_HELPING_S:
            return None
        span, theirs = self._taken[last], max(rates.get(last, mine), 1.0)
        edge = self._chunk_edge(span.start + int(len(span) * theirs / (theirs + mine)))
        if len(span) < _LEAST_CHUNKS * self._chunk_bytes or span.stop <= edge:
            if left_s[last] < _TOO_SLOW * (len(span) / mine + _WORTH_HELPING_S):
                return None
            edge = span.start
        self._taken[last] = Span(span.start, edge)
        return Span(edge, span.stop)

    def _chunk_edge(self, offset: int) -> int:
        """The first end of a chunk that is not before an offset."""
        return min(-(-offset // self._chunk_bytes) * self._chunk_bytes, self._size_bytes)
