"""Fetch one file that has a chunk index, over as many connections as bring something.

Connections write what comes into the file; beside them, verifiers read every chunk back and compare it with the index.
So one pass of hashing proves what the network brought and what the disk took. The index is as good as the digest of
the whole: the signed manifest binds it to the same bytes, so those are not read a second time.
"""

import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from overair.core.lanes import Lanes
from overair.errors import CancelledError, OverairError
from overair.transport import lane
from overair.transport.failures import shown
from overair.transport.pace import FLOOR_S, Pace
from overair.transport.source import Source as Web
from overair.transport.work import Work

_VERIFIERS: Final = 2
_VERIFY_BYTES: Final = 512 * 1024
_TICK_S: Final = 0.05
_KEEP_S: Final = 0.25


class File(lane.File, Protocol):
    """The file that a download writes; `overair.store.pieces` has one."""

    @property
    def size_bytes(self) -> int:
        """Its length when it is whole."""

    def claimed(self) -> Sequence[int]:
        """The chunks that an earlier try left, perhaps damaged."""

    def disclaim(self, number: int) -> None:
        """Note that a chunk's bytes are wrong."""

    def digest_of(self, number: int, buffer: memoryview) -> bytes:
        """The SHA-256 of a chunk as the file holds it."""

    def verified(self, number: int) -> None:
        """Note that a chunk is right and need not be read any more."""

    def checkpoint_if_due(self) -> None:
        """Now and then, make what came durable."""

    def finish(self) -> Path:
        """Make all of it durable and return the file."""


class ChunkedDownload:
    """One file on its way. It can be stopped and run again, in this process or, from the same file, in a later one.

    Args:
        web: What to fetch it with.
        urls: Where it is; the first is preferred, the others are used beside it.
        digests: The SHA-256 of each chunk.
        file: Where it goes.
        pace: How fast it may go.
        connections: Use this many instead of as many as bring something.
        on_bytes: Called in the thread of `run`, at most 20 times a second, with the number of bytes that are here;
            that goes back by the length of a chunk when a chunk is refused.
        floor_s: How long a connection may bring fewer than 1024 bytes a second until it is dropped.
        chance: A random number from 0 to 1.
    """

    def __init__(
        self,
        web: Web,
        *,
        urls: Sequence[str],
        digests: Sequence[bytes],
        file: File,
        pace: Pace | None = None,
        connections: int | None = None,
        on_bytes: Callable[[int], object] | None = None,
        floor_s: float = FLOOR_S,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._web = web
        self._name = shown(urls[0])
        self._digests = digests
        self._file = file
        self._pace = pace or Pace()
        self._on_bytes = on_bytes or (lambda _: None)
        self._floor_s = floor_s
        fixed = 1 if self._pace.rate is not None else connections
        self._work = Work(
            urls=urls,
            size_bytes=file.size_bytes,
            chunk_bytes=file.chunk_bytes,
            claimed=file.claimed(),
            lanes=Lanes(fixed),
            chance=chance,
        )
        self._threads: list[threading.Thread] = []
        self._keeper: threading.Thread | None = None

    @property
    def bytes_received(self) -> int:
        """How many bytes came over the network so far, those included that were thrown away."""
        return self._work.bytes_received

    def run(self, cancel: threading.Event | None = None) -> Path:
        """Fetch what is missing, and return the file, verified and durable.

        Args:
            cancel: Stops it within 0.3 seconds when set; what came is kept, and `run` can be called again.

        Raises:
            CancelledError: The caller stopped.
            NetworkError: The bytes did not come in spite of several tries.
            HTTPStatusError: No place has the file; with 401, 403, 404 or 410 another manifest may name a better one.
            IntegrityError: No place has the file that was promised.
            NoSpaceError: The disk is full.
            StorageError: The disk refused.
        """
        self._work.begin()
        self._on_bytes(self._work.bytes_here)
        try:
            self._start_helpers()
            self._watch(cancel or threading.Event())
        finally:
            self._work.stop()
            for thread in self._threads:
                thread.join()
            self._threads.clear()
            self._on_bytes(self._work.bytes_here)
        return self._file.finish()

    def _watch(self, cancel: threading.Event) -> None:
        """Start connections as they are wanted, until all is here or nothing more will come."""
        lanes: dict[int, lane.Lane] = {}
        while not self._work.wait(_TICK_S):
            if cancel.is_set():
                raise CancelledError(f"stopped fetching {self._name}")
            for number in range(self._work.tick()):
                if number not in lanes or not lanes[number].is_alive():
                    lanes[number] = self._lane(number)
            self._on_bytes(self._work.bytes_here)
        if self._work.error is not None:
            raise self._work.error

    def _lane(self, number: int) -> lane.Lane:
        thread = lane.Lane(
            number, web=self._web, work=self._work, file=self._file, pace=self._pace, floor_s=self._floor_s
        )
        self._threads.append(thread)
        thread.start()
        return thread

    def _start_helpers(self) -> None:
        for number in range(_VERIFIERS):
            self._threads.append(threading.Thread(target=self._verify, name=f"overair-verify-{number}", daemon=True))
            self._threads[-1].start()
        if self._keeper is None or not self._keeper.is_alive():  # one that still syncs goes on
            self._keeper = threading.Thread(target=self._keep, name="overair-keep", daemon=True)
            self._keeper.start()

    def _verify(self) -> None:
        """Compare chunks, as the file holds them, with the index."""
        buffer = memoryview(bytearray(_VERIFY_BYTES))
        try:
            while (number := self._work.next_chunk()) is not None:
                self._verify_one(number, buffer)
        except BaseException as error:  # noqa: BLE001 - it is raised again by `run`
            self._work.stop(error)

    def _verify_one(self, number: int, buffer: memoryview) -> None:
        try:
            is_right = self._file.digest_of(number, buffer) == self._digests[number]
        except BaseException:
            self._work.put_back(number)
            raise
        if is_right:
            self._work.accept(number)
            self._file.verified(number)
        else:
            self._file.disclaim(number)
            self._work.refuse(number)

    def _keep(self) -> None:
        """Make what came durable now and then. `run` does not wait for it: a disk may take its time."""
        try:
            while not self._work.wait(_KEEP_S):
                self._file.checkpoint_if_due()
        except OverairError as error:
            self._work.stop(error)
