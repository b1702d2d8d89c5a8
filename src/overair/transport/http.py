"""The device's HTTP: GET with limits on length, time and redirects (RFC 9110).

Nothing here can hang: see `overair.transport.watch`. Bodies are taken as they are sent; one that was encoded on the
way is refused, because its digest could not fit.
"""

import contextlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urljoin, urlsplit

from overair.errors import IntegrityError, NetworkError, OverairError, UsageError
from overair.transport.failures import AnswerError, shown, unexpected_status
from overair.transport.watch import Answer, Watch

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

    from overair.transport.pool import Pools

MAX_REDIRECTS: Final = 5
MAX_URL_LENGTH: Final = 16_384
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_BLOCK_BYTES: Final = 64 * 1024
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/(?:([0-9]{1,18})|\*)")
_ETAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{0,256}"')
_NOT_IN_URLS: Final = re.compile(r"[\x00-\x20\x7f\\]")
_LOGIN_PAGE: Final = "is there a login page on this network? try again on another network"
_OTHER_HOST: Final = "is there a login page on this network? if not, the publisher has to name the new address"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A short body, whole: its bytes, its entity tag, and the URL that it came from after redirects."""

    data: bytes
    etag: str | None
    url: str


@dataclass(frozen=True, slots=True)
class NotModified:
    """The document still has the entity tag that the caller named."""


class Stream:
    """A body that is read as it comes; a context manager that closes the connection.

    Args:
        url: Where it comes from, after redirects.
        start: The offset of its first byte in the file; 0 when the server ignored the range.
        total: The length of the whole file in bytes, or None when the server did not say.
        stop: The offset after the last byte that comes, or None when the server did not say.
        etag: The strong entity tag of the file, or None.
        content_type: The media type, in lower case.
    """

    def __init__(
        self,
        answer: "BaseHTTPResponse",
        *,
        url: str,
        start: int,
        total: int | None,
        stop: int | None,
        etag: str | None,
        body: Answer,
    ) -> None:
        self._answer = answer
        self._body = body
        self.url = url
        self.start = start
        self.total = total
        self.stop = stop
        self.etag = etag
        self.content_type = answer.headers.get("Content-Type", "").split(";")[0].strip().lower()

    def read_into(self, buffer: memoryview) -> int:
        """Wait for bytes, put what came at the front of `buffer`, and return their number; 0 at the end.

        Raises:
            CancelledError: The caller stopped.
            NetworkError: The connection was cut, or the server is silent.
        """
        from overair.transport.pool import network_errors

        with network_errors(self.url):
            return self._body.receive_into(buffer)

    def close(self) -> None:
        """Close the connection if bytes are left, else keep it for the next request."""
        if self._body.isclosed():
            self._answer.release_conn()
        self._answer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class HTTP:
    """Gets documents and streams by HTTP; a context manager that closes its connections.

    Proxies come from HTTP_PROXY, HTTPS_PROXY and NO_PROXY. Credentials are never sent to a server.

    Args:
        connect_timeout_s: The longest that a connection may take, in seconds.
        read_timeout_s: The longest time without a byte, in seconds.
        user_agent: What the server is told who asks.
        ca_file: Certificate authorities to trust instead of the platform's, as PEM.
        cancel: Ends every wait when set.
    """

    def __init__(
        self,
        *,
        connect_timeout_s: float = 10.0,
        read_timeout_s: float = 15.0,
        user_agent: str = "overair",
        ca_file: Path | None = None,
        cancel: threading.Event | None = None,
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._headers = {"User-Agent": user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}
        self._ca_file = ca_file
        self._cancel = cancel
        self._opened_pools: Pools | None = None

    def get(
        self, url: str, *, max_bytes: int, etag: str | None = None, total_timeout_s: float = 60.0
    ) -> Document | NotModified:
        """Fetch a short document.

        Args:
            url: Where it is.
            max_bytes: The longest body that is read.
            etag: The entity tag of the copy that the caller has.
            total_timeout_s: The longest time for all of it, redirects included, in seconds.

        Raises:
            UsageError: The URL is not an http(s) URL without credentials.
            CancelledError: The caller stopped.
            HTTPStatusError: The answer has another status than 200, or 304 where `etag` was given.
            IntegrityError: The body is longer than `max_bytes`, or was encoded on the way.
            NetworkError: No whole answer came.
        """
        watch = Watch(shown(url), silence_s=self._read_timeout_s, total_s=total_timeout_s, cancel=[self._cancel])
        answer, final = self._answer(url, {"If-None-Match": etag} if etag else {}, watch)
        with contextlib.closing(answer):
            if answer.status == 304 and etag:
                return NotModified()
            if answer.status != 200:
                raise unexpected_status(final, answer.status, answer.headers.get("Retry-After"))
            _refuse_encoding(answer, final)
            return Document(data=_read_whole(answer, final, max_bytes), etag=_etag(answer), url=final)

    def open(
        self,
        url: str,
        *,
        start: int = 0,
        stop: int | None = None,
        if_range: str | None = None,
        cancel: threading.Event | None = None,
        buffer_bytes: int | None = None,
    ) -> Stream:
        """Begin to fetch a file, or a part of it if the server can (RFC 9110 section 14).

        Args:
            url: Where it is.
            start: The first byte that is wanted.
            stop: The byte after the last one that is wanted, or None for all to the end.
            if_range: The strong entity tag that the file must still have for the part to count.
            cancel: Ends every wait for this stream when set, `read_into` included.
            buffer_bytes: The most that the kernel takes in advance, or None to leave it to the kernel.

        Raises:
            UsageError: The URL is not an http(s) URL without credentials.
            CancelledError: The caller stopped.
            HTTPStatusError: The answer has another status than 200 or 206, or is another range than the one that was
                asked for (status 206), or of another file.
            IntegrityError: The body was encoded on the way.
            NetworkError: No answer came.
        """
        patience_s = self._connect_timeout_s + self._read_timeout_s
        watch = Watch(
            shown(url),
            silence_s=self._read_timeout_s,
            total_s=patience_s,
            cancel=[cancel, self._cancel],
            buffer_bytes=buffer_bytes,
        )
        asked = _Range(start, stop, if_range)
        answer, final = self._answer(url, asked.headers(), watch)
        try:
            stream = _stream(answer, final, asked, watch)
        except OverairError:
            answer.close()
            raise
        watch.no_deadline()
        return stream

    def close(self) -> None:
        """Close every connection that is not in use."""
        if self._opened_pools:
            self._opened_pools.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _pools(self) -> "Pools":
        if self._opened_pools is None:
            from overair.transport.pool import Pools

            self._opened_pools = Pools(connect_timeout_s=self._connect_timeout_s, ca_file=self._ca_file)
        return self._opened_pools

    def _answer(self, url: str, headers: Mapping[str, str], watch: Watch) -> "tuple[BaseHTTPResponse, str]":
        """The first answer that is no redirect, and its URL; the caller closes it."""
        check_url(url)
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._pools.get(url, {**self._headers, **headers}, watch)
            if answer.status not in _REDIRECTS:
                return answer, url
            with contextlib.closing(answer):
                url = _redirected(url, answer)
        raise NetworkError(
            f"cannot fetch {shown(url)}: more than {MAX_REDIRECTS} redirects",
            hint="is the URL right? open it in a browser to see where it leads",
        )


def resolve(base: str, reference: str) -> str:
    """The URL that a manifest at `base` means by `reference` (RFC 3986 section 5).

    Raises:
        UsageError: The result is not an http(s) URL without credentials.
    """
    url = urljoin(base, reference)
    check_url(url)
    return url


def check_url(url: str) -> None:
    """Refuse what is not an http(s) URL without credentials.

    Raises:
        UsageError: It is not one.
    """
    if not _is_web_url(url):
        raise UsageError(f"not an http(s) URL without credentials: {shown(url)}")


def _is_web_url(url: str) -> bool:
    if len(url) > MAX_URL_LENGTH or _NOT_IN_URLS.search(url):
        return False
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for a port that is none
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc


def _redirected(url: str, answer: "BaseHTTPResponse") -> str:
    """Where a redirect leads, if we may follow."""
    location = answer.headers.get("Location")
    if not location:
        raise unexpected_status(url, answer.status, None)
    target = urljoin(url, location.strip())
    leads = f"cannot fetch {shown(url)}: it redirects"
    if not _is_web_url(target):
        raise AnswerError(f"{leads} to {shown(target)}, which is refused", status=answer.status)
    if url.startswith("https:") and not target.startswith("https:"):
        raise AnswerError(
            f"{leads} from https to {shown(target)}, which is refused", status=answer.status, hint=_LOGIN_PAGE
        )
    # A manifest may name any host, a server may not: whoever controls one must not send its devices elsewhere.
    if urlsplit(target).hostname != urlsplit(url).hostname:
        raise AnswerError(
            f"{leads} to another host, to {shown(target)}, which is refused", status=answer.status, hint=_OTHER_HOST
        )
    return target


@dataclass(frozen=True, slots=True)
class _Range:
    """The part of a file that is asked for, and the entity tag that the file must have for it."""

    start: int
    stop: int | None
    if_range: str | None

    def headers(self) -> dict[str, str]:
        if not self.start and self.stop is None:
            return {}
        last = "" if self.stop is None else self.stop - 1
        tag = {"If-Range": self.if_range} if self.if_range else {}
        return {"Range": f"bytes={self.start}-{last}", **tag}

    def is_in(self, content_range: re.Match[str] | None, etag: str | None) -> bool:
        """Whether an answer has bytes of this part, of this file, and no others."""
        if content_range is None or not self.headers() or int(content_range[1]) != self.start:
            return False
        last = int(content_range[2])
        fits = last >= self.start and (self.stop is None or last < self.stop)
        return fits and (self.if_range is None or etag in {None, self.if_range})


def _stream(answer: "BaseHTTPResponse", url: str, asked: _Range, watch: Watch) -> Stream:
    etag = _etag(answer)
    strong = None if etag is None or etag.startswith("W/") else etag
    if answer.status not in {200, 206} or watch.answer is None:
        raise unexpected_status(url, answer.status, answer.headers.get("Retry-After"))
    _refuse_encoding(answer, url)
    start, stop, total = 0, answer.length_remaining, answer.length_remaining
    if answer.status == 206:
        content_range = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        if content_range is None or not asked.is_in(content_range, etag):
            raise unexpected_status(url, 206, None)
        start, stop = asked.start, int(content_range[2]) + 1
        total = int(content_range[3]) if content_range[3] else None
    return Stream(answer, url=url, start=start, total=total, stop=stop, etag=strong, body=watch.answer)


def _etag(answer: "BaseHTTPResponse") -> str | None:
    etag = answer.headers.get("ETag", "").strip()
    return etag if _ETAG.fullmatch(etag) else None


def _refuse_encoding(answer: "BaseHTTPResponse", url: str) -> None:
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise IntegrityError(
            f"cannot fetch {shown(url)}: a proxy or the server changed the bytes (Content-Encoding {encoding[:40]})",
            hint="switch compression off for this path on the server or its CDN",
        )


def _read_whole(answer: "BaseHTTPResponse", url: str, max_bytes: int) -> bytes:
    too_long = IntegrityError(
        f"cannot fetch {shown(url)}: longer than {max_bytes} bytes", hint="is the URL right? this is another file"
    )
    if (answer.length_remaining or 0) > max_bytes:
        raise too_long
    body = bytearray()
    while data := _read(answer, url, _BLOCK_BYTES):
        body += data
        if len(body) > max_bytes:
            raise too_long
    return bytes(body)


def _read(answer: "BaseHTTPResponse", url: str, max_bytes: int) -> bytes:
    from overair.transport.pool import network_errors

    with network_errors(url):
        return answer.read1(max_bytes)
