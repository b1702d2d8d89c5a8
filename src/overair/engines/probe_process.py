"""A probe's process as its parent sees it: what it says, what it holds, how it ended, and how to be rid of it."""

import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, cast

import msgspec
import psutil

from overair.engines.probe_wire import MAX_LINE_BYTES, Message, Order, decode_message, encode
from overair.errors import EngineMissingError

_READ_BYTES: Final = 1 << 16
_END_SECONDS: Final = 2.0
_LOOKS_BETWEEN_LISTS: Final = 20

# The parent's own search path: an app that is not installed, and its engine's class, are found there only.
_START: Final = "import sys; sys.path[:] = sys.argv[1:]; from overair.engines.probe_child import main; sys.exit(main())"


class ProbeProcess:
    """The process of one probe, in a process group of its own, with whatever it starts.

    Args:
        log: Where its descriptor 2 leads.

    Raises:
        EngineMissingError: No process can be started here.
    """

    def __init__(self, log: Path) -> None:
        if getattr(sys, "frozen", False) or not sys.executable:
            raise EngineMissingError(
                "a program that is frozen into one file cannot start a probe: it has no Python interpreter beside it",
                hint="switch the probe off; the trial still watches the model",
            )
        self._log = log
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._looks = 0
        self._family: list[psutil.Process] = []
        try:
            with log.open("wb") as file:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _START, *sys.path],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=file,
                    start_new_session=True,
                )
        except OSError as error:
            raise EngineMissingError(f"the probe's process cannot be started: {error}") from error
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def order(self, order: Order) -> None:
        """Give it its order. Its input stays open: the end of it means that this process is gone."""
        stdin = cast("IO[bytes]", self._process.stdin)
        with suppress(OSError):  # it died already: how, its end tells
            stdin.write(encode(order))
            stdin.flush()

    def next_message(self, seconds: float) -> Message | None:
        """What it says next; None when it says no more, since it has ended. A queue.Empty if that takes longer."""
        return self._messages.get(timeout=max(0.0, seconds))

    def exit_code(self, seconds: float) -> int:
        """How it ended, as `subprocess.Popen.returncode`; a subprocess.TimeoutExpired if it has not after `seconds`."""
        return self._process.wait(max(0.0, seconds))

    def held_bytes(self, *, anew: bool = False) -> int:
        """The memory that it and what it started hold now, the files that they mapped included.

        Args:
            anew: Look for what it started since; that is done now and then anyway.
        """
        if anew or self._looks % _LOOKS_BETWEEN_LISTS == 0:
            self._family = self._listed()
        self._looks += 1
        return sum(_held(process) for process in self._family)

    def log_bytes(self) -> int:
        """How much it and llama.cpp have logged."""
        return self._log.stat().st_size

    def log_lines(self) -> list[str]:
        """The beginning and the end of the log."""
        size = self.log_bytes()
        with self._log.open("rb") as file:
            text = file.read(_READ_BYTES)
            file.seek(max(len(text), size - _READ_BYTES))
            text += file.read(_READ_BYTES)
        return text.decode(errors="replace").splitlines()

    def end(self) -> None:
        """Kill it and whatever it started, and wait until it is gone."""
        family = list({*self._family, *self._listed()})
        with suppress(OSError):
            cast("IO[bytes]", self._process.stdin).close()
        if sys.platform != "win32":
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        for process in family:  # those that left the group as well
            with suppress(psutil.Error):
                process.kill()
        self._process.kill()
        self._process.wait()
        psutil.wait_procs(family, timeout=_END_SECONDS)
        self._reader.join(_END_SECONDS)
        cast("IO[bytes]", self._process.stdout).close()

    def _listed(self) -> list[psutil.Process]:
        try:
            process = psutil.Process(self._process.pid)
            return [process, *process.children(recursive=True)]
        except psutil.Error:
            return []

    def _read(self, stream: IO[bytes]) -> None:
        while line := stream.readline(MAX_LINE_BYTES):
            with suppress(msgspec.MsgspecError):
                self._messages.put(decode_message(line))
        self._messages.put(None)


def _held(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
