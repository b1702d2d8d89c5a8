"""Notes that somebody ended this process, at the moment when the signal arrives.

While the main thread computes in C, as llama.cpp does for a whole answer, no signal handler written in Python runs: a
program that is told to end dies in the middle of an answer, and looks like one that the model brought down.
`faulthandler` writes from a handler in C, at once, and then calls whatever handler was there before, so that the
program ends as it would have. On Windows there are no such signals, and no note.
"""

import contextlib
import faulthandler
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO, Final

# How long a program may take to end after it was told to; one that lives on has not quit.
GRACE_S: Final = 120.0
_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))


class QuitNote:
    """A file that has something in it once this process was told to end.

    All notes of a process are names of one file. A disk that refuses it, or has no hard links for a second one, is no
    error: there is no note then, and a program that is told to end counts as one that crashed.

    Args:
        path: Where; nothing may be there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with contextlib.suppress(OSError):
            _NOTES.add(path)

    def forget_if_old(self) -> None:
        """Empty the note of a signal that this process has outlived."""
        with contextlib.suppress(OSError):
            status = self._path.stat()
            if status.st_size and time.time() - status.st_mtime > GRACE_S:
                os.truncate(self._path, 0)

    def close(self) -> None:
        """Remove the note; with the last one the signals are left alone again."""
        _NOTES.remove(self._path)


class _Notes:
    """The notes of this process, and the handlers that write them."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._paths: list[Path] = []
        self._file: BinaryIO | None = None
        self._before: dict[int, Any] = {}

    def add(self, path: Path) -> None:
        if not hasattr(faulthandler, "register"):
            return
        with self._guard:
            if self._paths:
                path.hardlink_to(self._paths[0])
            else:
                # Appending: a note that was emptied must not begin with a hole.
                self._file = path.open("ab", buffering=0)
                self._register(self._file)
            self._paths.append(path)

    def remove(self, path: Path) -> None:
        with self._guard:
            if path not in self._paths:
                return
            self._paths.remove(path)
            if not self._paths:
                self._unregister()
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def leave_to_parent(self) -> None:
        """In a child that was forked: the notes are the parent's, and say nothing about this process."""
        self._guard = threading.Lock()
        self._paths.clear()
        self._unregister()

    def _register(self, file: BinaryIO) -> None:
        for number in _SIGNALS:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:  # nohup: it does not end this process
                faulthandler.register(number, file=file, all_threads=False, chain=True)
                self._before[number] = before

    def _unregister(self) -> None:
        """Put the handlers back that were there, unless the program has set others meanwhile: those stay."""
        for number, before in self._before.items():
            now = signal.getsignal(number)
            if now is before:
                faulthandler.unregister(number)
            elif threading.current_thread() is threading.main_thread():
                faulthandler.unregister(number)
                signal.signal(number, now)
        self._before.clear()
        if self._file is not None:
            self._file.close()
            self._file = None


_NOTES: Final = _Notes()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_NOTES.leave_to_parent)
