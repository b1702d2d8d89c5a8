"""An engine that does what its model file says: a second implementation of `Engine`, small and the same each time."""

import ctypes
import hashlib
import os
import signal
import time
from pathlib import Path

from overair.errors import EngineError, EngineMissingError
from overair.model.release import Bundle


class ScriptedEngine:
    """Runs models that are texts: each line after the first is `WHEN ACTION`, as in `load kill` or `generate fail`.

    `generate@50 ACTION` is for the 50th answer alone.
    """

    name = "scripted"
    version = "scripted 1"

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.answers = 0
        self._path: Path | None = None

    def load(self, bundle: Bundle) -> None:
        self.loads.append(bundle.version)
        self._path = bundle.model
        self._act("load")

    def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
        if self._path is None:
            raise EngineError("nothing is loaded")
        self.answers += 1
        done = self._act("generate") or self._act(f"generate@{self.answers}")
        if done in {"empty", "blank"}:
            return "" if done == "empty" else " \n"
        # Read again each time: a file that was taken away or replaced meanwhile shows.
        return f"{self._lines()[0]}: {prompt}"[:max_tokens]

    def unload(self) -> None:
        self._path = None

    def _lines(self) -> list[str]:
        if self._path is None:
            raise EngineError("nothing is loaded")
        try:
            return self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise EngineError(f"cannot read {self._path}: {error}") from error

    def _act(self, when: str) -> str:
        for line in self._lines()[1:]:
            moment, _, action = line.partition(" ")
            if moment != when:
                continue
            if action == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)  # the signal ends this
            if action == "segfault":
                ctypes.string_at(0)
            if action == "hang":
                compute_for_ever()
            if action == "fail":
                raise EngineError(f"{when} failed on purpose")
            if action == "missing":
                raise EngineMissingError("the engine is gone")
            return action
        return ""


def compute_for_ever() -> None:
    """Compute in C without the interpreter's lock, as llama.cpp does: no handler written in Python runs meanwhile."""
    print("ready", flush=True)  # the test reads it
    hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)
