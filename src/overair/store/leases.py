"""Who is alive: one file a session, locked by its process for as long as it lives.

The file's first byte says what the session is doing. It is rewritten without a sync: after a crash of the process the
page cache still has it, and after a power cut nobody is blamed by it, because the boot is another one. A second file
has something in it once the process was told to end (`overair.host.quit`): then nobody is to blame either.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from overair.errors import LockedError
from overair.store.durable import remove_file, storage_errors
from overair.store.lock import is_held

_IDLE: Final = b"i"
_BUSY: Final = b"b"


class Lease:
    """A running session's hold on its release."""

    def __init__(self, folder: Path, session_id: str, boot_id: str) -> None:
        """Take the lease.

        Raises:
            StorageError: The disk refused.
        """
        self._note = folder / session_id
        self._lock = FileLock(_lock_path(folder, session_id), thread_local=False, is_singleton=False)
        with storage_errors("lease", self._note):
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:
                raise LockedError(f"session {session_id} runs already") from error
            try:
                self._note.write_bytes(_BUSY + boot_id.encode())
                self._file = self._note.open("r+b", buffering=0)
            except OSError:
                self._lock.release()
                raise

    @property
    def quit_note(self) -> Path:
        """The file that has something in it once this process was told to end."""
        return _quit_path(self._note.parent, self._note.name)

    def set_busy(self, busy: bool) -> None:
        """Note whether the model is loading or generating now."""
        with contextlib.suppress(OSError, ValueError):
            self._file.seek(0)
            self._file.write(_BUSY if busy else _IDLE)

    def release(self, *, keep_note: bool = False) -> None:
        """Let go of the lease, and remove it; the note may stay, for whoever finds that the session is gone."""
        with contextlib.suppress(OSError):
            self._file.close()
        if not keep_note:
            with contextlib.suppress(OSError):
                self._note.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.quit_note.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._lock.release()
        with contextlib.suppress(OSError):
            Path(self._lock.lock_file).unlink(missing_ok=True)


def is_alive(folder: Path, session_id: str) -> bool:
    """Whether the process of a session lives.

    Raises:
        StorageError: The disk refused.
    """
    path = _lock_path(folder, session_id)
    with storage_errors("look at", path):
        return path.exists() and is_held(path)


def was_busy(folder: Path, session_id: str, boot_id: str) -> bool | None:
    """Whether a dead session was loading or generating when it ended; None when that cannot be known.

    It cannot be known when the machine has been started since, or when nobody kept a note, or when it is damaged. A
    session whose process was told to end counts as idle.
    """
    try:
        note = (folder / session_id).read_bytes()[:256]
    except OSError:
        return None
    known = note[:1] in {_BUSY, _IDLE} and note[1:].decode(errors="replace") == boot_id
    return (note[:1] == _BUSY and not _was_told_to_end(folder, session_id)) if known else None


def _was_told_to_end(folder: Path, session_id: str) -> bool:
    try:
        return _quit_path(folder, session_id).stat().st_size > 0
    except OSError:
        return False


def forget(folder: Path, session_id: str) -> None:
    """Remove what a dead session left.

    Raises:
        StorageError: The disk refused.
    """
    remove_file(folder / session_id)
    remove_file(_quit_path(folder, session_id))
    remove_file(_lock_path(folder, session_id))


def _lock_path(folder: Path, session_id: str) -> Path:
    return folder / f"{os.fspath(session_id)}.lock"


def _quit_path(folder: Path, session_id: str) -> Path:
    return folder / f"{session_id}.quit"
