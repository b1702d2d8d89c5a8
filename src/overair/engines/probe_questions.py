"""What a probe asks a release, in the probe's own process, and what it takes down."""

import math
import time
from collections.abc import Callable
from typing import Final

from overair.core.expectation import UncheckableError, unmet
from overair.core.verdict import (
    BUILT_IN_PROMPTS,
    BUILT_IN_TEXT,
    MIN_JUDGED_VOCABULARY,
    Observed,
    fastest,
    judge,
    perplexity,
    speed_floor,
)
from overair.engines.base import Engine
from overair.engines.measure import Predicts, measure
from overair.engines.probe_wire import Judged, Message, Missing, Order, Reached, Step, one_line
from overair.errors import EngineError, EngineMissingError, GGUFError, OverairError
from overair.formats.gguf import ArraySummary, read_gguf
from overair.model.probe import Measured, ProbeCause, ProbeFigures

# Enough to see values that are not numbers.
NUMBERS_TOKENS: Final = 8
SPEED_TRIES: Final = 2
SPEED_PAUSE_SECONDS: Final = 1.0
# Above that, what is slow may be the machine: measured, SmolLM2 makes a seventh of its speed among busy programs.
MAX_BUSY_PERCENT: Final = 50.0


class Questions:
    """One release on one engine.

    Args:
        order: What is asked.
        engine: With nothing loaded.
        version: Its name and version.
        send: Takes what the parent is told: each step before it begins, so that the parent knows what takes too long.
    """

    def __init__(self, order: Order, engine: Engine, version: str, send: Callable[[Message], None]) -> None:
        self._order = order
        self._policy = order.policy
        self._prompts = order.policy.prompts or BUILT_IN_PROMPTS
        self._engine = engine
        self._version = version
        self._send = send
        self._step = Step.START
        self._asked = 0
        self._load_s: float | None = None
        self._skipped: list[str] = []

    def run(self) -> None:
        """Load, ask, judge, say the verdict, unload."""
        try:
            self._load()
            judged = self._judged(self._observed())
        except EngineMissingError as error:
            self._send(Missing(message=error.message, hint=error.hint))
            return
        except ImportError as error:  # the engine's library, not the model
            self._send(Missing(message=f"the engine cannot be imported: {error}", hint=""))
            return
        except Exception as error:  # noqa: BLE001  # an engine of the app's own may raise anything: that is the verdict
            judged = self._failed(error)
        self._send(judged)
        self._reach(Step.UNLOAD)
        self._engine.unload()

    def _load(self) -> None:
        self._reach(Step.LOAD)
        started = time.perf_counter()
        self._engine.load(self._order.bundle)
        self._load_s = time.perf_counter() - started

    def _observed(self) -> Observed:
        # Probabilities slow an answer down: they are asked for in the last, and speed is that of the others.
        *others, last = self._prompts
        timed = tuple(self._ask(prompt, self._policy.max_tokens) for prompt in others or (last,))
        numbered = self._ask(last, self._policy.max_tokens if others else NUMBERS_TOKENS, logprobs=True)
        if not numbered.logprobs:
            self._skipped.append("values that are not numbers: the engine gives no log-probabilities")
        unmet_expectations = self._unmet()
        vocabulary = self._vocabulary()
        return Observed(
            answers=(*timed, numbered) if others else timed,
            unmet=unmet_expectations,
            logprobs=numbered.logprobs,
            text_logprobs=self._predicted(vocabulary),
            vocabulary=vocabulary,
            tokens_per_second=self._speed(timed),
        )

    def _ask(self, prompt: str, max_tokens: int, *, logprobs: bool = False) -> Measured:
        self._reach(Step.ANSWER)
        return measure(self._engine, prompt, max_tokens=max_tokens, logprobs=logprobs)

    def _unmet(self) -> tuple[str, ...]:
        found = []
        for number, expectation in enumerate(self._policy.expect, 1):
            answer = self._ask(expectation.prompt, expectation.max_tokens)
            # A regular expression may take for ever.
            self._reach(Step.JUDGE)
            try:
                fault = unmet(expectation, answer.text)
            except UncheckableError as error:
                self._skipped.append(f"expectation {number}: {error}")
                continue
            if fault:
                found.append(f"the answer to expectation {number} {fault}")
        return tuple(found)

    def _vocabulary(self) -> int | None:
        path = self._order.bundle.model
        try:
            with path.open("rb") as file:
                tokens = read_gguf(file, path.stat().st_size).metadata.get("tokenizer.ggml.tokens")
        except (OSError, GGUFError):  # an engine of the app's own may load other files
            return None
        return tokens.length if isinstance(tokens, ArraySummary) else len(tokens) if isinstance(tokens, tuple) else None

    def _predicted(self, vocabulary: int | None) -> tuple[float | None, ...]:
        limit = self._policy.max_perplexity
        if limit is None and (vocabulary is None or vocabulary < MIN_JUDGED_VOCABULARY):
            return ()
        if not isinstance(self._engine, Predicts):
            self._skipped.append("perplexity: the engine gives no log-probabilities")
            return ()
        self._reach(Step.ANSWER)
        try:
            return self._engine.predict(limit.text if limit else BUILT_IN_TEXT)
        except EngineError as error:
            self._skipped.append(f"perplexity: {error.message[:200]}")
            return ()

    def _speed(self, answers: tuple[Measured, ...]) -> float | None:
        """The rate of the fastest answer; one that is too slow is asked again, and not judged on a busy machine."""
        floor = speed_floor(self._policy, self._order.baseline_tokens_per_second)
        rate = fastest(answers)
        if self._policy.min_speed_ratio and self._order.baseline_tokens_per_second is None:
            self._skipped.append("speed compared to the current model: that of the current model is not known")
        if rate is None:
            if floor:
                self._skipped.append("speed: the engine does not count tokens")
            return None
        busy = []
        for _ in range(SPEED_TRIES):
            if rate >= floor:
                break
            busy.append(_busy_percent(SPEED_PAUSE_SECONDS))
            again = tuple(self._ask(prompt, self._policy.max_tokens) for prompt in self._prompts[:1])
            rate = max(rate, fastest(again) or 0.0)
        if rate < floor and min(busy) > MAX_BUSY_PERCENT:
            self._skipped.append(f"speed: other programs took {min(busy):.0f}% of the processors")
            return None
        return rate

    def _judged(self, observed: Observed) -> Judged:
        self._reach(Step.JUDGE)
        fault = judge(self._policy, observed, baseline_tokens_per_second=self._order.baseline_tokens_per_second)
        value = perplexity(observed.text_logprobs)
        waits = [answer.first_token_s for answer in observed.answers if answer.first_token_s is not None]
        counts = [answer.tokens for answer in observed.answers if answer.tokens is not None]
        return Judged(
            engine=self._version,
            cause=fault.cause if fault else None,
            reason=fault.reason if fault else "",
            figures=ProbeFigures(
                load_s=self._load_s,
                first_token_s=max(waits, default=None),
                tokens_per_second=observed.tokens_per_second,
                tokens=sum(counts) if counts else None,
                perplexity=value if value is not None and math.isfinite(value) else None,
            ),
            skipped=tuple(self._skipped),
        )

    def _failed(self, error: Exception) -> Judged:
        message = error.message if isinstance(error, OverairError) else f"{type(error).__name__}: {error}"
        cause = ProbeCause.LOAD if self._step is Step.LOAD else ProbeCause.ANSWER
        return Judged(
            engine=self._version,
            cause=ProbeCause.MEMORY if isinstance(error, MemoryError) else cause,
            reason=one_line(message, self._order.bundle),
            figures=ProbeFigures(load_s=self._load_s),
            skipped=tuple(self._skipped),
        )

    def _reach(self, step: Step) -> None:
        self._step = step
        self._asked += step is Step.ANSWER
        self._send(Reached(step=step, number=self._asked if step is Step.ANSWER else 0))


def _busy_percent(seconds: float) -> float:
    """How much of the processors others take: this process does nothing meanwhile."""
    import psutil

    return float(psutil.cpu_percent(interval=seconds))
