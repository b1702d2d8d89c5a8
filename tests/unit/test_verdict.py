"""What measurements say of a release: what fails, and as important, what does not."""

import math
import re
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.core.expectation import UncheckableError, require_checkable, unmet
from overair.core.verdict import Observed, fastest, judge, perplexity, repeats_one_token, speed_floor
from overair.errors import UsageError
from overair.model.probe import Expectation, Measured, PerplexityLimit, ProbeCause, ProbePolicy

VOCABULARY = 49_152
GOOD = ("The capital of France is Paris.", "The sea is wide and blue.", "1 2 3 4 5 6 7 8 9 10")
# What SmolLM2 and Gemma 3 really answer to the built-in prompts: they repeat themselves, and work.
LOOPING = (
    "\n\nWhat is 2+2?\n\nWhat is 2+2?\n\nWhat is 2+2?\n\nWhat is 2+2?",
    "la femme au martyre, la femme au martyre, la femme au martyre, la femme au",
    "\n\n\nThe sea is a sea.\n\n\nThe sea is a sea.\n\n\n",
)


def answered(*texts: str, tokens: int | None = 24, rate: float | None = None) -> tuple[Measured, ...]:
    return tuple(Measured(text=text, seconds=1.0, tokens=tokens, tokens_per_second=rate) for text in texts)


def cause(observed: Observed, policy: ProbePolicy | None = None, baseline: float | None = None) -> ProbeCause | None:
    fault = judge(policy or ProbePolicy(), observed, baseline_tokens_per_second=baseline)
    assert fault is None or (fault.reason and "\n" not in fault.reason)
    return fault.cause if fault else None


@pytest.mark.parametrize("texts", [GOOD, LOOPING, ("", GOOD[0], ""), ("ha ha", "no no no", "1"), ("\n\n1", " ", "")])
@pytest.mark.parametrize("tokens", [24, None])
def test_what_a_working_model_says_passes(texts: tuple[str, ...], tokens: int | None) -> None:
    observed = Observed(
        answers=answered(*texts, tokens=tokens),
        logprobs=(-0.5, -3.0, -9.9),
        text_logprobs=(-2.0, -6.0),
        vocabulary=VOCABULARY,
    )
    assert cause(observed) is None


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (Observed(answered(*GOOD), logprobs=(-1.0, None)), "not numbers"),
        (Observed(answered(*GOOD), text_logprobs=(None, -1.0)), "not numbers"),
        (Observed(answered(*GOOD), logprobs=(-math.log(VOCABULARY),) * 3, vocabulary=VOCABULARY), "as likely as any"),
        (Observed(answered(" \n", "", "\t")), r"empty \(prompt 1, 2, 3 of 3\)"),
        (Observed(answered("6" * 24, "6" * 24, "." * 24)), "one token"),
        (Observed(answered(*["visualizar" + " visualizar" * 22] * 3)), "one token"),
        (Observed(answered(*[" west" * 9] * 3, tokens=None)), "one token"),
        (Observed(answered(*["a\ufffd\ufffdb\ufffdc"] * 3)), "UTF-8"),
        (Observed(answered(*["\udcff broken"] * 3)), "UTF-8"),
        (Observed(answered(*GOOD), unmet=("the answer to expectation 1 is not JSON",)), "expectation 1 is not JSON"),
        (Observed(answered(*GOOD), text_logprobs=(-9.0, -8.0), vocabulary=VOCABULARY), "lost its language"),
        (Observed(answered(*GOOD), text_logprobs=(-3e38,) * 20, vocabulary=VOCABULARY), "inf"),
    ],
)
def test_what_a_broken_model_says_fails(observed: Observed, expected: str) -> None:
    fault = judge(ProbePolicy(), observed)
    assert fault is not None
    assert re.search(expected, fault.reason), fault.reason


def test_chance_is_judged_by_the_best_token_of_all() -> None:
    flat = -math.log(VOCABULARY)
    assert cause(Observed(answered(*GOOD), logprobs=(flat, flat, flat + 0.1), vocabulary=VOCABULARY)) is None
    assert cause(Observed(answered(*GOOD), logprobs=(flat,) * 3, vocabulary=None)) is None


def test_one_good_answer_is_no_repetition_and_one_mark_at_the_end_is_no_damage() -> None:
    assert cause(Observed(answered("6" * 24, "6" * 24, GOOD[0]))) is None
    assert cause(Observed(answered("caf\ufffd", "h\ufffd", "na\ufffd"))) is None


def test_a_loop_of_two_tokens_is_no_repetition_of_one() -> None:
    assert repeats_one_token(*answered("no, " * 24, tokens=24))
    assert not repeats_one_token(*answered("no, " * 12, tokens=24))
    assert not repeats_one_token(*answered("6" * 7, tokens=7))
    assert not repeats_one_token(*answered("Write one sentence about the sea.\n\n" * 12, tokens=None))
    assert not repeats_one_token(*answered("", tokens=24))


@given(unit=st.text(min_size=1, max_size=12), times=st.integers(8, 40), cut=st.integers(0, 11))
def test_one_token_over_and_over_is_seen_wherever_it_is_cut(unit: str, times: int, cut: int) -> None:
    text = (unit * (times + 1))[cut % len(unit) :]
    assert repeats_one_token(*answered(text, tokens=times))


def test_a_publishers_prompt_must_have_an_answer() -> None:
    observed = Observed(answered("", "yes"))
    assert cause(observed) is None
    assert cause(observed, ProbePolicy(prompts=("a", "b"))) is ProbeCause.OUTPUT


def test_a_publishers_perplexity_replaces_the_built_in_one() -> None:
    observed = Observed(answered(*GOOD), text_logprobs=(-9.0, -8.0), vocabulary=VOCABULARY)
    assert cause(observed) is ProbeCause.PERPLEXITY
    assert cause(observed, ProbePolicy(max_perplexity=PerplexityLimit(text="ACGT", value=1e4))) is None
    better = Observed(answered(*GOOD), text_logprobs=(-3.0, -3.0), vocabulary=VOCABULARY)
    assert cause(better) is None
    assert cause(better, ProbePolicy(max_perplexity=PerplexityLimit(text="x", value=20.0))) is ProbeCause.PERPLEXITY


def test_a_small_vocabulary_is_not_judged_by_english() -> None:
    assert cause(Observed(answered(*GOOD), text_logprobs=(-9.0, -9.0), vocabulary=399)) is None


def test_perplexity_is_the_exponential_of_the_mean() -> None:
    assert perplexity((math.log(0.5), math.log(0.125))) == pytest.approx(4.0)
    assert perplexity(()) is None
    assert perplexity((-1.0, None)) is None


def test_speed_is_the_fastest_answers_and_the_higher_floor_holds() -> None:
    policy = ProbePolicy(min_tokens_per_second=2.0, min_speed_ratio=0.5)
    answers = (*answered("a", rate=3.0), *answered("b", rate=9.0), *answered("c"))
    assert fastest(answers) == 9.0
    assert fastest(answered("a")) is None
    assert speed_floor(policy, None) == 2.0
    assert speed_floor(policy, 30.0) == 15.0
    assert speed_floor(ProbePolicy(), 30.0) == 0.0
    assert cause(Observed(answers, tokens_per_second=9.0), policy) is None
    assert cause(Observed(answers, tokens_per_second=9.0), policy, baseline=30.0) is ProbeCause.SPEED
    assert cause(Observed(answers, tokens_per_second=1.9), policy) is ProbeCause.SPEED
    assert cause(Observed(answers, tokens_per_second=None), policy, baseline=30.0) is None


SCHEMA = {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}}


@pytest.mark.parametrize(
    ("expectation", "answer", "expected"),
    [
        (Expectation(prompt="p", matches=r"\bParis\b"), "It is Paris, of course.", ""),
        (Expectation(prompt="p", matches=r"\bParis\b"), "Parisian", "does not match its pattern"),
        (Expectation(prompt="p", one_of=("Yes", "No")), " yes\n", ""),
        (Expectation(prompt="p", one_of=("Yes", "No")), "maybe", "is not one of the answers allowed"),
        (Expectation(prompt="p", schema=SCHEMA), '{"city": "Paris"}', ""),
        (Expectation(prompt="p", schema=SCHEMA), '```json\n{"city": "Paris"}\n```', ""),
        (Expectation(prompt="p", schema=SCHEMA), '{"city": 7}', "does not fulfil its schema"),
        (Expectation(prompt="p", schema=SCHEMA), "The city is Paris.", "is not JSON"),
        (Expectation(prompt="p", schema=SCHEMA), "[" * 100_000, "is not JSON"),
    ],
)
def test_an_answer_is_what_is_expected_or_not(expectation: Expectation, answer: str, expected: str) -> None:
    assert unmet(expectation, answer) == expected


@pytest.mark.parametrize(
    ("expectation", "why"),
    [
        (Expectation(prompt="p", matches="(open"), "not a regular expression"),
        (Expectation(prompt="p", schema={"type": "nonesuch"}), "not a schema"),
        (Expectation(prompt="p", schema={"$ref": "http://127.0.0.1:9/schema.json"}), "another document"),
        (Expectation(prompt="p", schema={"$ref": "file:///etc/passwd"}), "another document"),
        (Expectation(prompt="p", schema={"pattern": "("}), "not a schema"),
        (Expectation(prompt="p"), "does not know its kind"),
    ],
)
def test_an_expectation_that_is_none_is_said_to_be_so(expectation: Expectation, why: str) -> None:
    with pytest.raises(UncheckableError, match=why):
        unmet(expectation, '{"a": 1}')
    with pytest.raises(UsageError, match=rf"expect\[1\].*{why}"):
        require_checkable(ProbePolicy(expect=(Expectation(prompt="p", matches="a"), expectation)))


def test_a_schema_writes_no_program_of_its_own() -> None:
    for text in ('"); raise SystemExit(7)  #', "'''+exit(7)+'''", "{exit(7)}"):
        schema = {"properties": {text: {"type": "string", "enum": [text], "pattern": "^a"}}, "required": [text]}
        assert unmet(Expectation(prompt="p", schema=schema), msgspec.json.encode({text: "b"}).decode())


def test_a_policy_reads_what_was_published_before_and_refuses_what_contradicts_itself() -> None:
    old = msgspec.json.decode(b'{"prompts": ["Hi"], "min_tokens_per_second": 2.0, "later": 1}', type=ProbePolicy)
    assert old == ProbePolicy(prompts=("Hi",), min_tokens_per_second=2.0)
    assert msgspec.json.encode(ProbePolicy()) == b"{}"
    for bad in (
        b'{"expect": [{"prompt": "p", "matches": "a", "one_of": ["b"]}]}',
        b'{"expect": [{"prompt": "p", "matches": "%s"}]}' % (b"a" * 1001),
        b'{"expect": [{"prompt": "p", "schema": {"a": "%s"}}]}' % (b"a" * 70_000),
        b'{"max_tokens": 100000}',
        b'{"timeout_s": 0}',
        b'{"min_speed_ratio": 5}',
        b'{"prompts": [""]}',
    ):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(bad, type=ProbePolicy)


def test_the_rules_take_no_time_on_the_longest_answers() -> None:
    started = time.perf_counter()
    repeats_one_token(*answered("ab" * 500_000 + "c", tokens=None))
    assert time.perf_counter() - started < 0.5


def test_the_policy_in_the_documents_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "probe.md").read_text(encoding="utf-8")
    block = page.partition("```json\n")[2].partition("```")[0]
    policy = msgspec.json.decode(block, type=ProbePolicy)
    require_checkable(policy)
    assert len(policy.expect) == 3
    assert set(msgspec.to_builtins(policy)) == set(ProbePolicy.__struct_fields__) - {"max_tokens"}
