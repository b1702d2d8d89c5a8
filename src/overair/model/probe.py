"""What a probe asks of a release before it may become current, what it measures, and its verdict."""

from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec

MAX_PROMPTS: Final = 64
MAX_EXPECTATIONS: Final = 64
MAX_ANSWER_TOKENS: Final = 1024
MAX_PROBE_SECONDS: Final = 3600.0
MAX_SCHEMA_BYTES: Final = 1 << 16

Prompt = Annotated[str, msgspec.Meta(min_length=1, max_length=8192)]
TokenCount = Annotated[int, msgspec.Meta(ge=1, le=MAX_ANSWER_TOKENS, description="tokens")]
Rate = Annotated[float, msgspec.Meta(ge=0, le=1e6)]


class Expectation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the answer to a prompt must be: one of `matches`, `schema` and `one_of` is given.

    A later version may know more kinds; one that is not known here is left out, and the result says so.

    Args:
        prompt: What is asked.
        matches: A regular expression of Python that is found somewhere in the answer.
        schema: A JSON Schema (draft 7) that the answer, read as JSON, fulfils. It refers to nothing outside itself.
        one_of: The answers that are allowed; case and the space around them do not matter.
        max_tokens: How long the answer may be.
    """

    prompt: Prompt
    matches: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)] | None = None
    schema: dict[str, Any] | None = None
    one_of: Annotated[tuple[Annotated[str, msgspec.Meta(max_length=1000)], ...], msgspec.Meta(max_length=64)] = ()
    max_tokens: TokenCount = 64

    def __post_init__(self) -> None:
        given = [self.matches is not None, self.schema is not None, bool(self.one_of)]
        if sum(given) > 1:
            raise ValueError("expected one of matches, schema and one_of")
        if self.schema is not None and len(msgspec.json.encode(self.schema)) > MAX_SCHEMA_BYTES:
            raise ValueError(f"expected a schema of at most {MAX_SCHEMA_BYTES} bytes")


class PerplexityLimit(msgspec.Struct, frozen=True, kw_only=True):
    """The highest perplexity that passes on a text, of which an engine looks at the first tokens only."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    value: Annotated[float, msgspec.Meta(ge=1)]


class ProbePolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a probe asks a release, and what passes.

    Args:
        prompts: What is asked; without any, three built-in prompts are.
        expect: Answers that are looked at more closely; asked after the prompts.
        min_tokens_per_second: The slowest answer that passes.
        min_speed_ratio: The slowest that passes, as a part of the speed of the current model on the same device.
        max_perplexity: How badly the model may predict a text; without it, a plain sentence is predicted, and only
            a model that has lost its language fails.
        max_tokens: How long an answer to one of `prompts` may be.
        timeout_s: How long the load and each answer may take, in seconds.
    """

    prompts: Annotated[tuple[Prompt, ...], msgspec.Meta(max_length=MAX_PROMPTS)] = ()
    expect: Annotated[tuple[Expectation, ...], msgspec.Meta(max_length=MAX_EXPECTATIONS)] = ()
    min_tokens_per_second: Rate | None = None
    min_speed_ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    max_perplexity: PerplexityLimit | None = None
    max_tokens: TokenCount = 24
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_PROBE_SECONDS)] | None = None


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """An answer and what it took.

    Args:
        text: The answer.
        seconds: From the question to the end of the answer.
        tokens: How many tokens the answer has, or None if the engine does not count.
        first_token_s: From the question to the first token, in seconds, or None if the engine does not tell.
        tokens_per_second: The rate after the first token, or None.
        logprobs: The natural logarithm of the probability of each token where it was asked for; None is not a number.
    """

    text: str
    seconds: float
    tokens: int | None = None
    first_token_s: float | None = None
    tokens_per_second: float | None = None
    logprobs: tuple[float | None, ...] = ()


class ProbeCause(StrEnum):
    """Which kind of thing made a probe fail."""

    LOAD = "load"
    ANSWER = "answer"
    CRASH = "crash"
    HANG = "hang"
    MEMORY = "memory"
    OUTPUT = "output"
    EXPECTATION = "expectation"
    PERPLEXITY = "perplexity"
    SPEED = "speed"


class ProbeFigures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a probe measured; None is what it did not come to, or what the engine does not tell.

    Args:
        load_s: The load, in seconds.
        first_token_s: From a question to the first token, in seconds: the longest of the prompts.
        tokens_per_second: The rate of the fastest answer.
        tokens: How many tokens were answered.
        perplexity: On the text that the policy gives, or on the built-in sentence.
        peak_bytes: The most memory that the engine held, the mapped model file included.
        seconds: The whole probe, the start of its process included.
    """

    load_s: float | None = None
    first_token_s: float | None = None
    tokens_per_second: float | None = None
    tokens: int | None = None
    perplexity: float | None = None
    peak_bytes: int | None = None
    seconds: float | None = None


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The verdict of a probe. No prompt and no generated text is in it.

    Args:
        passed: Whether the release may become current.
        engine: The engine's name and version.
        cause: Which kind of thing made it fail, or None when it passed.
        reason: One line that says why it failed; empty when it passed.
        figures: What was measured, as far as the probe came.
        skipped: One line for each check that was left out, and why.
    """

    passed: bool
    engine: str
    cause: ProbeCause | None = None
    reason: str = ""
    figures: ProbeFigures = ProbeFigures()
    skipped: tuple[str, ...] = ()


class ProbeLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a probe may take.

    Args:
        load_s: The load, in seconds.
        answer_s: Each answer, and each look at a text, in seconds.
        unload_s: The unload and the end of the process, in seconds.
        total_s: All of it, in seconds.
        memory_bytes: What the engine may hold at once, the mapped model file included, or None for what there is.
    """

    load_s: float = 600.0
    answer_s: float = 120.0
    unload_s: float = 20.0
    total_s: float = 1800.0
    memory_bytes: int | None = None
