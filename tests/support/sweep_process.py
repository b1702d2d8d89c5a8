"""Runs a piece of work in a process of its own, whose system calls can be counted, failed, or made its last.

The process is a fork of one that has imported everything, so that a point of a sweep costs milliseconds. It knows
nothing of the store but what is on the disk, as after a start. `strace` attaches to it before the work begins.
"""

import contextlib
import logging
import os
import re
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overair.errors import OverairError

LIMIT_S: Final = 60.0
BUG: Final = 70
_CALL: Final = re.compile(r"^([a-z0-9_]+)\(")

Say = Callable[[str], None]
Work = Callable[[Say], None]


@dataclass(frozen=True, slots=True)
class Call:
    """A system call: its name, the how-maniest of that name it is, and how strace shows it."""

    name: str
    number: int
    line: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: its exit code or the negative signal, what it said, and its error if it had one."""

    code: int
    said: tuple[str, ...]
    error: str


def run(work: Work, *, strace: tuple[str, ...] = ()) -> Ended:
    """Run the work in a child; with arguments for strace, under it."""
    ready, go = os.pipe()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os.close(told)
        os.write(tell, b"!")
        _be_the_child(work, ready, tell)
    os.close(ready)
    os.close(tell)
    os.read(told, 1)  # or strace would count, and let fail, the child's own first calls
    with _attached(child, strace):
        os.close(go)
        said = _all_that_is_said(child, told)
        _, status = os.waitpid(child, 0)
    error = "\n".join(line.removeprefix("error ") for line in said if line.startswith("error "))
    return Ended(os.waitstatus_to_exitcode(status), tuple(s for s in said if not s.startswith("error ")), error)


def calls_of(work: Work, names: tuple[str, ...], log: Path) -> tuple[Ended, list[Call]]:
    """Run the work and count its system calls of these names."""
    ended = run(work, strace=("-o", str(log), "-y", "-s", "0", "-e", f"trace={','.join(names)}"))
    counts: dict[str, int] = {}
    calls: list[Call] = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := _CALL.match(line):
            name = found[1]
            counts[name] = counts.get(name, 0) + 1
            calls.append(Call(name, counts[name], line))
    return ended, calls


def run_injected(work: Work, call: Call, fault: str, log: Path, *, onwards: bool = False) -> Ended:
    """Run the work and let strace do something to one of its calls, as `signal=SIGKILL` or `error=EIO`."""
    when = f"{call.number}{'+' if onwards else ''}"
    inject = f"inject={call.name}:{fault}:when={when}"
    return run(work, strace=("-o", str(log), "-s", "0", "-e", f"trace={call.name}", "-e", inject))


def _be_the_child(work: Work, ready: int, tell: int) -> None:
    # Waiting by a call that no sweep counts: strace has attached when the pipe closes.
    code = BUG
    try:
        poll = select.poll()
        poll.register(ready, select.POLLIN)
        poll.poll()
        logging.disable(logging.CRITICAL)
        try:
            work(lambda line: _tell(tell, line))
            code = 0
        except OverairError as error:
            code = error.exit_code
            _tell(tell, f"error {type(error).__name__}: {error.message}")
        except AssertionError as error:
            code = 1
            _tell(tell, f"error {error}")
    except BaseException:  # noqa: BLE001 - whatever it is, the sweep says so
        _tell(tell, "\n".join(f"error {line}" for line in traceback.format_exc().splitlines()))
    finally:
        os._exit(code)


def _tell(pipe: int, line: str) -> None:
    # Not `write`: a sweep that lets all writes fail shall not hush what the process has to say.
    os.writev(pipe, [line.encode(errors="replace") + b"\n"])


def _all_that_is_said(child: int, pipe: int) -> list[str]:
    deadline = time.monotonic() + LIMIT_S
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    data = b""
    while True:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            os.kill(child, signal.SIGKILL)
            data += f"error hung for {LIMIT_S:.0f} s\n".encode()
            break
        piece = os.read(pipe, 65536)
        if not piece:
            break
        data += piece
    os.close(pipe)
    return data.decode(errors="replace").splitlines()


@contextlib.contextmanager
def _attached(child: int, arguments: tuple[str, ...]) -> Iterator[None]:
    if not arguments:
        yield
        return
    command = ["strace", *arguments, "-p", str(child)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        said = strace.stderr.readline()
        if "attached" not in said:
            os.kill(child, signal.SIGKILL)
            raise RuntimeError(f"strace cannot attach: {said.strip()}")
        yield
        strace.communicate(timeout=LIMIT_S)


def can_trace() -> bool:
    """Whether strace is here and may attach to a process."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        return run(lambda _say: None, strace=("-o", os.devnull, "-e", "trace=flock")).code == 0
    except (OSError, RuntimeError):
        return False
