"""The only module that knows urllib3. Importing it costs a tenth of a second, so it is imported when first needed."""

import contextlib
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager, Timeout
from urllib3 import exceptions as foreign
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import make_headers

from overair.errors import NetworkError
from overair.transport.failures import shown
from overair.transport.watch import SLICE_S, Watch, abandonable, watching

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# The buffer for heads. A body's first bytes may lie in it; longer reads go past it.
_HEAD_BYTES: Final = 8 * 1024
# Connections to one server that are kept for later: as many as a download uses.
_KEPT: Final = 8
_TLS_HINT: Final = "is this machine's clock right? does a proxy or a login page of this network answer instead?"


class _WatchedSocket(io.RawIOBase):
    """What a response reads from: a socket that asks the watch between slices of waiting.

    `socket.makefile` cannot do this: after one timeout such a file refuses every further read.
    """

    def __init__(self, sock: socket.socket, file: io.RawIOBase, watch: Watch) -> None:
        self._socket = sock
        self._file = file  # keeps the descriptor open when http.client closes the socket before the body is read
        self._watch = watch
        sock.settimeout(SLICE_S)  # until the next request on this connection sets its own

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        waiting_since = time.monotonic()
        while True:
            self._watch.check(waiting_since)
            with contextlib.suppress(TimeoutError):
                return self._fill(memoryview(buffer).cast("B"))

    def _fill(self, buffer: memoryview) -> int:
        """Take what comes; into a long buffer, as much as comes within a slice.

        TLS hands over 16 KiB at a time and a socket what happens to be there: few long writes cost less than many.
        """
        receive = self._socket.recv_into
        filled = receive(buffer)
        if not filled or len(buffer) <= _HEAD_BYTES:
            return filled
        until = time.monotonic() + SLICE_S
        with contextlib.suppress(TimeoutError):
            while filled < len(buffer) and (count := receive(buffer[filled:])):
                filled += count
                if time.monotonic() > until:
                    break
        return filled

    def close(self) -> None:
        self._file.close()
        super().close()


class _Reader(io.BufferedReader):
    """Hands over what one read of the socket brings, where the standard one waits until the buffer is full."""

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        return self.readinto1(buffer)


class _WatchedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        watch = watching.get()
        self.fp = _Reader(_WatchedSocket(sock, self.fp.detach(), watch), _HEAD_BYTES)
        watch.answer = self

    def receive_into(self, buffer: memoryview) -> int:
        """Take bytes of the body without the copies that urllib3 makes; returns their number, 0 at the end."""
        if self.chunked:
            data = self.read1(len(buffer))
            buffer[: len(data)] = data
            return len(data)
        count = self.readinto(buffer)
        if not count and self.length:
            raise http.client.IncompleteRead(b"", self.length)
        return count


def _limit_buffer(connection: HTTPConnection) -> None:
    """Before it connects: a window that was offered is not taken back."""
    size_bytes = watching.get().buffer_bytes
    if size_bytes is not None:
        option = (socket.SOL_SOCKET, socket.SO_RCVBUF, size_bytes)
        connection.socket_options = [*(connection.socket_options or ()), option]


class _Connection(HTTPConnection):
    response_class = _WatchedResponse

    def connect(self) -> None:
        _limit_buffer(self)
        super().connect()


class _SecureConnection(HTTPSConnection):
    response_class = _WatchedResponse

    def connect(self) -> None:
        _limit_buffer(self)
        super().connect()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class Pools:
    """Connections, one pool for each proxy of the environment and one for none.

    Args:
        connect_timeout_s: The longest that a connection to one address may take, in seconds.
        ca_file: Certificate authorities to trust instead of the platform's, as PEM.
    """

    def __init__(self, *, connect_timeout_s: float, ca_file: Path | None) -> None:
        self._timeout = Timeout(connect=connect_timeout_s, read=connect_timeout_s)
        self._ca_file = str(ca_file) if ca_file else None
        self._managers: dict[str | None, PoolManager] = {}
        self._making = threading.Lock()

    def get(self, url: str, headers: Mapping[str, str], watch: Watch) -> BaseHTTPResponse:
        """Send one GET and return the answer with its body still to come, as it is: no redirect, no decoding.

        Raises:
            CancelledError: The caller stopped.
            NetworkError: No answer came.
        """

        def ask() -> BaseHTTPResponse:
            return self._manager(url).request(
                "GET",
                url,
                headers=headers,
                timeout=self._timeout,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )

        def ask_or_close() -> BaseHTTPResponse:
            try:
                return ask()
            except Exception:
                # urllib3 closes its connection, but not what http.client reads a head from that cannot be understood.
                if watch.answer:
                    watch.answer.close()
                raise

        with network_errors(url):
            return abandonable(ask_or_close, watch, discard=BaseHTTPResponse.close)

    def close(self) -> None:
        """Close every connection that is not in use."""
        for manager in self._managers.values():
            manager.clear()

    def _manager(self, url: str) -> PoolManager:
        proxy = _proxy_for(url)
        with self._making:
            if proxy not in self._managers:
                self._managers[proxy] = self._new_manager(proxy)
            return self._managers[proxy]

    def _new_manager(self, proxy: str | None) -> PoolManager:
        manager: PoolManager
        if proxy is None:
            manager = PoolManager(maxsize=_KEPT, ca_certs=self._ca_file)
        else:
            manager = ProxyManager(proxy, maxsize=_KEPT, proxy_headers=_proxy_headers(proxy), ca_certs=self._ca_file)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        return manager


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names for this URL."""
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(proxy).scheme.lower() not in {"http", "https"}:
        raise NetworkError(
            f"cannot fetch {shown(url)}: the proxy {shown(proxy)} is neither http nor https",
            hint="set HTTPS_PROXY to an http:// or https:// proxy, or NO_PROXY to the name of the server",
        )
    return proxy


def _proxy_headers(proxy: str) -> Mapping[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    return make_headers(proxy_basic_auth=f"{unquote(parts.username)}:{unquote(parts.password or '')}")


@contextlib.contextmanager
def network_errors(url: str) -> Iterator[None]:
    """Turn every failure of the network in the block into a `NetworkError` of one line.

    Raises:
        NetworkError: The network, the server or its certificate failed.
    """
    try:
        yield
    except (foreign.HTTPError, http.client.HTTPException, OSError, UnicodeError) as error:
        why, hint = _explain(error)
        raise NetworkError(f"cannot fetch {shown(url)}: {why}", hint=hint) from error


def _explain(error: BaseException) -> tuple[str, str]:
    """Why, in words, and what to do about it."""
    if isinstance(error, foreign.ProxyError):
        why, hint = _explain(error.original_error)
        return f"the proxy failed: {why}", hint or "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY"
    if isinstance(error, foreign.NameResolutionError):
        return "the name of the server is not known", "is this machine online, and is the URL right?"
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the server's certificate is not valid: {cause.verify_message}", _TLS_HINT
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {(cause.reason or 'unknown reason').replace('_', ' ').lower()}", _TLS_HINT
    return _explain_connection(causes), ""


def _explain_connection(causes: list[BaseException]) -> str:
    for cause in causes:
        if isinstance(cause, foreign.NewConnectionError | ConnectionRefusedError):
            return f"no connection: {_system_words(causes)}"
        if isinstance(cause, TimeoutError | foreign.ConnectTimeoutError):
            return "no connection in time"
        if isinstance(cause, http.client.RemoteDisconnected):
            return "the server closed the connection without an answer"
        if isinstance(cause, http.client.IncompleteRead | ConnectionError):
            return "the connection was cut"
    if any(isinstance(cause, http.client.HTTPException | foreign.InvalidHeader) for cause in causes):
        return "the answer is not valid HTTP"
    return _system_words(causes)


def _system_words(causes: list[BaseException]) -> str:
    words = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
    return words[0].lower() if words else type(causes[0]).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
