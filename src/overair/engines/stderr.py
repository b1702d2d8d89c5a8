"""Why llama.cpp did not load a file: it says so on file descriptor 2 only."""

import os
import re
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

MAX_CAPTURED_BYTES: Final = 1 << 18
MAX_REASON_CHARACTERS: Final = 300
_SETTLE_SECONDS: Final = 1.0
_SETTLED_AFTER_SECONDS: Final = 0.02

# "0.00.004.314 E llama_model_load: error loading model: …": minutes to microseconds, the level, then the message.
_LOG_LINE: Final = re.compile(r"\d+\.\d\d\.\d{3}\.\d{3} (?P<level>[A-Z]) (?P<message>.*)")
_COMPLAINT: Final = re.compile("error|failed|invalid|unknown", re.IGNORECASE)
_FUNCTION: Final = re.compile(r"^(?:\w+ +)?[\w~:]+: ")

# A process has one descriptor 2: two captures at once would restore each other's file.
_capturing = threading.Lock()
_log_files: list[Path] = []


def log_to(path: Path) -> None:
    """Say that descriptor 2 of this process leads to the file at `path` already: captures read what is added there.

    A process that is to die of a bad model must not hide its last words in a file of its own.
    """
    _log_files[:] = [path]


@contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """Collect what llama.cpp logs on file descriptor 2; the list is complete when the block ends.

    Lines that are not in the form of llama.cpp's log come from others in this process: they are written to the
    real descriptor when the block ends, the last `MAX_CAPTURED_BYTES` of them. Without a descriptor 2 (a program
    with windows only) nothing is collected.
    """
    log: list[str] = []
    if _log_files:
        with _log_files[0].open("rb") as file:
            begin = file.seek(0, os.SEEK_END)
            try:
                yield log
            except Exception:
                _settle(file, begin)
                raise
            finally:
                log.extend(_tail(file, begin))
        return
    with _capturing, tempfile.TemporaryFile() as file:
        try:
            real = os.dup(2)
        except OSError:
            yield log
            return
        os.dup2(file.fileno(), 2)
        try:
            yield log
        except Exception:
            _settle(file)
            raise
        finally:
            os.dup2(real, 2)
            os.close(real)
            lines = _tail(file)
            log.extend(line for line in lines if _LOG_LINE.match(line))
            os.write(2, "".join(f"{line}\n" for line in lines if not _LOG_LINE.match(line)).encode())


def reason(log: Iterable[str]) -> str:
    """Return the line that tells why a load failed, without its prefix, or "" if there is none.

    llama.cpp reports from the inside out: the first error says what is wrong, those after it that the load failed.
    """
    lines = list(log)
    matches = [match for line in lines if (match := _LOG_LINE.match(line))]
    errors = [match["message"] for match in matches if match["level"] == "E"]
    complaints = errors or [line for line in lines if _COMPLAINT.search(line)]
    return _FUNCTION.sub("", complaints[0].strip(), count=1)[:MAX_REASON_CHARACTERS] if complaints else ""


def _settle(file: BinaryIO, begin: int = 0) -> None:
    """Wait until the log grows no more: a thread of llama.cpp writes it, and may be behind when a load has failed."""
    deadline, before = time.monotonic() + _SETTLE_SECONDS, begin
    while time.monotonic() < deadline:
        time.sleep(_SETTLED_AFTER_SECONDS)
        length = os.fstat(file.fileno()).st_size
        if begin < length == before:
            return
        before = length


def _tail(file: BinaryIO, begin: int = 0) -> list[str]:
    length = file.seek(0, os.SEEK_END)
    file.seek(max(begin, length - MAX_CAPTURED_BYTES))
    return file.read().decode(errors="replace").splitlines()
