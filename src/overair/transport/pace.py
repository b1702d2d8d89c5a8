"""How fast a download may go, and how slow a connection may be."""

import threading
import time
from collections.abc import Callable
from typing import Final

from overair.errors import NetworkError
from overair.transport.failures import shown

FLOOR_BYTES_PER_SECOND: Final = 1024
FLOOR_S: Final = 15.0
# Long, because threads that read and write take turns at each call.
BUFFER_BYTES: Final = 1024 * 1024
# What the network's hiccups leave unused is made up for, but no more than this.
_BURST_S: Final = 0.2
_READS_A_SECOND: Final = 10
_LEAST_KERNEL_BYTES: Final = 16 * 1024


class Pace:
    """Takes no more of the network than the caller allows, over all connections together.

    Args:
        max_bytes_per_second: The most to take, or None for all there is.
        clock: Tells the time in seconds, never backwards.
    """

    def __init__(self, max_bytes_per_second: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = max_bytes_per_second
        self._clock = clock
        self._paying = threading.Lock()
        self._paid_until = clock()

    @property
    def most_at_once(self) -> int:
        """How many bytes to ask for, so that no wait is long."""
        return BUFFER_BYTES if self.rate is None else max(1, min(BUFFER_BYTES, self.rate // _READS_A_SECOND))

    @property
    def kernel_bytes(self) -> int | None:
        """How many bytes the kernel may take in advance, so that the server sees the rate as well."""
        return None if self.rate is None else max(_LEAST_KERNEL_BYTES, min(BUFFER_BYTES, self.rate // 20))

    def after(self, count: int) -> float:
        """How long to wait now that `count` bytes came, in seconds."""
        if self.rate is None:
            return 0.0
        with self._paying:
            now = self._clock()
            self._paid_until = max(self._paid_until, now - _BURST_S) + count / self.rate
            return max(0.0, self._paid_until - now)


class Floor:
    """Drops a connection that trickles: silence ends by itself, a byte now and then does not.

    Args:
        seconds: How long a connection may be too slow.
    """

    def __init__(self, seconds: float) -> None:
        self._longest_s = seconds
        self._bytes = 0
        self._seconds = 0.0

    def check(self, url: str, count: int, seconds: float) -> None:
        """Count bytes and the time that they were awaited.

        Raises:
            NetworkError: There were too few for too long.
        """
        self._bytes += count
        self._seconds += seconds
        if self._seconds < self._longest_s:
            return
        if self._bytes < FLOOR_BYTES_PER_SECOND * self._seconds:
            raise NetworkError(
                f"cannot fetch {shown(url)}: "
                f"fewer than {FLOOR_BYTES_PER_SECOND} bytes a second for {self._longest_s:g} s"
            )
        self._bytes, self._seconds = 0, 0.0
