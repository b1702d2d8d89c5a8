"""The only place that syncs, renames, links and removes.

What is promised, and by whom:

- POSIX: `rename` replaces its target atomically for every observer, but promises nothing about a power cut. A file's
  bytes are durable after `fsync` of the file; its name is durable after `fsync` of the folder that holds it.
- ext4 and xfs keep those promises and no more: without the file's `fsync` a rename can survive with an empty or
  zeroed file behind it, without the folder's `fsync` the rename itself can be lost.
- APFS: `fsync` hands the bytes to the drive, which may keep them in its cache; `F_FULLFSYNC` asks the drive to write.
- NTFS: Python's `os.fsync` calls `FlushFileBuffers`, and `os.replace` calls `MoveFileEx` with replacement. A folder
  cannot be opened for syncing; the journal of NTFS keeps the order of renames.

So the order is always: write beside the target, sync the file, rename, sync the folder.
"""

import contextlib
import ctypes
import errno
import functools
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from overair.errors import NoSpaceError, StorageError

TEMPORARY_SUFFIX: Final = ".tmp"
READ_ONLY: Final = 0o444
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT}) if hasattr(errno, "EDQUOT") else frozenset({errno.ENOSPC})


@contextlib.contextmanager
def storage_errors(action: str, path: Path) -> Iterator[None]:
    """Turn every `OSError` of the block into a `StorageError` that says what was being done, to what, and why.

    Raises:
        NoSpaceError: The disk or the quota is full.
        StorageError: Any other refusal of the file system.
    """
    try:
        yield
    except OSError as error:
        kind = NoSpaceError if error.errno in _FULL else StorageError
        raise kind(f"cannot {action} {path}: {error.strerror or error}") from error


def sync_file(descriptor: int) -> None:
    """Wait until the file's bytes are on the disk, past the drive's own cache where the platform can."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        except OSError:  # file systems that do not know it: SMB, some FUSE
            os.fsync(descriptor)
    else:
        os.fsync(descriptor)


def reserve(descriptor: int, size_bytes: int) -> None:
    """Give a file its length, and room on the disk where the file system can promise it.

    Not `posix_fallocate`, which writes to every block where the file system cannot.

    Raises:
        OSError: The disk is full, or refused.
    """
    os.truncate(descriptor, size_bytes)
    libc = _linux_libc()
    if libc is None or libc.fallocate64(descriptor, 0, _Offset(0), _Offset(size_bytes)) == 0:
        return
    error = ctypes.get_errno()
    if error not in {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINTR}:
        raise OSError(error, os.strerror(error))


def start_write_back(descriptor: int, start: int, stop: int) -> None:
    """Have the kernel write these bytes to the disk from now on, so that a later sync finds little to wait for.

    It promises nothing, and does nothing where the platform has no such call.
    """
    libc = _linux_libc()
    if libc is not None:
        libc.sync_file_range(descriptor, _Offset(start), _Offset(stop - start), _SYNC_FILE_RANGE_WRITE)


def let_go(descriptor: int, start: int, stop: int) -> None:
    """Wait until bytes whose write-back was started are written, and take them out of the page cache.

    A download is longer than what a machine has in its page cache for the programs that run now, and would push that
    out, the current model of a session included. It promises nothing, and does nothing where there is no such call.

    Raises:
        OSError: The disk did not take the bytes; a later sync may not say so again.
    """
    libc = _linux_libc()
    if libc is None:
        return
    if libc.sync_file_range(descriptor, _Offset(start), _Offset(stop - start), _SYNC_FILE_RANGE_WAIT_BEFORE):
        error = ctypes.get_errno()
        if error in {errno.EIO, *_FULL}:
            raise OSError(error, os.strerror(error))
    with contextlib.suppress(OSError):
        os.posix_fadvise(descriptor, start, stop - start, os.POSIX_FADV_DONTNEED)


_Offset = ctypes.c_int64  # off64_t
# sync_file_range(2)
_SYNC_FILE_RANGE_WAIT_BEFORE: Final = 1
_SYNC_FILE_RANGE_WRITE: Final = 2


@functools.cache
def _linux_libc() -> Any:
    """The C library, which has calls that Python has no names for, or None on other systems."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    return libc if hasattr(libc, "fallocate64") and hasattr(libc, "sync_file_range") else None


def sync_directory(path: Path) -> None:
    """Wait until the names in a folder are on the disk.

    Raises:
        StorageError: The folder cannot be synced.
    """
    if os.name == "nt":
        return
    with storage_errors("sync", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_file(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Replace a file's content so that after a power cut the old or the new one is there, whole.

    Args:
        path: The file.
        data: Its new content.
        mode: Its permissions, less what the process masks out.

    Raises:
        StorageError: The disk refused; the old content is still there.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    with storage_errors("write", path):
        temporary.unlink(missing_ok=True)  # one that a dead process left may have other permissions
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            sync_file(file.fileno())
            kept = os.fstat(file.fileno()).st_size
        if kept != len(data):  # a disk that says more than it does must not cost the old content
            raise StorageError(f"cannot write {path}: the disk kept {kept} of {len(data)} bytes")
        temporary.replace(path)
    sync_directory(path.parent)


def copy_file(source: Path, target: Path) -> None:
    """Copy a small file durably.

    Raises:
        StorageError: The disk refused.
    """
    with storage_errors("read", source):
        data = source.read_bytes()
    write_file(target, data)


def move_file(source: Path, target: Path) -> None:
    """Rename a file whose bytes are already synced, and make the new name durable.

    Raises:
        StorageError: The disk refused; `source` is still there.
    """
    with storage_errors("rename", source):
        source.replace(target)
    sync_directory(target.parent)


def remove_file(path: Path) -> None:
    """Remove a file if it is there. Not durable: after a power cut it may be back.

    Raises:
        StorageError: The disk refused.
    """
    with storage_errors("remove", path):
        path.unlink(missing_ok=True)


def make_directory(path: Path) -> None:
    """Create a folder and the folders above it, durably.

    Raises:
        StorageError: The disk refused.
    """
    with storage_errors("create the folder", path):
        missing = [p for p in (path, *path.parents) if not p.exists()]
        path.mkdir(parents=True, exist_ok=True)
    for created in reversed(missing):
        sync_directory(created.parent)


def exchange(source: Path, target: Path) -> None:
    """Rename over a file that may be lost or old after a power cut: nothing is decided by it.

    Raises:
        StorageError: The disk refused.
    """
    with storage_errors("rename", source):
        source.replace(target)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; where the file system has no hard links, copy it.

    Raises:
        StorageError: The disk refused.
    """
    with contextlib.suppress(OSError):
        target.hardlink_to(source)
        return
    with storage_errors("copy", source):
        with source.open("rb") as reader, target.open("xb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.flush()
            sync_file(writer.fileno())
        # The time tells a copy of this file from one of another file that is as long.
        times = source.stat()
        os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
        target.chmod(READ_ONLY)


def remove_tree(path: Path) -> None:
    """Remove a folder and what is in it, if it is there.

    Raises:
        StorageError: The disk refused.
    """
    with storage_errors("remove", path):
        if os.path.lexists(path):
            shutil.rmtree(path)
