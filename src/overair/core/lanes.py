"""How many connections a download uses: as many as bring something."""

from typing import Final

MOST_LANES: Final = 8
# At this rate hashing and writing are what takes time, and more connections only compete with them.
_ENOUGH_BYTES_PER_SECOND: Final = 150_000_000
# What a larger number of connections must bring to be kept.
_GAIN: Final = 1.15
_SHORTEST_WINDOW_S: Final = 0.3
_LONGEST_WINDOW_S: Final = 2.0
# A new connection needs some round trips until it runs at full speed (RFC 9438, slow start).
_ROUND_TRIPS: Final = 6
_FIRST_REST_S: Final = 3.0
_LONGEST_REST_S: Final = 60.0


class Lanes:
    """Doubles the number of connections while that brings more, goes back when it does not, and tries again later.

    Args:
        fixed: Use this many, whatever they bring.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self.count = fixed or 1
        self._fixed = fixed is not None
        self._ceiling = MOST_LANES
        self._before = 0  # the number that has proved itself, while a larger one is tried
        self._rate_before = 0.0
        self._rest_s = _FIRST_REST_S
        self._rests_until = 0.0
        self._began: tuple[float, int] | None = None

    def observe(self, now: float, received_bytes: int, *, streaming: int, round_trip_s: float) -> None:
        """Look at what came, and decide anew now and then.

        Args:
            now: The time in seconds.
            received_bytes: All bytes that came so far.
            streaming: How many connections bring bytes now.
            round_trip_s: How long a connection waits for its first byte.
        """
        if self._fixed:
            return
        if self._began is None or streaming < self.count:
            self._began = (now, received_bytes) if streaming else None
            return
        began, bytes_then = self._began
        window_s = min(max(_SHORTEST_WINDOW_S, _ROUND_TRIPS * round_trip_s), _LONGEST_WINDOW_S)
        if now - began >= window_s:
            self._began = (now, received_bytes)
            self._decide(now, (received_bytes - bytes_then) / (now - began))

    def refused(self, streaming: int) -> None:
        """The server takes no more connections than those that bring bytes now."""
        if streaming and not self._fixed:
            self._ceiling = streaming
            self.count = min(self.count, streaming)
            self._before = 0

    def pause(self) -> None:
        """The transfer is not running at full speed for a reason of ours: what came meanwhile says nothing."""
        self._began = None

    def _decide(self, now: float, rate: float) -> None:
        if self._before and rate < _GAIN * self._rate_before:
            self.count, self._before = self._before, 0
            self._rests_until = now + self._rest_s
            self._rest_s = min(2 * self._rest_s, _LONGEST_REST_S)
            return
        if self._before:
            self._rest_s = _FIRST_REST_S
        self._before = 0
        if self.count < self._ceiling and now >= self._rests_until and rate < _ENOUGH_BYTES_PER_SECOND:
            self._before, self._rate_before = self.count, rate
            self.count = min(2 * self.count, self._ceiling)
