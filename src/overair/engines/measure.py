"""How long an answer takes, and how likely a text is: by the figures of llama.cpp where an engine has them."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

from overair.engines.base import Engine
from overair.errors import EngineError
from overair.model.probe import Measured

MAX_TEXT_TOKENS: Final = 64

# Added to a logit, it makes any token the likeliest; the log-probabilities are of the logits before.
_FORCED: Final = 1e9


@runtime_checkable
class Measures(Protocol):
    """An engine that knows how many tokens it answered, and how fast."""

    def measure(self, prompt: str, *, max_tokens: int, logprobs: bool = False) -> Measured:
        """Answer as `generate` does, and tell what it took; `logprobs` asks for them, and may slow it down."""


@runtime_checkable
class Predicts(Protocol):
    """An engine that tells how likely a text is."""

    def predict(self, text: str) -> tuple[float | None, ...]:
        """Return the log-probability of each of the first tokens of `text` but the very first; None is not a number.

        Raises:
            EngineError: It cannot tell.
        """


def measure(engine: Engine, prompt: str, *, max_tokens: int, logprobs: bool = False) -> Measured:
    """Ask an engine, and tell what the answer took: by its own figures, or by the clock.

    Raises:
        EngineError: See `Engine.generate`.
    """
    if isinstance(engine, Measures):
        return engine.measure(prompt, max_tokens=max_tokens, logprobs=logprobs)
    started = time.perf_counter()
    text = engine.generate(prompt, max_tokens=max_tokens)
    return Measured(text=text, seconds=time.perf_counter() - started)


def measured(text: str, answer: Any, seconds: float) -> Measured:
    """What llama.cpp says of an answer; fields that it does not have, as in older versions, are None.

    The first token comes at the end of the prompt's evaluation, so it has no share in the rate of those after it.
    """
    timings = answer.get("timings") or {}
    tokens = (answer.get("usage") or {}).get("completion_tokens")
    if not isinstance(tokens, int):
        tokens = None
    generating = _number(timings.get("predicted_ms")) or (None if timings else seconds * 1000)
    waiting = _number(timings.get("prompt_ms"))
    rate = (tokens - 1) * 1000 / generating if tokens and tokens > 1 and generating else None
    return Measured(
        text=text,
        seconds=seconds,
        tokens=tokens,
        first_token_s=None if waiting is None else waiting / 1000,
        tokens_per_second=rate,
        logprobs=tuple(_logprobs(answer)),
    )


def predict(tokens: Sequence[int], ask: Callable[[dict[str, Any]], Any]) -> Iterator[float | None]:
    """Yield the log-probability of each of `tokens` but the first, each after those before it.

    llama.cpp has log-probabilities of the tokens that it chose only. So each is made the chosen one in turn: that
    costs what generating as many tokens costs, since what was evaluated stays in the cache. A token that is the first
    part of a character has none, and is left out.

    Args:
        tokens: What the text is made of, by their numbers.
        ask: Sends a request for a completion, and returns the answer.
    """
    for place in range(1, min(len(tokens), MAX_TEXT_TOKENS)):
        yield from _logprobs(
            ask(
                {
                    "prompt": list(tokens[:place]),
                    "max_tokens": 1,
                    "temperature": 0.0,
                    "logit_bias": [[tokens[place], _FORCED]],
                    "n_probs": 1,
                    "cache_prompt": True,
                }
            )
        )


def token_numbers(engine: str, answer: Any) -> list[int]:
    """The tokens in an answer of llama.cpp to `/tokenize`.

    Raises:
        EngineError: It has another shape.
    """
    match answer:
        case {"tokens": [*tokens]} if tokens and all(isinstance(token, int) for token in tokens):
            return tokens
        case _:
            raise EngineError(f"{engine} does not tell the tokens of a text")


def _logprobs(answer: Any) -> Iterator[float | None]:
    match answer:
        case {"choices": [{"logprobs": {"content": [*tokens]}}, *_]}:
            for token in tokens:
                if isinstance(token, Mapping) and "logprob" in token:
                    yield _number(token["logprob"])
        case _:
            return


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
