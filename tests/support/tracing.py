"""A child process that stops before and after each system call that changes a disk (Linux, ptrace(2)).

The child is a fork of this process, so that it starts in a millisecond, with everything imported; no line of the code
under test knows of it. What it says to its parent goes through a pipe, and what was said before a stop is known there.
"""

import ctypes
import fcntl
import os
import platform
import signal
import struct
import sys
import termios
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self

Say = Callable[[str], object]
Work = Callable[[Say], None]

_TRACEME, _SYSCALL, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 24, 0x4200, 0x420E
_TRACESYSGOOD, _EXITKILL = 0x1, 0x100000
_SYSCALL_STOP = signal.SIGTRAP | 0x80
# struct ptrace_syscall_info: op, arch, instruction and stack pointers, then for an entry the number and the arguments.
_INFO: Final = struct.Struct("=B3xIQQ7Q")
_ENTRY: Final = 1
_O_CREAT: Final = os.O_CREAT

# By machine: the number of a call and where its paths or its descriptor are among the arguments.
_FD, _PATH, _AT_PATH, _TWO_PATHS, _TWO_AT_PATHS, _OPEN = "fd", "path", "at path", "paths", "at paths", "open"
_CALLS: Final[dict[str, dict[int, tuple[str, str]]]] = {
    "x86_64": {
        1: ("write", _FD), 18: ("pwrite64", _FD), 20: ("writev", _FD), 74: ("fsync", _FD), 75: ("fdatasync", _FD),
        77: ("ftruncate", _FD), 91: ("fchmod", _FD), 285: ("fallocate", _FD), 277: ("sync_file_range", _FD),
        40: ("sendfile", _FD), 76: ("truncate", _PATH), 82: ("rename", _TWO_PATHS), 83: ("mkdir", _PATH),
        84: ("rmdir", _PATH), 86: ("link", _TWO_PATHS), 87: ("unlink", _PATH), 90: ("chmod", _PATH),
        257: ("openat", _OPEN), 258: ("mkdirat", _AT_PATH), 263: ("unlinkat", _AT_PATH),
        264: ("renameat", _TWO_AT_PATHS), 265: ("linkat", _TWO_AT_PATHS), 268: ("fchmodat", _AT_PATH),
        280: ("utimensat", _AT_PATH), 316: ("renameat2", _TWO_AT_PATHS),
    },
    "aarch64": {
        64: ("write", _FD), 68: ("pwrite64", _FD), 66: ("writev", _FD), 82: ("fsync", _FD), 83: ("fdatasync", _FD),
        46: ("ftruncate", _FD), 52: ("fchmod", _FD), 47: ("fallocate", _FD), 84: ("sync_file_range", _FD),
        71: ("sendfile", _FD), 45: ("truncate", _PATH), 56: ("openat", _OPEN), 34: ("mkdirat", _AT_PATH),
        35: ("unlinkat", _AT_PATH), 38: ("renameat", _TWO_AT_PATHS), 37: ("linkat", _TWO_AT_PATHS),
        53: ("fchmodat", _AT_PATH), 88: ("utimensat", _AT_PATH), 276: ("renameat2", _TWO_AT_PATHS),
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a child stands: before or after its Nth call that changes the disk.

    The paths are relative to the folder that is watched; `said_bytes` rises when the child says something.
    """

    number: int
    name: str
    paths: tuple[str, ...]
    after: bool
    said_bytes: int

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} call {self.number}: {self.name} {' '.join(self.paths)}"


class Child:
    """A fork that does some work; a context manager that ends it.

    Args:
        work: What it does; it gets a function that says a line to this process.
        stops_below: It stops at the calls on files below this folder; None: nowhere.
        limit_s: It is ended after so many seconds.
    """

    def __init__(self, work: Work, *, stops_below: Path | None = None, limit_s: int = 30) -> None:
        self._below = str(stops_below)
        self._read, write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _run(work, write, limit_s, traced=stops_below is not None)
        os.close(write)
        self._running = True
        self.exit_code: int | None = None

    def stops(self) -> Iterator[Stop]:
        """Let it go on to each stop in turn, until it has ended."""
        calls = _CALLS[platform.machine()]
        self._wait()
        _ptrace(_SETOPTIONS, self._pid, _TRACESYSGOOD | _EXITKILL)
        number, signal_number = 0, 0
        inside: tuple[str, tuple[str, ...]] | None = None
        while self._running:
            _ptrace(_SYSCALL, self._pid, signal_number)
            stopped_by = self._wait()
            signal_number = stopped_by if stopped_by != _SYSCALL_STOP else 0
            if stopped_by != _SYSCALL_STOP:
                continue
            if inside is not None:
                call, inside = inside, None
                yield Stop(number, *call, after=True, said_bytes=self._said_bytes())
                continue
            entered = _entry(self._pid)
            if entered is not None and entered[0] in calls:
                inside = self._counted(*calls[entered[0]], entered[1])
            if inside is not None:
                number += 1
                yield Stop(number, *inside, after=False, said_bytes=self._said_bytes())

    def finish(self) -> None:
        """Wait for the end of a child that stops nowhere."""
        while self._running:
            self._wait()

    def has_ended(self) -> bool:
        """Whether a child that stops nowhere is at its end."""
        if self._running and os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            self._wait()
        return not self._running

    def said(self) -> list[str]:
        """What it has said, once it has ended."""
        with os.fdopen(os.dup(self._read), encoding="utf-8") as file:
            return file.read().splitlines()

    def kill(self) -> None:
        """End it here and now."""
        if self._running:
            os.kill(self._pid, signal.SIGKILL)
            while self._running:
                self._wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        os.close(self._read)

    def _wait(self) -> int:
        """The signal that it stopped by, or 0 when it has ended."""
        _, status = os.waitpid(self._pid, 0)
        if os.WIFSTOPPED(status):
            return os.WSTOPSIG(status)
        self._running = False
        self.exit_code = os.waitstatus_to_exitcode(status)
        return 0

    def _counted(self, name: str, kind: str, arguments: tuple[int, ...]) -> tuple[str, tuple[str, ...]] | None:
        """The call and its paths, if it may change what lies below the folder."""
        if kind == _FD:
            try:
                paths = [str(Path(f"/proc/{self._pid}/fd/{arguments[0]}").readlink())]
            except OSError:
                return None
        elif kind == _OPEN:
            paths = [self._text(arguments[1])] if arguments[2] & _O_CREAT else []
        else:
            places = {_PATH: (0,), _AT_PATH: (1,), _TWO_PATHS: (0, 1), _TWO_AT_PATHS: (1, 3)}[kind]
            paths = [self._text(arguments[place]) for place in places]
        # A path that is relative to a descriptor comes from the removal of a tree, which is below the folder.
        if not any(path.startswith(self._below) or not path.startswith("/") for path in paths):
            return None
        if (name == "unlink" and not os.path.lexists(paths[0])) or (
            name.startswith("mkdir") and Path(paths[0]).is_dir()
        ):
            return None  # it will be refused
        return name, tuple(path.removeprefix(self._below).lstrip("/") for path in paths)

    def _said_bytes(self) -> int:
        """How much it has said so far."""
        waiting = fcntl.ioctl(self._read, termios.FIONREAD, struct.pack("i", 0))
        return int.from_bytes(waiting, sys.byteorder)

    def _text(self, address: int) -> str:
        with Path(f"/proc/{self._pid}/mem").open("rb", buffering=0) as memory:
            return os.pread(memory.fileno(), 4096, address).split(b"\0", 1)[0].decode()


def _run(work: Work, write: int, limit_s: int, *, traced: bool) -> NoReturn:
    """What the fork does; it never returns into its parent's code."""
    code = 1
    try:
        signal.alarm(limit_s)
        if traced:
            _ptrace(_TRACEME, 0, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
        work(lambda line: [os.write(write, f"{line}\n".encode())])  # at once, without a buffer
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it was, the parent has to hear of it
        os.write(write, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _entry(pid: int) -> tuple[int, tuple[int, ...]] | None:
    """The number and the arguments of the call that a stopped process has entered."""
    buffer = ctypes.create_string_buffer(_INFO.size)
    _ptrace(_GET_SYSCALL_INFO, pid, ctypes.addressof(buffer), size=_INFO.size)
    op, _, _, _, number, *arguments = _INFO.unpack(buffer.raw)
    return (number, tuple(arguments)) if op == _ENTRY else None


def _ptrace(request: int, pid: int, data: int, *, size: int = 0) -> None:
    call = ctypes.CDLL(None, use_errno=True).ptrace
    call.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    call.restype = ctypes.c_long
    if call(request, pid, size, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace: {os.strerror(number)}")
