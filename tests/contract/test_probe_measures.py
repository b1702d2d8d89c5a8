"""What engines tell of their answers, and how likely they find a text: by real llama.cpp, on each that is installed."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from overair.engines.base import SERVER_VARIABLE, Engine, create, installed
from overair.engines.measure import Measures, Predicts, measure, measured
from overair.engines.probe import probe
from overair.errors import EngineError
from overair.model.probe import ProbeCause, ProbeLimits
from support.bad_engines import Good
from support.bad_models import flip_bytes, nan_scales, shuffle_vocabulary
from support.models import smollm2
from support.stand_in_server import write_stand_in
from support.tiny_model import break_weights, bundle_of, write_tiny_model

PROMPT: Final = "How are you today?"
SENTENCE: Final = "The sun rises in the east and sets in the west."


@pytest.fixture(params=["xllamacpp", "llama_cpp", "llama_server"])
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    found: str = request.param
    if found == "llama_server" and found not in installed() and "xllamacpp" in installed():
        monkeypatch.setenv(SERVER_VARIABLE, str(write_stand_in(tmp_path)))
    if found not in installed():
        pytest.skip(f"the engine {found} is not installed")
    return found


@pytest.fixture
def engine(name: str) -> Iterator[Engine]:
    engine = create(name, context_tokens=512, threads=1)
    yield engine
    engine.unload()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.gguf")


def test_a_measured_answer_is_the_usual_one(engine: Engine, tiny: Path) -> None:
    engine.load(bundle_of(tiny))
    found = measure(engine, PROMPT, max_tokens=24)
    assert found.text == engine.generate(PROMPT, max_tokens=24)
    assert found.tokens == 24
    assert found.tokens_per_second is not None
    assert 0 < 23 / found.tokens_per_second <= found.seconds
    assert found.first_token_s is None or 0 < found.first_token_s <= found.seconds


def test_the_rate_is_that_of_the_tokens_after_the_first() -> None:
    timings = {"prompt_ms": 250.0, "predicted_n": 11, "predicted_ms": 500.0}
    answer = {"usage": {"completion_tokens": 11}, "timings": timings}
    full = measured("text", answer, 0.9)
    assert (full.tokens, full.first_token_s, full.tokens_per_second) == (11, 0.25, 20.0)
    by_the_clock = measured("text", {"usage": {"completion_tokens": 11}}, 2.0)
    assert (by_the_clock.first_token_s, by_the_clock.tokens_per_second) == (None, 5.0)
    for nothing in ({}, {"usage": {"completion_tokens": 1}, "timings": timings}, {"usage": {"completion_tokens": "x"}}):
        assert measured("text", nothing, 2.0).tokens_per_second is None


def test_probabilities_are_given_when_asked_for_and_change_nothing(engine: Engine, tiny: Path) -> None:
    engine.load(bundle_of(tiny))
    plain = measure(engine, PROMPT, max_tokens=8)
    asked = measure(engine, PROMPT, max_tokens=8, logprobs=True)
    assert plain.logprobs == ()
    assert asked.text == plain.text
    if isinstance(engine, Predicts):
        assert len(asked.logprobs) == 8
        # The likeliest of 399 tokens is likelier than chance.
        assert all(logprob is not None and -math.log(399) < logprob < 0 for logprob in asked.logprobs)


def test_an_engine_that_tells_nothing_is_measured_by_the_clock(tiny: Path) -> None:
    engine = Good()
    engine.load(bundle_of(tiny))
    found = measure(engine, PROMPT, max_tokens=24)
    assert found.text
    assert (found.tokens, found.tokens_per_second, found.first_token_s) == (None, None, None)
    assert not isinstance(engine, Measures)


def test_nothing_is_measured_and_nothing_predicted_before_a_load(engine: Engine) -> None:
    with pytest.raises(EngineError, match="no model loaded"):
        measure(engine, PROMPT, max_tokens=8)
    if isinstance(engine, Predicts):
        with pytest.raises(EngineError, match="no model loaded"):
            engine.predict(SENTENCE)


def test_a_text_is_predicted_token_by_token(engine: Engine, tiny: Path) -> None:
    if not isinstance(engine, Predicts):
        pytest.skip(f"{engine.name} has no log-probabilities")
    engine.load(bundle_of(tiny))
    found = engine.predict(SENTENCE)
    assert len(found) > 20
    assert all(logprob is not None and logprob < 0 for logprob in found)
    assert engine.predict(SENTENCE) == found
    assert len(engine.predict("word " * 400)) <= 64


@pytest.mark.model
def test_a_real_model_finds_sense_likelier_than_nonsense(engine: Engine, tmp_path: Path) -> None:
    if not isinstance(engine, Predicts):
        pytest.skip(f"{engine.name} has no log-probabilities")

    def mean(text: str) -> float:
        known = [logprob for logprob in engine.predict(text) if logprob is not None]
        return math.fsum(known) / len(known)

    engine.load(bundle_of(smollm2()))
    sense, nonsense = mean(SENTENCE), mean("West the in sets and east the in rises sun the.")
    assert -3 < sense < -1
    assert nonsense < sense - 1.5
    # The likeliest continuation is as likely when it is forced as when it is chosen.
    chosen = measure(engine, PROMPT, max_tokens=1, logprobs=True).logprobs
    assert len(chosen) == 1
    engine.load(bundle_of(shuffle_vocabulary(smollm2(), tmp_path / "shuffled.gguf")))
    assert mean(SENTENCE) < -8


def test_tensors_are_checked_when_that_is_asked_for(name: str, tiny: Path, tmp_path: Path) -> None:
    if name == "llama_cpp":
        pytest.skip("llama-cpp-python has no way to ask for it")
    bad = bundle_of(nan_scales(tiny, tmp_path / "bad.gguf"))
    unchecked = create(name, context_tokens=64, threads=1)
    unchecked.load(bad)
    assert None in measure(unchecked, PROMPT, max_tokens=4, logprobs=True).logprobs
    unchecked.unload()
    with pytest.raises(EngineError, match="has invalid data"):
        create(name, context_tokens=64, threads=1, check_tensors=True).load(bad)


def test_each_engine_can_be_probed(name: str, tiny: Path, tmp_path: Path) -> None:
    good = probe(bundle_of(tiny), engine=name, context_tokens=512)
    assert good.passed, good.reason
    assert good.engine.startswith(f"{name} ")
    assert good.figures.tokens == 72
    missing = probe(bundle_of(break_weights(tiny, tmp_path / "bad.gguf")), engine=name, context_tokens=512)
    assert (missing.passed, missing.cause) == (False, ProbeCause.LOAD)
    assert "'output_norm.weight' not found" in missing.reason
    flipped = probe(bundle_of(flip_bytes(tiny, tmp_path / "flipped.gguf")), engine=name, context_tokens=512)
    assert not flipped.passed


def test_the_memory_of_a_server_in_a_process_of_its_own_counts(name: str, tiny: Path) -> None:
    if name != "llama_server":
        pytest.skip("the others load in the probe's own process")
    result = probe(bundle_of(tiny), engine=name, limits=ProbeLimits(memory_bytes=40_000_000, load_s=30.0))
    assert (result.passed, result.cause) == (False, ProbeCause.MEMORY)
