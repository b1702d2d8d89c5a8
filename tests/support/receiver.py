"""A server that takes reports, or does not, as the test says."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """What came, and how the next requests are answered; the last way goes on."""

    url: str
    ways: list[str] = field(default_factory=lambda: ["200"])
    bodies: list[dict[str, Any]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def events(self) -> list[dict[str, Any]]:
        return [event for body in self.bodies for event in body["events"]]

    def next_way(self) -> str:
        return self.ways.pop(0) if len(self.ways) > 1 else self.ways[0]


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taken.raw.append(body)
            taken.bodies.append(json.loads(body))
            taken.headers.append(dict(self.headers))
            answer(self, taken.next_way(), taken)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    taken = Receiver(f"http://127.0.0.1:{server.server_port}/reports")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield taken
    finally:
        taken.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()


def answer(handler: BaseHTTPRequestHandler, way: str, taken: Receiver) -> None:
    if way == "garbage":
        handler.wfile.write(b"\x00\x01 not HTTP at all\r\n\r\n")
    elif way == "cut":
        handler.connection.shutdown(socket.SHUT_RDWR)
    elif way == "stall":
        taken.gate.wait(30)
    else:
        handler.send_response(int(way))
        if way == "302":
            handler.send_header("Location", "/elsewhere")
        if way == "429":
            handler.send_header("Retry-After", "0")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
    handler.close_connection = True


def dead_url() -> str:
    """Where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}/reports"
