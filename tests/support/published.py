"""Small whole GGUF files of every role, and repositories that publish them."""

import hashlib
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from overair.errors import HTTPStatusError, IntegrityError
from overair.publish.repository import Repository
from overair.trust.client import TrustClient
from support.gguf_files import F32, UINT16, assemble, key, tensor, text_key, u32_key
from support.trust_server import DiskFiles

BASE_URL = "https://cdn.example.com/models"
START = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, by: timedelta) -> None:
        self.now += by


def model_file(path: Path, seed: int = 1, *, floats: int = 64) -> Path:
    """A model; another seed is another file of the same length."""
    return _write(path, [text_key("general.architecture", "llama")], seed, floats)


def adapter_file(path: Path, seed: int = 1) -> Path:
    keys = [text_key("general.architecture", "llama"), text_key("general.type", "adapter")]
    return _write(path, keys, seed, 32)


def projector_file(path: Path, seed: int = 1) -> Path:
    return _write(path, [text_key("general.architecture", "clip")], seed, 32)


def split_files(folder: Path, prefix: str = "big", count: int = 3) -> list[Path]:
    return [
        _write(
            folder / f"{prefix}-{index + 1:05}-of-{count:05}.gguf",
            [
                text_key("general.architecture", "llama"),
                key("split.no", UINT16, struct.pack("<H", index)),
                key("split.count", UINT16, struct.pack("<H", count)),
                u32_key("split.tensors.count", count),
            ],
            index,
            64,
        )
        for index in range(count)
    ]


def _write(path: Path, keys: list[bytes], seed: int, floats: int) -> Path:
    data = struct.pack(f"<{floats}f", *range(seed, seed + floats))
    path.write_bytes(assemble(keys, [tensor("w", (floats,), F32, 0)], data))
    return path


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def new_repository(folder: Path, clock: Clock | None = None, *, base_url: str = BASE_URL) -> Repository:
    Repository.init(folder, base_url=base_url, dev=True)
    return Repository(folder, clock=clock or Clock())


class FolderDevice:
    """A device that verifies signatures, and reads the published tree from its folder.

    Args:
        folder: The published tree.
        store: Where it keeps its metadata.
        root: What it trusts; None: what it trusted before.
    """

    def __init__(self, folder: Path, store: Path, root: bytes | None = None) -> None:
        self._folder = folder
        self._files = DiskFiles(store)
        self._root = root

    def manifest(self, channel: str = "stable", *, now: datetime = START) -> bytes:
        """The manifest that is signed for a channel; the device's files move on."""
        client = TrustClient(
            self._files, metadata_url=f"{BASE_URL}/metadata", fetch=self._fetch, now=now, bootstrap_root=self._root
        )
        return client.fetch_target(f"{channel}/manifest.json", f"{BASE_URL}/targets")

    def _fetch(self, url: str, max_bytes: int, /) -> bytes:
        path = self._folder / url.removeprefix(f"{BASE_URL}/")
        if not path.is_file():
            raise HTTPStatusError(f"{url} is not there", status=404)
        data = path.read_bytes()
        if len(data) > max_bytes:
            raise IntegrityError(f"{url} has more than {max_bytes} bytes")
        return data


def files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of a tree and its bytes, but for the lock."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(".lock"):
            yield path.relative_to(folder).as_posix(), path.read_bytes()
