"""Probes a release: a process of its own loads it, asks it, and is judged; whatever happens there stays there.

Nothing of the release is loaded in this process, and nothing that happens in the other is an exception here: a crash, a
hang, too much memory are verdicts. Only what says nothing about the release is raised.
"""

import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

import msgspec

from overair.engines.probe_process import ProbeProcess
from overair.engines.probe_wire import Judged, Missing, Order, Reached, Step, one_line
from overair.engines.stderr import reason
from overair.errors import CancelledError, EngineMissingError
from overair.model.probe import ProbeCause, ProbeLimits, ProbePolicy, ProbeResult
from overair.model.release import Bundle

START_SECONDS: Final = 60.0
MAX_LOG_BYTES: Final = 1 << 24

_LOOK_SECONDS: Final = 0.05
_END_SECONDS: Final = 5.0
_VMSTAT: Final = Path("/proc/vmstat")
_AGAIN: Final = "nothing is known of the model: try again"
# A shutdown or a person, not the model. Windows has none of these.
_ASKED_TO_END: Final = frozenset(
    -int(getattr(signal, name)) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)
_SIGKILL: Final = 9


def probe(
    bundle: Bundle,
    *,
    engine: str,
    policy: ProbePolicy | None = None,
    baseline_tokens_per_second: float | None = None,
    context_tokens: int = 2048,
    limits: ProbeLimits | None = None,
    cancel: threading.Event | None = None,
) -> ProbeResult:
    """Load a bundle in a process of its own, ask it, and judge it.

    Args:
        bundle: What to load.
        engine: The engine that the app uses; see `overair.engines.base.create`.
        policy: What to ask, and what passes; without one, the built-in questions.
        baseline_tokens_per_second: What a probe measured of the current model on this device, for `min_speed_ratio`.
        context_tokens: How many tokens a prompt and its answer may have together.
        limits: What it may take; `policy.timeout_s` overrides those of the load and of each answer.
        cancel: Ends the probe when it is set.

    Raises:
        EngineMissingError: The engine, or a process of its own, is not to be had here: this says nothing about the
            bundle.
        CancelledError: `cancel` was set, or the process was asked to end from outside.
    """
    with _folder() as folder:
        log = Path(folder, "log")
        order = Order(
            engine=engine,
            bundle=bundle,
            policy=policy or ProbePolicy(),
            context_tokens=context_tokens,
            baseline_tokens_per_second=baseline_tokens_per_second,
            log=log,
            parent=os.getpid(),
        )
        process = ProbeProcess(log)
        try:
            process.order(order)
            return _Watch(process, order, limits or ProbeLimits(), cancel).until_the_end()
        finally:
            process.end()


class _Watch:
    """Follows a probe step by step, and looks at the clock and at the memory between."""

    def __init__(
        self, process: ProbeProcess, order: Order, limits: ProbeLimits, cancel: threading.Event | None
    ) -> None:
        policy = order.policy
        self._process = process
        self._order = order
        self._limits = limits
        self._cancel = cancel
        self._seconds = {
            Step.START: START_SECONDS,
            Step.LOAD: policy.timeout_s or limits.load_s,
            Step.ANSWER: policy.timeout_s or limits.answer_s,
            Step.JUDGE: policy.timeout_s or limits.answer_s,
            Step.UNLOAD: limits.unload_s,
        }
        self._started = self._reached_at = time.monotonic()
        self._reached = Reached(step=Step.START)
        self._began = True
        self._judged: Judged | None = None
        self._peak_bytes = 0
        self._kills_before = _memory_kills()

    def until_the_end(self) -> ProbeResult:
        """Return the verdict; the process may still run then."""
        while True:
            fault = self._look()
            if fault is not None:
                return self._failed(*fault)
            try:
                message = self._process.next_message(_LOOK_SECONDS)
            except queue.Empty:
                continue
            match message:
                case Reached():
                    self._reached, self._reached_at, self._began = message, time.monotonic(), True
                case Judged():
                    self._judged = message
                case Missing():
                    raise EngineMissingError(message.message, hint=message.hint)
                case None:
                    return self._ended()

    def _look(self) -> tuple[ProbeCause, str] | None:
        """What it does that it may not."""
        if self._cancel is not None and self._cancel.is_set():
            raise CancelledError("the probe was cancelled", hint=_AGAIN)
        held, limit = self._process.held_bytes(anew=self._began), self._limits.memory_bytes
        self._began = False
        self._peak_bytes = max(self._peak_bytes, held)
        if limit is not None and held > limit:
            return ProbeCause.MEMORY, f"it held {held} bytes of memory {self._doing()}, and {limit} are the limit"
        if self._process.log_bytes() > MAX_LOG_BYTES:
            return self._cause(), f"it logged more than {MAX_LOG_BYTES} bytes {self._doing()}{self._log_reason()}"
        return self._late()

    def _late(self) -> tuple[ProbeCause, str] | None:
        now, step = time.monotonic(), self._reached.step
        if now - self._started > self._limits.total_s:
            return ProbeCause.HANG, f"the probe took more than {self._limits.total_s:g} s; it was {self._doing()}"
        if now - self._reached_at <= self._seconds[step]:
            return None
        if step is Step.START:
            raise EngineMissingError(f"the probe's process did not start in {START_SECONDS:g} s", hint=_AGAIN)
        return ProbeCause.HANG, f"it hangs {self._doing()}: nothing came in {self._seconds[step]:g} s"

    def _ended(self) -> ProbeResult:
        try:
            code = self._process.exit_code(_END_SECONDS)
        except subprocess.TimeoutExpired:  # it closed what it tells us by, and runs on
            return self._failed(ProbeCause.HANG, f"it hangs {self._doing()}")
        if code in _ASKED_TO_END:
            raise CancelledError(f"the probe's process was ended from outside by {_name(code)}", hint=_AGAIN)
        if self._reached.step is Step.START:
            raise EngineMissingError(f"the probe's process did not begin: {_name(code)}{self._log_reason()}")
        if code == 0 and self._judged is not None:
            return self._result(self._judged.cause, self._judged.reason)
        if code == -_SIGKILL and (kills := _memory_kills() - self._kills_before) > 0:
            return self._failed(
                ProbeCause.MEMORY, f"the system ran out of memory and ended it {self._doing()} ({kills} such kills)"
            )
        return self._failed(ProbeCause.CRASH, f"it ended {self._doing()}, by {_name(code)}{self._log_reason()}")

    def _failed(self, cause: ProbeCause, why: str) -> ProbeResult:
        """A verdict from outside; one that came from inside before, and was bad already, says more."""
        if self._judged is not None and self._judged.cause is not None:
            return self._result(self._judged.cause, self._judged.reason)
        return self._result(cause, one_line(why, self._order.bundle))

    def _result(self, cause: ProbeCause | None, why: str) -> ProbeResult:
        judged = self._judged or Judged(engine=self._order.engine)
        return ProbeResult(
            passed=cause is None,
            engine=judged.engine,
            cause=cause,
            reason=why,
            figures=msgspec.structs.replace(
                judged.figures,
                peak_bytes=self._peak_bytes or None,
                seconds=time.monotonic() - self._started,
            ),
            skipped=judged.skipped,
        )

    def _cause(self) -> ProbeCause:
        return ProbeCause.LOAD if self._reached.step is Step.LOAD else ProbeCause.ANSWER

    def _doing(self) -> str:
        step, number = self._reached.step, self._reached.number
        return {Step.ANSWER: f"at answer {number}", Step.JUDGE: "while it was judged"}.get(step, f"at {step}")

    def _log_reason(self) -> str:
        words = self._last_words()
        return f": {words}" if words else ""

    def _last_words(self) -> str:
        return reason(self._process.log_lines())


def _folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="overair-probe-", ignore_cleanup_errors=True)
    except OSError as error:
        raise EngineMissingError(f"the probe has no folder for its log: {error}", hint=_AGAIN) from error


def _name(code: int) -> str:
    """What ended a process: a signal's name, or its exit code, on Windows the status of an exception (0xC0000005)."""
    if code >= 0:
        return f"exit code {code}" if code < 256 else f"status 0x{code:08X}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _memory_kills() -> int:
    """How many processes this system has killed for want of memory; 0 where it does not tell."""
    try:
        lines = _VMSTAT.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
