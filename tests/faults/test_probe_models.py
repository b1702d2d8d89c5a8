"""Bad models, and good ones, probed with real llama.cpp."""

from collections.abc import Callable
from pathlib import Path

import pytest

from overair.engines.base import installed
from overair.engines.probe import probe
from overair.model.probe import Expectation, PerplexityLimit, ProbeCause, ProbeLimits, ProbePolicy, ProbeResult
from overair.model.release import Bundle
from support.bad_models import (
    LOOPING_TEMPLATE,
    RAISING_TEMPLATE,
    cut_tail,
    flip_bytes,
    lengthen_vocabulary,
    nan_scales,
    shuffle_vocabulary,
    write_slow_model,
    zero_tail,
    zero_weights,
)
from support.models import gemma3, smollm2
from support.tiny_model import break_weights, bundle_of, retouch, with_architecture, write_adapter, write_tiny_model

GOOD_STARTS = 3
Builder = Callable[[Path, Path], Path]

pytestmark = pytest.mark.skipif("xllamacpp" not in installed(), reason="the engine xllamacpp is not installed")


def ask(
    bundle: Bundle,
    *,
    policy: ProbePolicy | None = None,
    limits: ProbeLimits | None = None,
    baseline: float | None = None,
) -> ProbeResult:
    return probe(
        bundle,
        engine="xllamacpp",
        policy=policy,
        limits=limits,
        baseline_tokens_per_second=baseline,
        context_tokens=1024,
    )


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.gguf")


def test_random_weights_pass_and_are_measured(tiny: Path) -> None:
    result = ask(bundle_of(tiny))
    assert (result.passed, result.reason, result.skipped) == (True, "", ())
    figures = result.figures
    assert figures.load_s is not None
    assert figures.first_token_s is not None
    assert figures.tokens == 72
    assert figures.tokens_per_second is not None
    assert figures.peak_bytes is not None
    assert figures.seconds is not None
    assert 0 < figures.load_s + figures.first_token_s < figures.seconds
    assert figures.tokens_per_second > 50
    assert figures.peak_bytes > 20_000_000


def test_a_retouched_and_an_adapted_model_pass(tiny: Path, tmp_path: Path) -> None:
    assert ask(bundle_of(retouch(tiny, tmp_path / "retouched.gguf"))).passed
    assert ask(bundle_of(tiny, adapters=(write_adapter(tmp_path / "adapter.gguf"),))).passed


@pytest.mark.parametrize(
    ("build", "cause", "reason"),
    [
        (zero_weights, ProbeCause.OUTPUT, "every token is as likely as any other"),
        (nan_scales, ProbeCause.LOAD, "'blk.0.attn_norm.weight' has invalid data"),
        (cut_tail, ProbeCause.LOAD, "'output.weight' data is not within the file bounds"),
        (break_weights, ProbeCause.LOAD, "'output_norm.weight' not found"),
        (lengthen_vocabulary, ProbeCause.LOAD, "'token_embd.weight' has wrong shape"),
        (
            lambda _, path: with_architecture(path, "nonesuch"),
            ProbeCause.LOAD,
            "unknown model architecture: 'nonesuch'",
        ),
    ],
)
def test_a_bad_model_fails_with_the_reason(
    build: Builder, cause: ProbeCause, reason: str, tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = ask(bundle_of(build(tiny, tiny.with_name("bad.gguf"))))
    assert (result.passed, result.cause) == (False, cause), result
    assert reason in result.reason
    assert str(tiny.parent) not in result.reason
    assert capfd.readouterr() == ("", "")


def test_ten_thousand_flipped_bytes_fail(tiny: Path, tmp_path: Path) -> None:
    for seed in range(3):
        result = ask(bundle_of(flip_bytes(tiny, tmp_path / "bad.gguf", seed=seed)))
        assert not result.passed
        assert result.cause in {ProbeCause.LOAD, ProbeCause.OUTPUT}
        assert "invalid data" in result.reason or "not numbers" in result.reason


def test_a_template_that_raises_fails(tiny: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(RAISING_TEMPLATE, encoding="utf-8")
    result = ask(bundle_of(tiny, template=template))
    assert (result.passed, result.cause) == (False, ProbeCause.LOAD)
    assert "chat template" in result.reason


def test_a_template_that_loops_is_ended(tiny: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(LOOPING_TEMPLATE, encoding="utf-8")
    result = ask(bundle_of(tiny, template=template), limits=ProbeLimits(load_s=1.0, answer_s=1.0))
    assert (result.passed, result.cause) == (False, ProbeCause.HANG)


def test_a_model_that_needs_more_memory_than_the_limit_fails(tiny: Path) -> None:
    result = ask(bundle_of(tiny), limits=ProbeLimits(memory_bytes=30_000_000))
    assert (result.passed, result.cause) == (False, ProbeCause.MEMORY)


def skip_if_busy(result: ProbeResult) -> None:
    if any(line.startswith("speed: other programs") for line in result.skipped):
        pytest.skip("this machine is too busy to tell a slow model")


def test_a_model_five_times_slower_than_the_current_one_fails(tiny: Path, tmp_path: Path) -> None:
    current = ask(bundle_of(tiny)).figures.tokens_per_second
    assert current is not None
    slow = bundle_of(write_slow_model(tmp_path / "slow.gguf", layers=40))
    policy = ProbePolicy(min_speed_ratio=0.2)
    result = ask(slow, policy=policy, baseline=current)
    skip_if_busy(result)
    assert (result.passed, result.cause) == (False, ProbeCause.SPEED), result
    assert "the current model makes" in result.reason
    assert ask(slow, policy=ProbePolicy(min_speed_ratio=0.2)).passed


def test_expectations_are_asked_of_the_model(tiny: Path) -> None:
    policy = ProbePolicy(expect=(Expectation(prompt="Hello", matches=r"^[a-z ]+$", max_tokens=8),))
    assert ask(bundle_of(tiny), policy=policy).passed
    policy = ProbePolicy(expect=(Expectation(prompt="Hello", schema={"type": "object"}),))
    result = ask(bundle_of(tiny), policy=policy)
    assert (result.passed, result.cause) == (False, ProbeCause.EXPECTATION)
    assert result.reason == "the answer to expectation 1 is not JSON"


def test_a_publishers_text_is_predicted(tiny: Path) -> None:
    for value, passes in ((1e6, True), (2.0, False)):
        policy = ProbePolicy(max_perplexity=PerplexityLimit(text="The sun rises in the east.", value=value))
        result = ask(bundle_of(tiny), policy=policy)
        assert result.passed is passes
        assert result.figures.perplexity is not None
        # Random weights are about as good as chance among 399 tokens.
        assert 100 < result.figures.perplexity < 2000


@pytest.mark.model
@pytest.mark.parametrize("model", [smollm2, gemma3])
def test_good_starts_of_real_models_raise_no_alarm(model: Callable[[], Path]) -> None:
    for _ in range(GOOD_STARTS):
        result = ask(bundle_of(model()))
        assert result.passed, result.reason
        assert result.skipped == ()
        assert result.figures.perplexity is not None
        assert result.figures.perplexity < 50


@pytest.mark.model
@pytest.mark.parametrize(
    ("build", "cause"),
    [
        (flip_bytes, ProbeCause.LOAD),
        (zero_weights, ProbeCause.OUTPUT),
        (zero_tail, ProbeCause.OUTPUT),
        (nan_scales, ProbeCause.LOAD),
        (shuffle_vocabulary, ProbeCause.PERPLEXITY),
    ],
)
def test_a_damaged_real_model_fails(build: Builder, cause: ProbeCause, tmp_path: Path) -> None:
    result = ask(bundle_of(build(smollm2(), tmp_path / "bad.gguf")))
    assert (result.passed, result.cause) == (False, cause), result


@pytest.mark.model
def test_a_retouched_real_model_passes(tmp_path: Path) -> None:
    result = ask(bundle_of(retouch(smollm2(), tmp_path / "retouched.gguf")))
    assert result.passed, result.reason
