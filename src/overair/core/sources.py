"""Which of several places a connection fetches from, and when one of them is given up."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from overair.core import retry
from overair.errors import HTTPStatusError, IntegrityError, NetworkError, OverairError

# Statuses by which a server says that this URL leads nowhere, now or any more: another manifest may name a better one.
LOST_STATUSES: Final = frozenset({401, 403, 404, 410})
# So many bytes are progress; less may be the start of a page that says why there is none.
PROGRESS_BYTES: Final = 1024
_MAX_EDITIONS: Final = 3


@dataclass(slots=True, kw_only=True)
class Source:
    """One place, and what is known of it.

    Args:
        url: Where the file is.
        etag: The strong entity tag that its file had when it was last seen.
        edition: Counts the files that were seen there, 1 for the first.
        has_ranges: It sends the part that is asked for.
        lanes: How many connections fetch from it.
        brought: Bytes that it brought since the last failure that counts.
        failures: How often in a row it brought nothing.
        failed_at: When it last failed, in seconds.
        rests_until: When it is asked again.
        error: Why it failed last.
        is_out: It is not asked again.
        wrong: How many chunks from here were refused.
    """

    url: str
    etag: str | None = None
    edition: int = 1
    has_ranges: bool = True
    lanes: int = 0
    brought: int = 0
    failures: int = 0
    failed_at: float = 0.0
    rests_until: float = 0.0
    error: OverairError | None = None
    is_out: bool = False
    wrong: int = 0

    @property
    def is_given_up(self) -> bool:
        """Not even what it is sending now is of use; one wrong chunk alone may be an accident."""
        return self.is_out and self.wrong > 1


class Sources:
    """The places that have one file.

    Args:
        urls: Where it is; the first is preferred.
    """

    def __init__(self, urls: Iterable[str]) -> None:
        self._all = [Source(url=url) for url in dict.fromkeys(urls)]

    def pick(self, now: float) -> Source | None:
        """The place that the next connection asks, or None when all rest or are busy."""
        free = [s for s in self._in_use() if now >= s.rests_until and (s.has_ranges or not s.lanes)]
        return min(free, key=lambda source: source.lanes, default=None)

    def others(self, source: Source) -> bool:
        """Whether there is another place to ask."""
        return any(other is not source for other in self._in_use())

    def at(self, url: str) -> Source:
        """The place with this URL."""
        return next(source for source in self._all if source.url == url)

    def brought(self, source: Source, count: int) -> None:
        """It brought bytes that were missing."""
        source.brought += count
        if source.brought >= PROGRESS_BYTES:
            source.failures = source.brought = 0

    def saw(self, source: Source, etag: str | None) -> bool:
        """Note the entity tag of an answer; returns whether the file there is another than before.

        A place that shows another tag at every request, as some clusters do, is not asked to keep one any more.
        """
        if source.edition > _MAX_EDITIONS:
            return False
        changed = source.etag is not None and etag != source.etag
        source.edition += changed
        source.etag = etag if source.edition <= _MAX_EDITIONS else None
        return changed

    def failed(
        self, source: Source, error: OverairError, *, asked_at: float, now: float, chance: float, works: bool
    ) -> None:
        """A connection ended without the bytes that it was to bring.

        Args:
            source: Where it led.
            error: Why it ended.
            asked_at: When it was opened: connections that were cut off together count once.
            now: The time, in seconds.
            chance: A random number from 0 to 1.
            works: Other connections to it bring bytes.
        """
        source.error = error
        if not retry.worth_retrying(error) and not works:
            source.is_out = True
        elif not source.failures or asked_at >= source.failed_at:
            source.failures += 1
            source.failed_at = now
            pause_s = retry.pause_s(source.failures, chance, retry_after_s=getattr(error, "retry_after_s", None))
            source.rests_until = now + (retry.LONGEST_PAUSE_S if pause_s is None else pause_s)

    def put_out(self, source: Source, error: OverairError) -> None:
        """Never ask this place again."""
        source.is_out, source.error = True, error

    def why_none_is_left(self) -> OverairError | None:
        """The error to give up with, or None while there is hope.

        That somebody has wrong bytes says more than that a link has expired, and that more than silence.
        """
        if any(source.failures < retry.MAX_FAILURES for source in self._in_use()):
            return None
        errors = [source.error for source in self._all if source.error is not None]
        for kind in (IntegrityError, HTTPStatusError, NetworkError):
            for error in errors:
                if isinstance(error, kind):
                    return error
        return errors[0] if errors else NetworkError("there is no place to fetch from")

    def _in_use(self) -> list[Source]:
        return [source for source in self._all if not source.is_out]
