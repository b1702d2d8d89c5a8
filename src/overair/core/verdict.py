"""What a probe's measurements say of a release: the rules, without the machinery.

A false alarm costs more than a miss: what passes here is still on trial, while a good release that fails here never
runs. So each rule asks for what no working model does, and the publisher's own expectations ask for more.
"""

import math
from dataclasses import dataclass
from typing import Final

from overair.model.probe import Measured, ProbeCause, ProbePolicy

BUILT_IN_PROMPTS: Final = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Count from one to ten.",
)
BUILT_IN_TEXT: Final = "The sun rises in the east and sets in the west. Water is made of hydrogen and oxygen."

# Whole models of language predict plain English with a perplexity of 10 to 100, whatever they were made for; those that
# have lost their language are at thousands (docs/decisions/0010-probe.md has what was measured).
LOST_PERPLEXITY: Final = 2500.0
# Smaller vocabularies are of bytes, or of no language at all.
MIN_JUDGED_VOCABULARY: Final = 10_000

MIN_REPEATS: Final = 8
MAX_PERIOD: Final = 32
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_MAX_REPLACED_PART: Final = 0.25
_CHANCE_MARGIN: Final = 0.01
_LOOKED_AT: Final = 4096


@dataclass(frozen=True, slots=True)
class Observed:
    """What a probe saw.

    Args:
        answers: To the prompts, in their order.
        unmet: One line for each expectation that was not met.
        logprobs: Of the tokens of an answer, or nothing where the engine has none.
        text_logprobs: Of the tokens of the text that perplexity is measured on, or nothing.
        vocabulary: How many tokens the model knows, or None.
        tokens_per_second: The rate of the fastest answer, or None.
    """

    answers: tuple[Measured, ...]
    unmet: tuple[str, ...] = ()
    logprobs: tuple[float | None, ...] = ()
    text_logprobs: tuple[float | None, ...] = ()
    vocabulary: int | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a release does not pass."""

    cause: ProbeCause
    reason: str


def judge(policy: ProbePolicy, observed: Observed, *, baseline_tokens_per_second: float | None = None) -> Fault | None:
    """Return the first fault that was seen, the most telling first, or None if the release passes."""
    return (
        _not_numbers(observed)
        or _chance(observed)
        or _no_text(policy, observed)
        or _repetition(observed)
        or _not_text(observed)
        or _unexpected(observed)
        or _perplexed(policy, observed)
        or _slow(policy, observed, baseline_tokens_per_second)
    )


def perplexity(logprobs: tuple[float | None, ...]) -> float | None:
    """The perplexity of a text by the log-probabilities of its tokens; infinite if it is beyond what a float holds."""
    known = [logprob for logprob in logprobs if logprob is not None]
    if not known or len(known) < len(logprobs):
        return None
    try:
        return math.exp(-math.fsum(known) / len(known))
    except OverflowError:
        return math.inf


def speed_floor(policy: ProbePolicy, baseline_tokens_per_second: float | None) -> float:
    """The lowest rate that passes, in tokens a second; 0 if any does."""
    relative = (policy.min_speed_ratio or 0.0) * (baseline_tokens_per_second or 0.0)
    return max(policy.min_tokens_per_second or 0.0, relative)


def fastest(answers: tuple[Measured, ...]) -> float | None:
    """The highest rate among answers: whatever else runs on a machine only makes a model slower."""
    rates = [answer.tokens_per_second for answer in answers if answer.tokens_per_second is not None]
    return max(rates, default=None)


def repeats_one_token(answer: Measured) -> bool:
    """Whether an answer is one token over and over, from its first to its last.

    Sentences in a loop are not that: small models loop, and work. Where the engine does not count tokens, at least
    `MIN_REPEATS` of something no longer than `MAX_PERIOD` characters are taken for it.
    """
    text = answer.text[:_LOOKED_AT]
    period = _period(text)
    if period == 0 or period > MAX_PERIOD:
        return False
    times = len(text) / period
    # Some tokens have no text of their own, as one at the beginning.
    least = MIN_REPEATS if answer.tokens is None else max(MIN_REPEATS, 0.8 * answer.tokens)
    return times >= least


def _not_numbers(observed: Observed) -> Fault | None:
    if None in observed.logprobs or None in observed.text_logprobs:
        return Fault(ProbeCause.OUTPUT, "it computes values that are not numbers: its weights are damaged")
    return None


def _chance(observed: Observed) -> Fault | None:
    known = [logprob for logprob in observed.logprobs if logprob is not None]
    if not known or not observed.vocabulary or observed.vocabulary < 2:
        return None
    if max(known) < -math.log(observed.vocabulary) + _CHANCE_MARGIN:
        return Fault(ProbeCause.OUTPUT, "every token is as likely as any other: its weights are empty or damaged")
    return None


def _no_text(policy: ProbePolicy, observed: Observed) -> Fault | None:
    empty = [number for number, answer in enumerate(observed.answers, 1) if not answer.text.strip()]
    # The publisher saw answers to prompts of its own; a model need not have one to each of ours.
    if empty and (policy.prompts or len(empty) == len(observed.answers)):
        return Fault(ProbeCause.OUTPUT, f"its answer is empty ({_which(empty, observed)})")
    return None


def _repetition(observed: Observed) -> Fault | None:
    if observed.answers and all(repeats_one_token(answer) for answer in observed.answers):
        return Fault(ProbeCause.OUTPUT, "it says one token over and over")
    return None


def _not_text(observed: Observed) -> Fault | None:
    broken = [number for number, answer in enumerate(observed.answers, 1) if not _is_text(answer.text)]
    if broken and len(broken) == len(observed.answers):
        return Fault(ProbeCause.OUTPUT, "its answers are not valid UTF-8")
    return None


def _unexpected(observed: Observed) -> Fault | None:
    return Fault(ProbeCause.EXPECTATION, "; ".join(observed.unmet)[:500]) if observed.unmet else None


def _perplexed(policy: ProbePolicy, observed: Observed) -> Fault | None:
    value = perplexity(observed.text_logprobs)
    if value is None:
        return None
    if policy.max_perplexity is not None:
        limit = policy.max_perplexity.value
        what = "the perplexity"
    elif observed.vocabulary is not None and observed.vocabulary >= MIN_JUDGED_VOCABULARY:
        limit = LOST_PERPLEXITY
        what = "it has lost its language: the perplexity of a plain sentence"
    else:
        return None
    return (
        Fault(ProbeCause.PERPLEXITY, f"{what} is {value:.4g}, and {limit:.4g} is the most") if value > limit else None
    )


def _slow(policy: ProbePolicy, observed: Observed, baseline: float | None) -> Fault | None:
    rate, floor = observed.tokens_per_second, speed_floor(policy, baseline)
    if rate is None or rate >= floor:
        return None
    compared = f"; the current model makes {baseline:.1f}" if baseline and policy.min_speed_ratio else ""
    return Fault(ProbeCause.SPEED, f"{rate:.1f} tokens a second, and {floor:.1f} is the least{compared}")


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    # An answer that ends within a character has one mark at its end.
    return text.count(_REPLACEMENT) <= max(1, _MAX_REPLACED_PART * len(text))


def _period(text: str) -> int:
    """The length of the shortest string that `text` is made of, over and over, the last time perhaps not whole.

    The failure function of Knuth, Morris and Pratt: the longest part that is both its beginning and its end.
    """
    borders = [0] * len(text)
    border = 0
    for place in range(1, len(text)):
        while border and text[place] != text[border]:
            border = borders[border - 1]
        border += text[place] == text[border]
        borders[place] = border
    return len(text) - borders[-1] if text else 0


def _which(numbers: list[int], observed: Observed) -> str:
    return f"prompt {', '.join(map(str, numbers))} of {len(observed.answers)}"
