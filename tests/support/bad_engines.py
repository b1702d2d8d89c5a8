"""Engines of an app's own, for probes: each is `support.bad_engines:NAME`, and does what its name says, for real."""

# ruff: noqa: ARG002  # what is broken does not look at what it is given

import ctypes
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from overair.engines.stderr import captured_stderr
from overair.errors import EngineError, EngineMissingError
from overair.model.probe import Measured
from overair.model.release import Bundle

SLEEPER = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
_HANG_SECONDS = 60
_ANSWERS = ("The sea is wide, and blue, and older than the hills.", "Paris, on the Seine.", "One, two, three, four.")


class Good:
    """Answers in words, and knows nothing else: no tokens, no probabilities."""

    name = "good"
    version = "good 1"

    def __init__(self, *, context_tokens: int = 2048, threads: int | None = None) -> None:
        self.asked = 0
        self._loaded: Bundle | None = None

    def load(self, bundle: Bundle) -> None:
        self._loaded = bundle

    def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
        if self._loaded is None:
            raise EngineError("nothing is loaded")
        self.asked += 1
        return _ANSWERS[self.asked % len(_ANSWERS)][: 4 * max_tokens]

    def unload(self) -> None:
        self._loaded = None


class SegfaultsAtLoad(Good):
    def load(self, bundle: Bundle) -> None:
        segfault()


class SegfaultsAtFirstAnswer(Good):
    fatal = 1

    def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
        answer = super().generate(prompt, max_tokens=max_tokens)
        if self.asked == self.fatal:
            segfault()
        return answer


class SegfaultsAtFiftiethAnswer(SegfaultsAtFirstAnswer):
    fatal = 50


class AbortsWithWords(Good):
    def load(self, bundle: Bundle) -> None:
        os.write(2, b"/src/ggml.c:42: GGML_ASSERT(nb00 == sizeof(float)) failed\n")
        os.abort()


class AbortsWhileItIsCaptured(AbortsWithWords):
    def load(self, bundle: Bundle) -> None:
        with captured_stderr():
            super().load(bundle)


class HangsAtLoad(Good):
    def load(self, bundle: Bundle) -> None:
        hang()


class HangsInPythonAtLoad(Good):
    """Waits where a signal that Python handles ends it."""

    def load(self, bundle: Bundle) -> None:
        time.sleep(_HANG_SECONDS)


class HangsAtFirstAnswer(Good):
    def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
        hang()
        return ""


class HangsAtUnload(Good):
    def unload(self) -> None:
        hang()


class SegfaultsAtUnload(Good):
    def unload(self) -> None:
        segfault()


class LeavesAtLoad(Good):
    """Ends the process as if all were well."""

    def load(self, bundle: Bundle) -> None:
        os._exit(0)


class NeedsMuchMemory(Good):
    def load(self, bundle: Bundle) -> None:
        held = []
        for _ in range(200):
            held.append(b"x" * 10_000_000)
            time.sleep(0.01)
        super().load(bundle)
        del held


class LogsForEver(Good):
    def load(self, bundle: Bundle) -> None:
        while True:
            os.write(2, b"tensor 'x': an error that is said over and over\n" * 1000)


class PrintsToOutput(Good):
    def load(self, bundle: Bundle) -> None:
        os.write(1, b'{"type": "missing", "message": "not a message of the probe", "hint": ""}\n')
        super().load(bundle)


class StartsOthers(Good):
    """Leaves a process behind, in a session of its own; where it is stands beside the model."""

    def load(self, bundle: Bundle) -> None:
        other = subprocess.Popen(SLEEPER, start_new_session=True, stdin=subprocess.DEVNULL)
        Path(f"{bundle.model}.pid").write_text(str(other.pid), encoding="ascii")
        super().load(bundle)
        self.wait()

    def wait(self) -> None:
        hang()


class StartsOthersAndDies(StartsOthers):
    """The other has nobody then who could tell where it came from."""

    def load(self, bundle: Bundle) -> None:
        threading.Timer(1.6, segfault).start()
        super().load(bundle)

    def wait(self) -> None:
        time.sleep(_HANG_SECONDS)


class RaisesAtLoad(Good):
    def load(self, bundle: Bundle) -> None:
        raise KeyError("no such\nlayer")


class IsNotInstalled(Good):
    def __init__(self, *, context_tokens: int = 2048, threads: int | None = None) -> None:
        raise EngineMissingError("the engine needs a chip that is not here")


class SaysNothing(Good):
    def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
        return " \n"


class RepeatsItself(Good):
    def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
        return " west" * max_tokens


class SaysNoText(Good):
    def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
        return "".join(f"{number % 10}\N{REPLACEMENT CHARACTER}" for number in range(max_tokens))


class Measuring(Good):
    """Makes a hundred tokens a second."""

    seconds_a_token = 0.01

    def measure(self, prompt: str, *, max_tokens: int, logprobs: bool = False) -> Measured:
        started = time.perf_counter()
        time.sleep(self.seconds_a_token * max_tokens)
        taken = time.perf_counter() - started
        text = self.generate(prompt, max_tokens=max_tokens)
        rate = max_tokens / taken
        return Measured(text=text, seconds=taken, tokens=max_tokens, tokens_per_second=rate)


class FiveTimesSlower(Measuring):
    seconds_a_token = 0.05


class SlowAmongOthers(FiveTimesSlower):
    """While other programs take all processors."""

    def load(self, bundle: Bundle) -> None:
        super().load(bundle)
        busy = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            "import time\nend = time.monotonic() + 6\nwhile time.monotonic() < end: pass",
        ]
        for _ in range(os.cpu_count() or 1):
            subprocess.Popen(busy, stdin=subprocess.DEVNULL)


class SlowAtFirst(Measuring):
    """As on a machine that is busy for a while."""

    seconds_a_token = 0.05

    def measure(self, prompt: str, *, max_tokens: int, logprobs: bool = False) -> Measured:
        measured = super().measure(prompt, max_tokens=max_tokens)
        if self.asked >= 2:
            self.seconds_a_token = 0.005
        return measured


def segfault() -> None:
    ctypes.string_at(0)


def hang() -> None:
    """As native code does: nothing else of Python runs meanwhile, and no signal is looked at."""
    if sys.platform == "win32":
        time.sleep(_HANG_SECONDS)
    else:
        ctypes.PyDLL(None).sleep(_HANG_SECONDS)
