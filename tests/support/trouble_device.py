"""A device that downloads in chunks of 4 KiB, so that a small file has many, from servers of `support.trouble`."""

import contextlib
import hashlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overair.formats.chunks import ChunkIndexWriter, read_chunk_index
from overair.store.pieces import Pieces
from overair.transport.chunked import ChunkedDownload
from overair.transport.http import HTTP
from overair.transport.pace import Pace
from support.trouble import Trouble, TroubleServer

PATH = "/model.gguf"
CHUNK = 4096
CHUNKS = 64
DATA = hashlib.shake_256(b"a model in many chunks").digest((CHUNKS - 1) * CHUNK + 1234)

SUPPORT = Path(__file__).resolve().parent
# What the two kernels of a connection hold, which nobody has read yet.
KERNEL_BYTES = 64 * 1024
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class Device:
    """A folder for downloads under way.

    Args:
        folder: Where they are.
        data: The file that was promised.
        chunk_bytes: The length of its chunks.
    """

    def __init__(self, folder: Path, data: bytes = DATA, chunk_bytes: int = CHUNK) -> None:
        self.folder = folder
        self.data = data
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.chunk_bytes = chunk_bytes
        self.index = chunk_index(data, chunk_bytes)
        self.received = 0

    def fetch(
        self,
        *urls: str,
        connections: int | None = 4,
        silence_s: float = 0.5,
        ca_file: Path | None = None,
        max_bytes_per_second: int | None = None,
        cancel: threading.Event | None = None,
        **options: Any,
    ) -> bytes:
        """Download, with no pause between tries unless told otherwise; returns what came."""
        digests = read_chunk_index(self.index, size_bytes=len(self.data), chunk_bytes=self.chunk_bytes)
        with (
            HTTP(connect_timeout_s=2.0, read_timeout_s=silence_s, ca_file=ca_file) as web,
            Pieces.open(self.folder, self.sha256, len(self.data), self.chunk_bytes) as pieces,
        ):
            download = ChunkedDownload(
                web,
                urls=urls,
                digests=digests,
                file=pieces,
                pace=Pace(max_bytes_per_second),
                connections=connections,
                **{"chance": lambda: 0.0, **options},
            )
            try:
                return download.run(cancel).read_bytes()
            finally:
                self.received = download.bytes_received

    def start(
        self, *urls: str, connections: int = 4, max_bytes_per_second: int = 0, under: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        """The same in a process of its own, which says `ready` before it begins."""
        index = self.folder.with_suffix(".chunks")
        index.parent.mkdir(parents=True, exist_ok=True)
        index.write_bytes(self.index)
        about = [str(self.folder), self.sha256, str(index), str(len(self.data)), str(self.chunk_bytes)]
        command = [
            *under,
            sys.executable,
            "-m",
            "support.trouble_device",
            *about,
            str(connections),
            str(max_bytes_per_second),
            *urls,
        ]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(SUPPORT.parent), os.environ.get("PYTHONPATH", "")])
        }
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert child.stdout is not None
        if child.stdout.readline() != "ready\n":
            raise AssertionError(f"the child did not get ready: {child.communicate(timeout=30)[1]}")
        return child


@dataclass(frozen=True, slots=True)
class Killed:
    """What a download cost whose process was killed: the file's length, what the server sent, what it may send."""

    size: int
    sent: int
    most: int


def kill_at_random_moments(folder: Path, *, kills: int, seed: int, connections: int = 4) -> Killed:
    """Download in processes that are killed, all but the last.

    The server is so slow that the file is not whole before the last kill, and that nothing waits in the kernel.
    """
    chance = random.Random(seed)  # noqa: S311 - moments that are the same in every run
    moments = [chance.uniform(0.05, 0.3) for _ in range(kills)]
    rate = 600_000 // connections
    device = Device(folder / "partial", chance.randbytes(int(780_000 * sum(moments))), 2 * CHUNK)
    with TroubleServer({PATH: device.data}) as server:
        server.trouble[PATH] = Trouble(bytes_per_second=rate)
        for moment in moments:
            child = device.start(server.url + PATH, connections=connections)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=moment)
            child.kill()
            child.communicate(timeout=30)
            assert child.returncode == -signal.SIGKILL, "the file was whole before the last kill"
        server.trouble.clear()
        assert device.fetch(server.url + PATH) == device.data
        sent, size = server.bytes_sent(PATH), len(device.data)
    return Killed(size, sent, int(1.1 * size) + kills * connections * device.chunk_bytes)


def keep_to_a_rate(folder: Path, *, rate: int, seconds: float) -> tuple[int, bool]:
    """Download for longer than so many seconds; the most bytes in such a time, and whether that is within 5%."""
    device = Device(folder / "partial", random.Random(rate).randbytes(int(1.2 * rate * seconds)), 1 << 20)  # noqa: S311
    with TroubleServer({PATH: device.data}) as server:
        assert device.fetch(server.url + PATH, max_bytes_per_second=rate) == device.data
        sent = list(server.sent)
    sums = [0, *itertools.accumulate(count for _, _, count in sent)]
    most, first = 0, 0
    for last, (at, _, _) in enumerate(sent):
        while sent[first][0] < at - seconds:
            first += 1
        most = max(most, sums[last + 1] - sums[first])
    return most, 0.95 * rate * seconds <= most <= 1.05 * rate * seconds + KERNEL_BYTES


def chunk_index(data: bytes, chunk_bytes: int = CHUNK) -> bytes:
    writer = ChunkIndexWriter(chunk_bytes)
    writer.update(memoryview(data))
    return writer.finish()


def _main(folder: str, sha256: str, index: str, *rest: str) -> None:
    size, chunk_bytes, connections, rate = map(int, rest[:4])
    digests = read_chunk_index(Path(index).read_bytes(), size_bytes=size, chunk_bytes=chunk_bytes)
    with HTTP() as web, Pieces.open(Path(folder), sha256, size, chunk_bytes) as pieces:
        pace = Pace(rate or None)
        download = ChunkedDownload(
            web, urls=rest[4:], digests=digests, file=pieces, pace=pace, connections=connections, chance=lambda: 0.2
        )
        print("ready", flush=True)
        print(download.run())


if __name__ == "__main__":
    _main(*sys.argv[1:])
