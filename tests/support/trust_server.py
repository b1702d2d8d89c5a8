"""A publisher and a device for tests of trust: real keys, a real HTTP server on loopback, real files."""

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata
from tuf.api.serialization.json import JSONSerializer

from overair.transport.http import HTTP, Document
from overair.trust.client import TrustClient
from overair.trust.keys import Keyring
from overair.trust.repository import Expiry, MetadataSet, Upload

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def write_private(path: Path, data: bytes, /, *, mode: int) -> None:
    """What a publisher's program passes as the durable write, without the syncing."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


class Site:
    """Serves `files` (path to content); `statuses` and `endless` say which paths misbehave."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.statuses: dict[str, int] = {}
        self.endless: set[str] = set()
        self.requests: list[str] = []
        self.sent_bytes = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # headers and body are two packets

            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.lstrip("/")
        self.requests.append(path)
        if path in self.endless:
            self._answer_without_end(request)
            return
        status = self.statuses.get(path, 200 if path in self.files else 404)
        body = self.files.get(path, b"") if status == 200 else b"no"
        self.sent_bytes += len(body)
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def _answer_without_end(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Connection", "close")
        request.end_headers()
        request.close_connection = True
        block = b" " * 65536
        try:
            for _ in range(1024):
                request.wfile.write(block)
                self.sent_bytes += len(block)
        except OSError:
            return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@dataclass
class DiskFiles:
    """A device's metadata, in a folder."""

    folder: Path

    def read(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".tmp")
        beside.write_bytes(data)
        beside.replace(path)

    def contents(self) -> dict[str, bytes]:
        """Every file that is there."""
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


@dataclass
class Publisher:
    """A repository with two channels, and its keys."""

    site: Site
    keyring: Keyring
    expiry: Expiry = field(default_factory=Expiry)
    metadata: MetadataSet = field(init=False)

    def start(self, now: datetime = NOW) -> None:
        self.metadata, upload = MetadataSet.initialise(
            self.read, self.keyring, ["stable", "beta"], now=now, expiry=self.expiry
        )
        self.upload(upload)

    def read(self, name: str) -> bytes | None:
        return self.site.files.get(f"metadata/{name}")

    def upload(self, upload: Upload) -> None:
        for name, data in upload:
            self.site.files[f"metadata/{name}"] = data

    def publish(self, channel: str, data: bytes, now: datetime = NOW) -> None:
        self.site.files[f"targets/{channel}/{sha256(data).hexdigest()}.manifest.json"] = data
        self.upload(self.metadata.put_target(channel, f"{channel}/manifest.json", data, now=now))

    @property
    def first_root(self) -> bytes:
        return self.site.files["metadata/1.root.json"]

    def signers(self, role: str) -> list[Signer]:
        return self.keyring.signers(key.keyid for key in self.keyring.keys(role))

    def forge(self, name: str, change: Callable[[Any], None], signers: Iterable[Signer], to: str | None = None) -> None:
        """Change a published file and sign it anew, as somebody with these keys could."""
        metadata: Metadata[Any] = Metadata.from_bytes(self.site.files[f"metadata/{name}"])
        change(metadata.signed)
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(signer, append=True)
        self.site.files[f"metadata/{to or name}"] = metadata.to_bytes(JSONSerializer(compact=True))


@dataclass
class Device:
    """Checks the site, as a device does."""

    site: Site
    files: DiskFiles
    http: HTTP

    def client(self, now: datetime = NOW, root: bytes | None = None) -> TrustClient:
        return TrustClient(
            self.files, metadata_url=f"{self.site.url}/metadata", fetch=self.fetch, now=now, bootstrap_root=root
        )

    def manifest(self, channel: str = "stable", now: datetime = NOW, root: bytes | None = None) -> bytes:
        return self.client(now, root).fetch_target(f"{channel}/manifest.json", f"{self.site.url}/targets")

    def fetch(self, url: str, max_bytes: int, /) -> bytes:
        document = self.http.get(url, max_bytes=max_bytes, total_timeout_s=20)
        assert isinstance(document, Document)
        return document.data
