"""What it costs a device to ask whether there is a new model: requests, bytes and time, cold and warm.

    check.py [--runs 15] [--json]

The repository has 2 channels and 60 tiers, signed with the six keys of a real publisher. In Overair a channel has one
TUF target, its manifest, so the metadata does not grow with the tiers; the manifest does. All 60 tiers stand in the
manifest that is asked for, which is the worst case, and its size is reported apart from the metadata. The other
channel has one tier.

Cold is a new device, with nothing but the root that its app embeds. Warm is a device that has checked before, in a new
process with a new connection, when nothing has changed. Between device and server stands a relay that counts bytes:
bodies apart from heads, heads in both directions. Everything is on this machine, so the times are without a network;
each request costs a round trip more.
"""

import argparse
import json
import os
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from overair.device.updater import Updater
from overair.publish.repository import Repository
from overair.publish.serve import Server

TIERS = 60
MAX_REQUESTS = {"cold": 8, "warm": 2}
MAX_METADATA_BYTES = {"cold": 20_000, "warm": 1_000}
WARM_UP_RUNS = 2


@dataclass
class Traffic:
    """What went over the wire: requests, bytes of bodies (metadata and manifests apart), bytes of heads."""

    requests: int = 0
    metadata_bytes: int = 0
    manifest_bytes: int = 0
    head_bytes: int = 0


class Relay:
    """Stands before a server and counts what passes; each request has an answer with a Content-Length or none."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.upstream = ("127.0.0.1", 0)
        self.traffic = Traffic()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self.upstream) as server, client.makefile("rb") as asked:
            answered = server.makefile("rb")
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while request := _head(asked):
                path = request.split(b" ", 2)[1]
                server.sendall(request)
                head = _head(answered)
                body = answered.read(_content_length(head))
                self._count(path, len(request) + len(head), len(body))
                client.sendall(head + body)

    def _count(self, path: bytes, head_bytes: int, body_bytes: int) -> None:
        self.traffic.requests += 1
        self.traffic.head_bytes += head_bytes
        if path.startswith(b"/metadata/"):
            self.traffic.metadata_bytes += body_bytes
        else:
            self.traffic.manifest_bytes += body_bytes


def _head(stream: Any) -> bytes:
    lines = []
    while line := stream.readline():
        lines.append(line)
        if line == b"\r\n":
            break
    return b"".join(lines)


def _content_length(head: bytes) -> int:
    fields = (line.partition(b":") for line in head.lower().split(b"\r\n"))
    return next((int(value) for name, _, value in fields if name == b"content-length"), 0)


def write_model(path: Path, number: int) -> None:
    """Write a whole GGUF of one tensor; another number is another file."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    keys = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    tensors = text("w") + struct.pack("<IQIQ", 1, 8, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + keys + tensors
    path.write_bytes(head + bytes(-len(head) % 32) + struct.pack("<8f", *range(number, number + 8)))


def publish(folder: Path, url: str) -> Path:
    """Fill `folder` with a repository, and return where the root is that devices embed."""
    made = Repository.init(folder, base_url=url, channels=["stable", "beta"], passphrase=lambda _: "benchmark")
    model = folder.with_name("model.gguf")
    for number in range(TIERS):
        write_model(model, number)
        made.publish(model, tier=f"tier-{number}", version="2.1.0", notes="Answers in two more languages", probe=False)
    made.publish(model, tier="tier-0", version="2.1.0", channel="beta", probe=False)
    return made.root_path


@dataclass(frozen=True, slots=True)
class Figure:
    """What one kind of check costs; bytes and requests are the most of all runs."""

    requests: int
    metadata_bytes: int
    manifest_bytes: int
    head_bytes: int
    total_bytes: int
    median_ms: float
    min_ms: float
    max_ms: float
    within_budget: bool


def check_once(store: Path, url: str, root: Path | None, relay: Relay) -> tuple[Traffic, float]:
    """One check by a device that starts, and how many seconds it took."""
    relay.traffic = Traffic()
    began = time.perf_counter()
    with Updater(store, url=url, tier="tier-7", root=root) as updater:
        updater.check()
    return relay.traffic, time.perf_counter() - began


def measure(folder: Path, runs: int) -> dict[str, Figure]:
    """Cold and warm checks in turn; the first ones, which import modules, do not count."""
    site = folder / "site"
    site.mkdir()
    taken: dict[str, list[tuple[Traffic, float]]] = {"cold": [], "warm": []}
    with Relay() as relay, Server(site) as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        relay.upstream = (host, int(port))
        root = publish(site, relay.url)
        for run in range(WARM_UP_RUNS + runs):
            store = folder / f"device-{run}"
            taken["cold"].append(check_once(store, relay.url, root, relay))
            taken["warm"].append(check_once(store, relay.url, None, relay))
    return {kind: _figure(kind, checks[WARM_UP_RUNS:]) for kind, checks in taken.items()}


def _figure(kind: str, checks: list[tuple[Traffic, float]]) -> Figure:
    traffic = max((one for one, _ in checks), key=lambda t: (t.requests, t.metadata_bytes + t.head_bytes))
    times = [seconds * 1000 for _, seconds in checks]
    return Figure(
        **asdict(traffic),
        total_bytes=traffic.metadata_bytes + traffic.manifest_bytes + traffic.head_bytes,
        median_ms=statistics.median(times),
        min_ms=min(times),
        max_ms=max(times),
        within_budget=traffic.requests <= MAX_REQUESTS[kind]
        and traffic.metadata_bytes <= MAX_METADATA_BYTES[kind]
        and (kind == "cold" or traffic.manifest_bytes == 0),
    )


def table(figures: dict[str, Figure], runs: int) -> str:
    lines = [
        f"2 channels, {TIERS} tiers, {runs} runs each",
        "        requests (most)   metadata (most)   manifest      heads      total   median ms   min    max",
    ]
    for kind, f in figures.items():
        budget = f"{f.requests:8} ({MAX_REQUESTS[kind]}){f.metadata_bytes:12} B ({MAX_METADATA_BYTES[kind]})"
        rest = f"{f.manifest_bytes:9} B{f.head_bytes:9} B{f.total_bytes:9} B"
        times = f"{f.median_ms:10.1f}{f.min_ms:8.1f}{f.max_ms:7.1f}"
        lines.append(
            f"{kind:6}{budget:42}{rest}{times}  {'within the budget' if f.within_budget else 'OVER THE BUDGET'}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Requests, bytes and time of a check for an update, cold and warm")
    parser.add_argument("--runs", type=int, default=15, help="checks of each kind that count (default: 15)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    os.environ |= {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.runs)
    if options.json:
        print(json.dumps({"runs": options.runs, "tiers": TIERS} | {kind: asdict(f) for kind, f in figures.items()}))
    else:
        print(table(figures, options.runs))
    if not all(f.within_budget for f in figures.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
