"""One writer at a time, across processes and threads."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from overair.errors import LockedError
from overair.store.durable import storage_errors

DEFAULT_TIMEOUT_S: Final = 10.0


@contextlib.contextmanager
def exclusive(path: Path, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Iterator[None]:
    """Hold the lock `path` for the block. The operating system lets it go when the process dies.

    Raises:
        LockedError: Another process or thread held it all the time; the message names its process.
        StorageError: The lock's file cannot be opened.
    """
    lock = FileLock(path, thread_local=False, is_singleton=False)
    with storage_errors("lock", path):
        try:
            lock.acquire(timeout=timeout_s)
        except Timeout as error:
            raise LockedError(f"{path.parent} is in use by {_holder(path)}") from error
    try:
        with contextlib.suppress(OSError):
            _note(path).write_text(str(os.getpid()))
        yield
    finally:
        _let_go(lock)


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock `path`."""
    lock = FileLock(path, thread_local=False, is_singleton=False)
    with storage_errors("lock", path):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        _let_go(lock)
        return False


def _let_go(lock: FileLock) -> None:
    """Release a lock. One that cannot be unlocked now goes with the object, and at the latest with the process."""
    with contextlib.suppress(OSError):
        lock.release()


def _note(path: Path) -> Path:
    """Who holds a lock is written beside it: on Windows a locked file cannot be read."""
    return path.with_name(path.name + ".pid")


def _holder(path: Path) -> str:
    try:
        return f"process {int(_note(path).read_text())}"
    except (OSError, ValueError):
        return "another process"
