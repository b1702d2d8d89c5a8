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
from overair.model.digest import Digest
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
    """

    digest: Digest
    size_bytes: int
    temporary: Path | None


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
    """Give blobs their names, durably; returns how many bytes the tree did not have before.

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
    return new_bytes


def put_hashed(tree: Tree, channel: str, data: bytes) -> None:
    """Publish a manifest under its digest.

    Raises:
        StorageError: The disk refused.
    """
    _put(tree.hashed_manifest(channel, hashlib.sha256(data).hexdigest()), data)


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
        digest = _digest_of_twin(tree, file, source.size_bytes)
        if digest is None:
            file.seek(0)
            digest = _copy(file, temporary, count)
            _refuse_changed(file, source)
            return Incoming(digest=digest, size_bytes=source.size_bytes, temporary=temporary)
    count(source.size_bytes)
    return Incoming(digest=digest, size_bytes=source.size_bytes, temporary=None)


def _refuse_changed(file: FileIO, source: Source) -> None:
    status = os.fstat(file.fileno())
    if (status.st_size, status.st_mtime_ns) != (source.size_bytes, source.modified_ns):
        raise IntegrityError(
            f"{source.path} changed while it was being published",
            hint="wait until the program that writes it has finished, then run the same command again",
        )


def _digest_of_twin(tree: Tree, file: FileIO, size: int) -> Digest | None:
    """The name of the blob that holds the very bytes of `file`, proven by reading both, if there is one.

    Two models of one architecture have the same length, so reading stops where the last of them differs: mostly
    after the header.
    """
    with contextlib.ExitStack() as stack, storage_errors("read", tree.folder / "blobs"):
        paths = [path for path in tree.folder.glob("blobs/sha256/??/*") if path.stat().st_size == size]
        twins = [(path.name, stack.enter_context(path.open("rb", buffering=0))) for path in paths[:MAX_TWINS]]
        digest = hashlib.sha256()
        while twins and (block := file.read(_BLOCK_BYTES)):
            digest.update(block)
            twins = [(name, twin) for name, twin in twins if twin.read(len(block)) == block]
    return next((name for name, _ in twins if name == digest.hexdigest()), None)


def _copy(file: FileIO, target: Path, count: Callable[[int], None]) -> Digest:
    digest = hashlib.sha256()
    block = memoryview(bytearray(_BLOCK_BYTES))
    with storage_errors("write", target):
        out = target.open("wb", buffering=0)
    with out:
        while length := file.readinto(block):
            digest.update(block[:length])
            with storage_errors("write", target):
                _write_all(out, block[:length])
            count(length)
        with storage_errors("write", target):
            sync_file(out.fileno())
    return digest.hexdigest()


def _write_all(out: FileIO, data: memoryview) -> None:
    while data:
        data = data[out.write(data) :]
