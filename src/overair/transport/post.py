"""Send a small document to a server, once, and say whether the server took it.

A download may be asked for again; a report may not, or it would count twice. So what matters here is the moment after
which nobody can tell: before the first byte of the request is sent nothing has been taken, and after it only the
server's answer says so.
"""

import base64
import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from overair.transport.failures import parse_retry_after

CONNECT_TIMEOUT_S: Final = 5.0
SILENCE_S: Final = 10.0
TOTAL_S: Final = 20.0


class Taken(Enum):
    """Whether a server took what it was sent."""

    YES = "yes"
    NO = "no"
    UNSURE = "unsure"


class Receipt(NamedTuple):
    """What came of it, why, and how long the server asks to wait, in seconds."""

    taken: Taken
    why: str = ""
    retry_after_s: float | None = None


def post(url: str, body: bytes, *, headers: Mapping[str, str], ca_file: Path | None = None) -> Receipt:
    """Send `body` to an http(s) URL. No redirect is followed, and nothing of the answer but its head is read.

    Args:
        url: Where to.
        body: What; not much, it is sent at once.
        headers: More headers, `Content-Type` among them.
        ca_file: Certificate authorities to trust instead of the platform's, as PEM.
    """
    connection: http.client.HTTPConnection | None = None
    try:
        connection, target, more = _prepared(urlsplit(url), ca_file)
        connection.connect()
    except (OSError, http.client.HTTPException, ValueError) as error:
        if connection is not None:
            connection.close()
        return Receipt(Taken.NO, f"no connection: {error!r}")
    try:
        with _deadline(connection):
            connection.request("POST", target, body, {**headers, **more})
            answer = connection.getresponse()
            return _receipt(answer.status, answer.headers.get("Retry-After"))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Receipt(Taken.UNSURE, f"no answer: {error!r}")
    finally:
        connection.close()


def _receipt(status: int, retry_after: str | None) -> Receipt:
    """What a status says (RFC 9110 section 15); an error of the server's own may have come after it took it."""
    why = f"the server answered {status}"
    if status // 100 == 2:
        return Receipt(Taken.YES, why)
    if status // 100 == 5 and status != http.client.SERVICE_UNAVAILABLE:
        return Receipt(Taken.UNSURE, why)
    return Receipt(Taken.NO, why, parse_retry_after(retry_after, now=time.time()))


@contextlib.contextmanager
def _deadline(connection: http.client.HTTPConnection) -> Iterator[None]:
    """Cut the connection when all of it takes too long: a socket's own timeout starts anew with every byte."""
    sock = connection.sock
    sock.settimeout(SILENCE_S)

    def cut() -> None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(TOTAL_S, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _prepared(parts: SplitResult, ca_file: Path | None) -> tuple[http.client.HTTPConnection, str, Mapping[str, str]]:
    """A connection, by the proxy of the environment if it names one, what to ask it for, and headers for the proxy."""
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host, proxy = parts.hostname or "", _proxy_for(parts)
    authorization = _authorization(proxy) if proxy is not None else {}
    at = (host, parts.port) if proxy is None else (proxy.hostname or "", proxy.port)
    if parts.scheme == "http":
        plain = http.client.HTTPConnection(at[0], at[1], timeout=CONNECT_TIMEOUT_S)
        return plain, target if proxy is None else f"http://{parts.netloc}{target}", authorization
    context = ssl.create_default_context(cafile=ca_file)
    secure = http.client.HTTPSConnection(at[0], at[1], timeout=CONNECT_TIMEOUT_S, context=context)
    if proxy is not None:
        secure.set_tunnel(host, parts.port or http.client.HTTPS_PORT, dict(authorization))
    return secure, target, {}


def _proxy_for(parts: SplitResult) -> SplitResult | None:
    proxy = getproxies().get(parts.scheme)
    if not proxy or proxy_bypass(parts.netloc):
        return None
    return urlsplit(proxy if "://" in proxy else f"http://{proxy}")


def _authorization(proxy: SplitResult) -> Mapping[str, str]:
    if proxy.username is None:
        return {}
    secret = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(secret).decode()}"}
