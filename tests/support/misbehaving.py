"""A real HTTP server on loopback that serves a folder, and misbehaves where a test says so.

    with MisbehavingServer(folder) as server:
        server.faults["/model.gguf"] = CutAt(1000)                 # at every request
        server.faults["/model.gguf"] = [Status(503), NoETag()]     # one a request, then none
        ...
        assert server.bytes_served("/model.gguf") < 2000

Without a fault it knows ranges, `If-Range`, strong entity tags and `If-None-Match`, and keeps connections open.
It also stands in for a proxy: absolute request targets are served from the folder, CONNECT is relayed.
"""

import contextlib
import gzip
import hashlib
import itertools
import os
import re
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from support.certificates import write_certificate

BLOCK = 64 * 1024


@dataclass(frozen=True)
class Request:
    """What came: the target as sent, the path without query, the headers with lower-case names."""

    target: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What goes out: a head, the body's bytes, and what happens after them."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    start: int = 0
    then: "Callable[[Wire], None] | None" = None

    def with_headers(self, **changes: str | None) -> "Answer":
        """The same answer with headers replaced, or removed by None; `_` in a name stands for `-`."""
        headers = dict(self.headers)
        for name, value in changes.items():
            headers.pop(name.replace("_", "-"), None)
            if value is not None:
                headers[name.replace("_", "-")] = value
        return replace(self, headers=headers)


class Fault:
    """A way to misbehave; this one does not."""

    def see(self, request: Request) -> Request:
        """What the server understands of a request."""
        return request

    def change(self, answer: Answer) -> Answer:
        """What becomes of the right answer."""
        return answer


@dataclass(frozen=True)
class CutAt(Fault):
    """Close the connection when the file's byte at this position is next."""

    position: int
    reset: bool = False

    def change(self, answer: Answer) -> Answer:
        if answer.start >= self.position:
            return answer
        return replace(
            answer, body=answer.body[: self.position - answer.start], then=Wire.reset if self.reset else Wire.cut
        )


@dataclass(frozen=True)
class StallAt(Fault):
    """Send nothing more when the file's byte at this position is next, until the test says `go_on`."""

    position: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def change(self, answer: Answer) -> Answer:
        keep = max(0, self.position - answer.start)
        if keep > len(answer.body):
            return answer
        rest = answer.body[keep:]

        def then(wire: Wire) -> None:
            self.reached.set()
            if wire.wait_for(self.go_on):
                wire.send(rest)

        return replace(answer, body=answer.body[:keep], then=then)


class NeverAnswer(Fault):
    """Take the request and stay silent."""

    def change(self, answer: Answer) -> Answer:
        return replace(answer, status=0, headers={}, body=b"", then=Wire.wait_for_the_end)


@dataclass(frozen=True)
class Trickle(Fault):
    """Send the body in pieces of so many bytes, this many seconds apart."""

    piece: int = 1
    seconds: float = 0.005

    def change(self, answer: Answer) -> Answer:
        def then(wire: Wire) -> None:
            for at in range(0, len(answer.body), self.piece):
                if wire.ended.wait(self.seconds):
                    return
                wire.send(answer.body[at : at + self.piece])

        return replace(answer, body=b"", then=then)


@dataclass(frozen=True)
class Status(Fault):
    """Answer with another status."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"no"

    def change(self, answer: Answer) -> Answer:
        headers = {"Content-Length": str(len(self.body)), **self.headers}
        return replace(answer, status=self.code, headers=headers, body=self.body)


class Redirect(Status):
    """Send the client elsewhere."""

    def __init__(self, location: str, code: int = 302) -> None:
        super().__init__(code, {"Location": location})


@dataclass(frozen=True)
class Page(Fault):
    """Answer 200 with another body, as a login page does."""

    body: bytes = b"<html><body>Please log in</body></html>"
    content_type: str = "text/html; charset=utf-8"

    def change(self, answer: Answer) -> Answer:
        headers = {"Content-Type": self.content_type, "Content-Length": str(len(self.body))}
        return replace(answer, status=200, headers=headers, body=self.body, start=0)


class IgnoreRange(Fault):
    """Send the whole file, whatever part was asked for."""

    def see(self, request: Request) -> Request:
        return replace(request, headers={k: v for k, v in request.headers.items() if k != "range"})


class IgnoreIfRange(Fault):
    """Send the part that was asked for, even of a file that has changed."""

    def see(self, request: Request) -> Request:
        return replace(request, headers={k: v for k, v in request.headers.items() if k != "if-range"})


@dataclass(frozen=True)
class Headers(Fault):
    """Replace headers of the right answer, or remove them by None: `Headers({"ETag": None})`."""

    changes: Mapping[str, str | None]

    def change(self, answer: Answer) -> Answer:
        return answer.with_headers(**{k.replace("-", "_"): v for k, v in self.changes.items()})


class NoETag(Headers):
    """Leave the entity tag out."""

    def __init__(self) -> None:
        super().__init__({"ETag": None})


@dataclass(frozen=True)
class WrongContentRange(Fault):
    """Answer a range with another range."""

    shift: int = 1

    def change(self, answer: Answer) -> Answer:
        if answer.status != 206:
            return answer
        shifted = re.sub(r"(\d+)-", lambda m: f"{int(m[1]) + self.shift}-", answer.headers["Content-Range"], count=1)
        return answer.with_headers(Content_Range=shifted)


@dataclass(frozen=True)
class FlipByte(Fault):
    """Change one byte of the file on the way."""

    position: int

    def change(self, answer: Answer) -> Answer:
        body = bytearray(answer.body)
        if 0 <= self.position - answer.start < len(body):
            body[self.position - answer.start] ^= 0xFF
        return replace(answer, body=bytes(body))


class Gzip(Fault):
    """Compress the body, though nobody asked."""

    def change(self, answer: Answer) -> Answer:
        body = gzip.compress(answer.body)
        return replace(answer, body=body).with_headers(Content_Encoding="gzip", Content_Length=str(len(body)))


class EndlessBody(Fault):
    """Do not say how long the body is, and never end it."""

    def change(self, answer: Answer) -> Answer:
        return replace(answer, then=lambda wire: wire.send_for_ever(b"x" * BLOCK)).with_headers(
            Content_Length=None, Connection="close"
        )


class EndlessHeaders(Fault):
    """Never end the head."""

    def change(self, answer: Answer) -> Answer:
        def then(wire: Wire) -> None:
            wire.send_uncounted(b"HTTP/1.1 200 OK\r\n")
            wire.send_for_ever(b"X-More: " + b"x" * 1000 + b"\r\n")

        return replace(answer, status=0, headers={}, body=b"", then=then)


class EndlessContinue(Fault):
    """Say "100 Continue" for ever."""

    def change(self, answer: Answer) -> Answer:
        return replace(
            answer,
            status=0,
            headers={},
            body=b"",
            then=lambda wire: wire.send_for_ever(b"HTTP/1.1 100 Continue\r\n\r\n"),
        )


@dataclass(frozen=True)
class Raw(Fault):
    """Send these bytes as the whole answer and close."""

    data: bytes

    def change(self, answer: Answer) -> Answer:
        def then(wire: Wire) -> None:
            wire.send_uncounted(self.data)
            wire.cut()

        return replace(answer, status=0, headers={}, body=b"", then=then)


class Wire:
    """The connection of one request, as faults use it."""

    def __init__(self, sock: socket.socket, ended: threading.Event, count: Callable[[int], None]) -> None:
        self._socket = sock
        self.ended = ended
        self._count = count
        self.open = True

    def send(self, data: bytes) -> None:
        """Send bytes of the body. They are counted first, so that a client that has them finds them counted."""
        for at in range(0, len(data), BLOCK):
            block = data[at : at + BLOCK]
            self._count(len(block))
            self._socket.sendall(block)

    def send_uncounted(self, data: bytes) -> None:
        """Send bytes of the head."""
        self._socket.sendall(data)

    def send_for_ever(self, data: bytes) -> None:
        """Send until the client hangs up or the test ends."""
        while not self.ended.is_set():
            self.send(data)

    def wait_for(self, event: threading.Event) -> bool:
        """Wait for an event of the test; False when the client hung up or the test ended first."""
        while not self.ended.wait(0.01):
            if event.is_set():
                return True
        return False

    def wait_for_the_end(self) -> None:
        """Wait until the test ends."""
        self.ended.wait()
        self.open = False

    def cut(self) -> None:
        """Close; what was sent arrives."""
        self.open = False

    def reset(self) -> None:
        """Close with a reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self._socket.detach())  # the handler's own files would keep a mere close waiting
        self.open = False


class MisbehavingServer:
    """The server; a context manager.

    Args:
        folder: What to serve. Files may change while it runs.
        tls: Serve https, with a certificate that `ca_file` vouches for.
    """

    def __init__(self, folder: Path, *, tls: bool = False) -> None:
        self.folder = folder
        self.faults: dict[str, Fault | Sequence[Fault]] = {}
        self.ended = threading.Event()
        self._requests: list[Request] = []
        self._served: dict[str, int] = {}
        self._counting = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler_for(self))
        self.port: int = self._server.server_address[1]
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.ca_file: Path | None = None
        self._certificates = contextlib.ExitStack()
        if tls:
            self.ca_file = self._certificates.enter_context(write_certificate())
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.ca_file)
            # The handshake waits for the connection's own thread: a silent client must not stop the others.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="misbehaving"
        )

    def requests(self, path: str | None = None) -> list[Request]:
        """The requests so far, to one path or to all."""
        with self._counting:
            return [request for request in self._requests if path in {None, request.path}]

    @property
    def connections(self) -> int:
        """How many connections were opened."""
        return self._server.opened

    def bytes_served(self, path: str) -> int:
        """How many bytes of bodies were sent for this path, over all requests."""
        with self._counting:
            return self._served.get(path, 0)

    def forget(self) -> None:
        """Set all counts to zero."""
        with self._counting:
            self._requests.clear()
            self._served.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()
        self._certificates.close()

    def count(self, path: str, number: int) -> None:
        """Add to the bytes served."""
        with self._counting:
            self._served[path] = self._served.get(path, 0) + number

    def note(self, request: Request) -> Fault:
        """Remember a request; returns the fault that it meets."""
        with self._counting:
            self._requests.append(request)
            fault = self.faults.get(request.path, Fault())
            if isinstance(fault, Fault):
                return fault
            self.faults[request.path] = fault[1:]
            return fault[0] if fault else Fault()

    def answer(self, request: Request) -> Answer:
        """The right answer (RFC 9110 sections 13 to 15)."""
        file = self.folder / request.path.lstrip("/")
        if ".." in request.path or not file.is_file():
            return Answer(404, {"Content-Length": "9"}, b"not found")
        data = file.read_bytes()
        etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if request.headers.get("if-none-match") == etag:
            return Answer(304, {"ETag": etag})
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if asked is None or request.headers.get("if-range", etag) != etag:
            return Answer(200, {**headers, "Content-Length": str(len(data))}, data)
        start, end = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
        if start > end:
            return Answer(416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"})
        part = data[start : end + 1]
        headers |= {"Content-Range": f"bytes {start}-{end}/{len(data)}", "Content-Length": str(len(part))}
        return Answer(206, headers, part, start=start)


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.opened = 0
        self._open: set[socket.socket] = set()
        self._opening = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._opening:
            self._open.add(request)
            self.opened += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._opening:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Wake every thread that waits for its client."""
        with self._opening:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what these tests are about."""


def _handler_for(server: MisbehavingServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            request = Request(self.path, path, {k.lower(): v for k, v in self.headers.items()})
            fault = server.note(request)
            answer = fault.change(server.answer(fault.see(request)))
            wire = Wire(self.connection, server.ended, lambda number: server.count(path, number))
            if answer.status:
                wire.send_uncounted(_head(answer))
            wire.send(answer.body)
            if answer.then:
                answer.then(wire)
            self.close_connection = not wire.open or "close" in (
                answer.headers.get("Connection", "").lower(),
                request.headers.get("connection", "").lower(),
            )

        def do_CONNECT(self) -> None:
            server.note(Request(self.path, self.path, {k.lower(): v for k, v in self.headers.items()}))
            host, _, port = self.path.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=10) as upstream:
                self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _relay(self.connection, upstream, server.ended)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            pass

    return Handler


def _head(answer: Answer) -> bytes:
    lines = itertools.chain(
        [f"HTTP/1.1 {answer.status} Whatever"], (f"{name}: {value}" for name, value in answer.headers.items())
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _relay(left: socket.socket, right: socket.socket, ended: threading.Event) -> None:
    while not ended.is_set():
        for source in _readable(left, right):
            data = source.recv(BLOCK)
            if not data:
                return
            (right if source is left else left).sendall(data)


def _readable(*sockets: socket.socket) -> Iterator[socket.socket]:
    yield from select.select(sockets, [], [], 0.02)[0]
