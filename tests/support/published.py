"""Small whole GGUF files of every role, and repositories that publish them."""

import hashlib
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from overair.publish.repository import Repository
from support.gguf_files import F32, UINT16, assemble, key, tensor, text_key, u32_key

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
    data = b"".join(struct.pack("<f", seed + i) for i in range(floats))
    path.write_bytes(assemble(keys, [tensor("w", (floats,), F32, 0)], data))
    return path


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def new_repository(folder: Path, clock: Clock | None = None, *, base_url: str = BASE_URL) -> Repository:
    Repository.init(folder, base_url=base_url, dev=True)
    return Repository(folder, clock=clock or Clock())


def files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of a tree and its bytes, but for the lock."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(".lock"):
            yield path.relative_to(folder).as_posix(), path.read_bytes()
