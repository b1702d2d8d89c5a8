"""Brings blobs and manifests into the published tree, in an order that a reader and a crash can meet at any point.

Blobs first, then the manifest under its digest, then the plain copies: whatever a manifest names is there before the
manifest is. `signing` puts the metadata and the envelopes between these. Every step goes through a temporary name, so
that a name is there whole or not at all, and every step can be repeated. The callers hold the publishers' lock.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Final

import msgspec

from overair.errors import IntegrityError, StorageError
from overair.formats.chunks import CHUNK_BYTES, INDEX_FROM_BYTES, ChunkIndexWriter
from overair.model.digest import Digest
from overair.model.release import ChunkIndexRef
from overair.publish.build import Source
from overair.publish.tree import Tree
from overair.store.durable import (
    TEMPORARY_SUFFIX,
    make_directory,
    move_file,
    remove_file,
    storage_errors,
    sync_file,
    write_file,
)

_BLOCK_BYTES: Final = 1 << 20
MAX_TWINS: Final = 64  # open files

Progress = Callable[[int, int], None]


class Incoming(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes of a file on their way into the tree.

    Args:
        digest: What the blob will be called.
        size_bytes: Its length.
        temporary: Where the bytes are, synced; None if the tree has had them before.
        index: Its chunk index, for a blob that is long enough to have one.
    """

    digest: Digest
    size_bytes: int
    temporary: Path | None
    index: bytes | None = None


@contextlib.contextmanager
def taking_in(tree: Tree, sources: Sequence[Source], on_progress: Progress | None) -> Iterator[list[Incoming]]:
    """Copy files beside the blobs, hashing them on the way; what is not stored by the end of the block is removed.

    Raises:
        IntegrityError: A file changed while it was read.
        StorageError: The disk refused.
    """
    folder = tree.folder / "blobs"
    make_directory(folder)
    total = sum(source.size_bytes for source in sources)
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        if on_progress is not None:
            on_progress(min(done, total), total)

    temporaries = [folder / f"incoming-{number}{TEMPORARY_SUFFIX}" for number in range(len(sources))]
    try:
        yield [_take_in(tree, source, path, count) for source, path in zip(sources, temporaries, strict=True)]
    finally:
        for path in temporaries:
            remove_file(path)


def store_blobs(tree: Tree, blobs: Sequence[Incoming]) -> int:
    """Give blobs their names, durably, and store their chunk indexes; returns how many bytes of blobs are new here.

    Raises:
        StorageError: The disk refused, or kept another length than was written.
    """
    new_bytes = 0
    for blob in blobs:
        path = tree.blob(blob.digest)
        if blob.temporary is not None and blob.temporary.exists():
            make_directory(path.parent)
            move_file(blob.temporary, path)
            new_bytes += blob.size_bytes
        with storage_errors("read", path):
            size = path.stat().st_size
        if size != blob.size_bytes:
            raise StorageError(f"{path} has {size} bytes after writing {blob.size_bytes}")
        if blob.index is not None:
            _put(tree.blob(_digest_of(blob.index)), blob.index)
    return new_bytes


def index_ref(tree: Tree, blob: Incoming) -> ChunkIndexRef | None:
    """What a manifest says of a blob's chunk index."""
    if blob.index is None:
        return None
    digest = _digest_of(blob.index)
    return ChunkIndexRef(url=tree.blob_url(digest), size_bytes=len(blob.index), sha256=digest, chunk_bytes=CHUNK_BYTES)


def put_hashed(tree: Tree, channel: str, data: bytes) -> None:
    """Publish a manifest under its digest.

    Raises:
        StorageError: The disk refused.
    """
    _put(tree.hashed_manifest(channel, _digest_of(data)), data)


def put_copies(tree: Tree, channel: str, data: bytes) -> None:
    """Make the plain copies of a manifest what they should be.

    Raises:
        StorageError: The disk refused.
    """
    for path in tree.plain_copies(channel):
        _put(path, data)


def clear_away(tree: Tree) -> None:
    """Remove the temporary files that a publisher left that died.

    Raises:
        StorageError: The disk refused.
    """
    with storage_errors("list", tree.folder):
        left = [path for pattern in TEMPORARIES for path in tree.folder.glob(pattern)]
    for path in left:
        remove_file(path)


# The temporary files that this module makes; nothing else in the folder is ours to remove.
TEMPORARIES: Final = (
    f"blobs/incoming-*{TEMPORARY_SUFFIX}",
    f"blobs/sha256/*/*{TEMPORARY_SUFFIX}",
    f"targets/*/*.manifest.json{TEMPORARY_SUFFIX}",
    f"*/manifest.json{TEMPORARY_SUFFIX}",
    f"manifest.json{TEMPORARY_SUFFIX}",
    f"*/manifest.dsse.json{TEMPORARY_SUFFIX}",
    f"manifest.dsse.json{TEMPORARY_SUFFIX}",
    f"metadata/*.json{TEMPORARY_SUFFIX}",
)


def _put(path: Path, data: bytes) -> None:
    if not _holds(path, data):
        make_directory(path.parent)
        write_file(path, data)


def _holds(path: Path, data: bytes) -> bool:
    with storage_errors("read", path):
        return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data


def _take_in(tree: Tree, source: Source, temporary: Path, count: Callable[[int], None]) -> Incoming:
    with storage_errors("read", source.path), source.path.open("rb", buffering=0) as file:
        _refuse_changed(file, source)
        read = _read_twin(tree, file, source.size_bytes)
        if read is None:
            file.seek(0)
            read = _copy(file, temporary, count)
            _refuse_changed(file, source)
            return read.incoming(source.size_bytes, temporary)
    count(source.size_bytes)
    return read.incoming(source.size_bytes, None)


class _Read:
    """What is learned of bytes by reading them once: their digest and their chunk index."""

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()
        self._index = ChunkIndexWriter()

    def update(self, data: memoryview) -> None:
        self._hasher.update(data)
        self._index.update(data)

    @property
    def digest(self) -> Digest:
        return self._hasher.hexdigest()

    def incoming(self, size_bytes: int, temporary: Path | None) -> Incoming:
        index = self._index.finish() if size_bytes > INDEX_FROM_BYTES else None
        return Incoming(digest=self.digest, size_bytes=size_bytes, temporary=temporary, index=index)


def _refuse_changed(file: FileIO, source: Source) -> None:
    status = os.fstat(file.fileno())
    if (status.st_size, status.st_mtime_ns) != (source.size_bytes, source.modified_ns):
        raise IntegrityError(
            f"{source.path} changed while it was being published",
            hint="wait until the program that writes it has finished, then run the same command again",
        )


def _read_twin(tree: Tree, file: FileIO, size: int) -> _Read | None:
    """What is learned of `file` if there is a blob that holds its very bytes, proven by reading both.

    Two models of one architecture have the same length, so reading stops where the last of them differs: mostly
    after the header.
    """
    with contextlib.ExitStack() as stack, storage_errors("read", tree.folder / "blobs"):
        paths = [path for path in tree.folder.glob("blobs/sha256/??/*") if path.stat().st_size == size]
        twins = [(path.name, stack.enter_context(path.open("rb", buffering=0))) for path in paths[:MAX_TWINS]]
        read = _Read()
        while twins and (block := file.read(_BLOCK_BYTES)):
            read.update(memoryview(block))
            twins = [(name, twin) for name, twin in twins if twin.read(len(block)) == block]
    return read if any(name == read.digest for name, _ in twins) else None


def _copy(file: FileIO, target: Path, count: Callable[[int], None]) -> _Read:
    read = _Read()
    block = memoryview(bytearray(_BLOCK_BYTES))
    with storage_errors("write", target):
        out = target.open("wb", buffering=0)
    with out:
        while length := file.readinto(block):
            read.update(block[:length])
            with storage_errors("write", target):
                _write_all(out, block[:length])
            count(length)
        with storage_errors("write", target):
            sync_file(out.fileno())
    return read


def _digest_of(data: bytes) -> Digest:
    return hashlib.sha256(data).hexdigest()


def _write_all(out: FileIO, data: memoryview) -> None:
    while data:
        data = data[out.write(data) :]
