"""How transport words its failures. A URL is shown without its query, which may hold a signature."""

import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from overair.errors import HTTPStatusError, IntegrityError

REPUBLISH: Final = "check for an update again; if this repeats, the publisher must upload the file again"
_SHOWN_LENGTH: Final = 300
_LOGIN: Final = "the server wants a login, or the link has expired; check the URL, then ask the publisher"
_BUSY: Final = "the server is busy; run the same command again later: it continues where it stopped"
_HINTS: Final[Mapping[int, str]] = {
    401: _LOGIN,
    403: _LOGIN,
    404: "is the URL right, and has the publisher published?",
    410: "the publisher removed it; check for an update again",
    416: "the file on the server is shorter than expected; has it been replaced?",
    429: _BUSY,
    503: _BUSY,
}


class AnswerError(HTTPStatusError):
    """The server answered with another status than expected.

    Args:
        message: See `OverairError`.
        status: The HTTP status code.
        hint: See `OverairError`.
        retry_after_s: How long the server asks to wait, in seconds (RFC 9110 section 10.2.3).
    """

    def __init__(self, message: str, *, status: int, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, status=status, hint=hint)
        self.retry_after_s = retry_after_s


def shown(url: str) -> str:
    """The URL as messages and journals show it: without query, fragment and control characters, and not too long."""
    try:
        parts = urlsplit(url)
        plain = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        plain = url.split("?", 1)[0]
    return re.sub(r"[^\x21-\x7e]", "?", plain)[:_SHOWN_LENGTH]


def unexpected_status(url: str, status: int, retry_after: str | None) -> AnswerError:
    """The error for an answer with this status and this `Retry-After` header."""
    try:
        phrase = f" ({HTTPStatus(status).phrase})"
    except ValueError:
        phrase = ""
    return AnswerError(
        f"cannot fetch {shown(url)}: the server answered {status}{phrase}",
        status=status,
        hint=_HINTS.get(status, ""),
        retry_after_s=parse_retry_after(retry_after, now=time.time()),
    )


def parse_retry_after(text: str | None, *, now: float) -> float | None:
    """Read a `Retry-After` header, in seconds or as a date; `now` is seconds since 1970. Nonsense counts as none."""
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        date = parsedate_to_datetime(text[:64])
        return max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def refuse_another_file(url: str, *, total: int | None, content_type: str, size_bytes: int) -> None:
    """Refuse an answer whose length or type says that it is not the file that was promised.

    Raises:
        IntegrityError: It is not.
    """
    if total == size_bytes:
        return
    if content_type == "text/html":
        raise IntegrityError(
            f"cannot fetch {shown(url)}: a page of HTML came instead of the file (a login page?)",
            hint="is there a login page on this network, or a wrong URL? try again on another network",
        )
    if total is not None:
        raise IntegrityError(
            f"cannot fetch {shown(url)}: the server's file has {total} bytes, {size_bytes} were promised",
            hint=REPUBLISH,
        )
