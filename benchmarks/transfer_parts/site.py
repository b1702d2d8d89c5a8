"""What downloads are measured on: files of random bytes, nginx on loopback, and the same server from far away."""

import contextlib
import hashlib
import os
import pwd
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from overair.formats.chunks import CHUNK_BYTES, ChunkIndexWriter

MIB = 1 << 20
ROUND_TRIP_MS = 100
WINDOW_BYTES = MIB

CONFIGURATION = """
{user}
worker_processes auto;
pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
  sendfile on;
  client_body_temp_path {folder}/temporary; proxy_temp_path {folder}/temporary; fastcgi_temp_path {folder}/temporary;
  uwsgi_temp_path {folder}/temporary; scgi_temp_path {folder}/temporary;
  server {{
    listen 127.0.0.1:{http};
    listen 127.0.0.1:{https} ssl;
    ssl_certificate {folder}/certificate.pem;
    ssl_certificate_key {folder}/key.pem;
    location / {{ root {folder}/served; }}
    location /limited/ {{ alias {folder}/served/; limit_rate 20m; }}
    location /repository/ {{ root {folder}/served; access_log {folder}/access.log; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Served:
    """A file that nginx serves, and where its chunk index is."""

    name: str
    size_bytes: int
    sha256: str
    index: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a case may use: URLs of the same files by HTTP, by HTTPS, and from far away.

    Args:
        folder: Where everything is; there is a folder `served`.
        full: The file of most cases.
        part: A shorter file, for slow paths.
        sparse: A long file of zeros.
        peers: The Python that has the libraries of others.
    """

    folder: Path
    http: str
    https: str
    far: str
    full: Served
    part: Served
    sparse: Served
    peers: str

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"


@contextlib.contextmanager
def make_site(folder: Path, peers: str, *, full: int, part: int, sparse: int) -> Iterator[Site]:
    """Write the files, of so many bytes, and serve them for as long as the block runs."""
    served = folder / "served"
    served.mkdir()
    write_certificate(folder)
    with nginx(folder) as (http, https), far_away(http) as far:
        yield Site(
            folder=folder,
            http=f"http://127.0.0.1:{http}",
            https=f"https://127.0.0.1:{https}",
            far=f"http://127.0.0.1:{far}",
            full=write_random(served / "full.bin", full),
            part=write_random(served / "part.bin", part),
            sparse=write_sparse(served / "sparse.bin", sparse),
            peers=peers,
        )


def write_random(path: Path, size_bytes: int) -> Served:
    hasher, index = hashlib.sha256(), ChunkIndexWriter()
    with path.open("wb") as file:
        for at in range(0, size_bytes, CHUNK_BYTES):
            data = os.urandom(min(CHUNK_BYTES, size_bytes - at))
            file.write(data)
            hasher.update(data)
            index.update(memoryview(data))
    return described(path, size_bytes, hasher.hexdigest(), index.finish())


def write_sparse(path: Path, size_bytes: int) -> Served:
    """Zeros that take no space; all chunks but the last have the same digest."""
    with path.open("wb") as file:
        file.truncate(size_bytes)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    whole, rest = divmod(size_bytes, CHUNK_BYTES)
    index = hashlib.sha256(bytes(CHUNK_BYTES)).digest() * whole
    return described(path, size_bytes, sha256, index + (hashlib.sha256(bytes(rest)).digest() if rest else b""))


def described(path: Path, size_bytes: int, sha256: str, index: bytes) -> Served:
    chunks = path.with_suffix(".chunks")
    chunks.write_bytes(index)
    return Served(path.name, size_bytes, sha256, chunks)


def write_certificate(folder: Path) -> None:
    """A key and a certificate of its own for loopback."""
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    to = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(["openssl", "req", *kind, *names, *to], check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[tuple[int, int]]:
    """Serve `folder/served` by HTTP and HTTPS; the two ports."""
    http, https = free_port(), free_port()
    user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""  # its workers read our temporary folder
    config = folder / "nginx.conf"
    config.write_text(CONFIGURATION.format(user=user, folder=folder, http=http, https=https))
    (folder / "temporary").mkdir()
    command = ["nginx", "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log"), "-g", "daemon off;"]
    with subprocess.Popen(command) as process:
        try:
            wait_for(http)
            yield http, https
        finally:
            process.terminate()


@contextlib.contextmanager
def far_away(port: int) -> Iterator[int]:
    """The port of a relay to `port` that is a long way off."""
    command = [sys.executable, str(Path(__file__).with_name("far.py"))]
    command += [str(port), str(ROUND_TRIP_MS), str(WINDOW_BYTES)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline() if process.stdout else 0)
        finally:
            process.terminate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
