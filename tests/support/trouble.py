"""A small HTTP server on loopback that many connections may ask at once, and that is troublesome on demand.

    with TroubleServer({"/model.gguf": data}) as server:
        server.cuts["/model.gguf"] = {4096, 8192}                                    # each once, whoever gets there
        server.trouble["/model.gguf"] = Trouble(stall_at=1000)                       # at every request
        server.trouble["/model.gguf"] = in_turn(Trouble(status=503))                 # one a request, then none
        server.trouble["/model.gguf"] = lambda ask: Trouble() if ask.start else None   # as the request is
        ...
        assert server.bytes_sent("/model.gguf") < 2 * len(data)

Without trouble it knows ranges, `If-Range`, strong entity tags and `If-None-Match`, and keeps connections open. All its
connections are served by one thread; offsets are those of the file, not of the answer.
"""

import asyncio
import contextlib
import functools
import hashlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from support.certificates import write_certificate

PIECE = 16 * 1024
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(frozen=True)
class Ask:
    """What came: the target as sent, the path without query, the first byte wanted, the headers in lower case."""

    target: str
    path: str
    start: int
    headers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What is other than it should be in an answer.

    Args:
        status: The status.
        headers: Headers to replace, or to leave out where the value is None.
        body: The whole body; `Content-Length` fits it.
        no_ranges: The whole file comes, whatever part was asked for.
        blind: The part comes that was asked for, even of a file that has changed.
        cut_at: The connection is closed when this byte of the file is next.
        stall_at: Nothing more is sent when this byte of the file is next.
        bytes_per_second: No faster than this, on each connection.
        flips: Bytes of the file that are changed on the way.
        lacking: So many bytes are missing at the end of what was promised.
        extra: Sent after the body.
        then: Called before the first byte of the body is sent.
    """

    status: int | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    no_ranges: bool = False
    blind: bool = False
    cut_at: int | None = None
    stall_at: int | None = None
    bytes_per_second: float | None = None
    flips: frozenset[int] = frozenset()
    lacking: int = 0
    extra: bytes = b""
    then: Callable[[], object] | None = None


NONE = Trouble()
Choose = Callable[[Ask], Trouble | None]


def in_turn(*troubles: Trouble | None) -> Choose:
    """One a request, in the order in which they come; none for those that follow."""
    left = list(troubles)
    return lambda _: left.pop(0) if left else None


@dataclass(frozen=True)
class _Answer:
    """A head, and which bytes of what follow it."""

    status: int
    headers: dict[str, str | None]
    data: bytes
    start: int
    stop: int


class _Loop:
    """Serves connections from a thread of its own; a context manager."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="trouble")
        self._server: asyncio.Server | None = None
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def hang_up(self) -> None:
        """Stop listening and drop every connection, as a server that dies."""
        self._run(self._stop())

    def drop(self) -> None:
        """Drop every connection and go on listening, as a router that starts anew."""
        self._run(self._drop())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _start(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        # What waits in this kernel is not on its way: with its own choice, megabytes would count as sent.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
        self.port = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._connected, sock=listener, ssl=self._context)

    async def _stop(self) -> None:
        if self._server:
            self._server.close()
        await asyncio.sleep(0)  # connections that were accepted a moment ago have a task now
        await self._drop()
        await asyncio.sleep(0.01)  # sockets are closed a turn of the loop later

    async def _drop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        # Clients that hang up, and the end of a test, are nothing to report.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self.serve(reader, writer)
        writer.transport.abort()
        self._tasks.discard(task)


class TroubleServer(_Loop):
    """The server; a context manager.

    Args:
        files: What to serve, by path; may change while it runs.
        tls: Serve https, with a certificate that `ca_file` vouches for.
    """

    def __init__(self, files: Mapping[str, bytes], *, tls: bool = False) -> None:
        self._certificates = contextlib.ExitStack()
        self.ca_file = self._certificates.enter_context(write_certificate()) if tls else None
        context = None
        if self.ca_file:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.ca_file)
        super().__init__(context)
        self.files = dict(files)
        self.trouble: dict[str, Trouble | Choose] = {}
        self.cuts: dict[str, set[int]] = {}
        self.asked: list[Ask] = []
        self.sent: list[tuple[float, str, int]] = []
        self.connections = 0
        self.most_connections = 0

    @property
    def url(self) -> str:
        return f"{'https' if self.ca_file else 'http'}://127.0.0.1:{self.port}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._certificates.close()

    def asks(self, path: str) -> list[Ask]:
        """The requests for a path so far."""
        return [ask for ask in self.asked if ask.path == path]

    def bytes_sent(self, path: str) -> int:
        """How many bytes of bodies went out for a path, over all requests."""
        return sum(count for _, name, count in list(self.sent) if name == path)

    def forget(self) -> None:
        """Forget all requests and bytes."""
        self.asked, self.sent = [], []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.ca_file:  # under TLS asyncio would wait for itself
            writer.transport.set_write_buffer_limits(high=0)  # what is counted as sent is in the kernel's hands
        self.connections += 1
        self.most_connections = max(self.connections, self.most_connections)
        try:
            while await self._answer_one(reader, writer):
                pass
        finally:
            self.connections -= 1

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; False when the connection ends with it."""
        ask = _parse(await reader.readuntil(b"\r\n\r\n"))
        self.asked.append(ask)
        chosen = self.trouble.get(ask.path, NONE)
        trouble = chosen if isinstance(chosen, Trouble) else chosen(ask) or NONE
        answer = self._answer(ask, trouble)
        writer.write(_head(answer))
        await writer.drain()
        if trouble.then:
            trouble.then()
        whole = await self._send(ask.path, answer, trouble, writer)
        if not whole and trouble.stall_at is not None:
            await reader.read()  # until the client hangs up
        writer.write(trouble.extra)
        await writer.drain()
        goes_on = whole and not trouble.lacking and answer.headers.get("Content-Length") is not None
        if not goes_on or ask.headers.get("connection") == "close":
            writer.close()  # what was sent arrives
            await writer.wait_closed()
            return False
        return True

    def _answer(self, ask: Ask, trouble: Trouble) -> _Answer:
        """RFC 9110 sections 13 to 15, and what the trouble makes of it."""
        data = self.files.get(ask.path)
        if data is None:
            answer = _Answer(404, {"Content-Length": "9"}, b"not found", 0, 9)
        else:
            answer = _right(data, ask, no_ranges=trouble.no_ranges, blind=trouble.blind)
        body = trouble.body if trouble.body is not None else b"no" if trouble.status else None
        if body is not None:
            answer = _Answer(200, {"Content-Length": str(len(body))}, body, 0, len(body))
        return _Answer(
            trouble.status or answer.status,
            answer.headers | dict(trouble.headers),
            answer.data,
            answer.start,
            answer.stop - trouble.lacking,
        )

    async def _send(self, path: str, answer: _Answer, trouble: Trouble, writer: asyncio.StreamWriter) -> bool:
        """Send the body as far as the trouble lets it come; returns whether the connection may go on."""
        stop, cut = answer.stop, self._cut(path, answer, trouble)
        for end in (cut, trouble.stall_at):
            if end is not None and answer.start <= end < stop:
                stop = end
        began = time.monotonic()
        size = PIECE if trouble.bytes_per_second is None else min(PIECE, max(1, int(trouble.bytes_per_second / 100)))
        for at in range(answer.start, stop, size):
            piece = bytearray(answer.data[at : min(at + size, stop)])
            for flipped in trouble.flips:
                if at <= flipped < at + len(piece):
                    piece[flipped - at] ^= 0xFF
            self.sent.append((time.monotonic(), path, len(piece)))
            writer.write(piece)
            await writer.drain()
            if trouble.bytes_per_second:
                due = began + (at + len(piece) - answer.start) / trouble.bytes_per_second
                await asyncio.sleep(max(0.0, due - time.monotonic()))
        return stop == answer.stop

    def _cut(self, path: str, answer: _Answer, trouble: Trouble) -> int | None:
        """Where this answer is cut: at a byte that was said for it, or at the next that waits for somebody."""
        if trouble.cut_at is not None and answer.start <= trouble.cut_at < answer.stop:
            return trouble.cut_at
        waiting = self.cuts.get(path, set())
        reached = min((at for at in waiting if answer.start < at < answer.stop), default=None)
        if reached is not None:
            waiting.discard(reached)
        return reached


class Proxy(_Loop):
    """A forward proxy: relays `GET http://…` and `CONNECT`, and remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, _, rest = head.partition(b"\r\n")
        method, target, version = line.split(b" ")
        self.asked.append(f"{method.decode()} {target.decode()}")
        parts = urlsplit(b"//" + target if method == b"CONNECT" else target)
        there_reader, there_writer = await asyncio.open_connection((parts.hostname or b"").decode(), parts.port or 80)
        try:
            if method == b"CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                there_writer.write(b" ".join([method, parts.path, version]) + b"\r\nConnection: close\r\n" + rest)
            await asyncio.gather(_relay(reader, there_writer), _relay(there_reader, writer))
        finally:
            there_writer.transport.abort()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(PIECE):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError, NotImplementedError):  # TLS has no half of a connection to close
        writer.write_eof()


def _parse(head: bytes) -> Ask:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    asked = _RANGE.fullmatch(headers.get("range", ""))
    target = first.split(" ")[1]
    return Ask(target, urlsplit(target).path, int(asked[1]) if asked else 0, headers)


def _right(data: bytes, ask: Ask, *, no_ranges: bool, blind: bool) -> _Answer:
    tag = entity_tag(data)
    if ask.headers.get("if-none-match") == tag:
        return _Answer(304, {"ETag": tag}, b"", 0, 0)
    headers: dict[str, str | None] = {"ETag": tag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    asked = _RANGE.fullmatch(ask.headers.get("range", ""))
    if asked is None or no_ranges or (ask.headers.get("if-range", tag) != tag and not blind):
        return _Answer(200, {**headers, "Content-Length": str(len(data))}, data, 0, len(data))
    start, stop = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
    if start >= stop:
        return _Answer(416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"}, b"", 0, 0)
    headers |= {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}", "Content-Length": str(stop - start)}
    return _Answer(206, headers, data, start, stop)


@functools.lru_cache(maxsize=64)
def entity_tag(data: bytes) -> str:
    """The strong entity tag that the server gives to these bytes."""
    return f'"{hashlib.sha256(data).hexdigest()[:16]}"'


def _head(answer: _Answer) -> bytes:
    lines = [f"{name}: {value}" for name, value in answer.headers.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {answer.status} Whatever", *lines, "", ""]).encode("latin-1")


@contextlib.contextmanager
def serving(path: str, data: bytes, *, count: int = 1) -> Iterator[list[TroubleServer]]:
    """So many servers that have the same file."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(TroubleServer({path: data})) for _ in range(count)]
