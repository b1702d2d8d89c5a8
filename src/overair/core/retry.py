"""Whether to try again, and when: exponential backoff with full jitter."""

from typing import Final

from overair.errors import CancelledError, HTTPStatusError, NetworkError, OverairError

MAX_FAILURES: Final = 6
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
LONGEST_RETRY_AFTER_S: Final = 300.0

# Statuses that may be another at the next try (RFC 9110 section 15, RFC 6585, RFC 8470); so may all from 500 on.
_PASSING_STATUSES: Final = frozenset({408, 425, 429})


def worth_retrying(error: OverairError) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, HTTPStatusError):
        return error.status in _PASSING_STATUSES or error.status >= 500
    return isinstance(error, NetworkError) and error.retryable and not isinstance(error, CancelledError)


def pause_s(failures: int, chance: float, *, retry_after_s: float | None = None) -> float | None:
    """How long to wait before the next try, in seconds, or None to give up.

    Args:
        failures: How many tries in a row brought nothing, 1 or more.
        chance: A random number from 0 to 1, so that a fleet that was cut off together does not return together.
        retry_after_s: How long the server asked to wait.
    """
    if failures >= MAX_FAILURES:
        return None
    jittered = chance * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (failures - 1))
    return max(jittered, min(retry_after_s or 0.0, LONGEST_RETRY_AFTER_S))
