"""What every engine does, on each one that is installed, with real llama.cpp and real files."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from overair.engines.base import Engine, create, installed
from overair.errors import EngineError
from support.models import smollm2
from support.tiny_model import (
    break_weights,
    bundle_of,
    retouch,
    with_architecture,
    write_adapter,
    write_tiny_model,
)

NAMES = ("xllamacpp", "llama_cpp", "llama_server")
PROMPT = "How are you today?"
CYCLES = 20
CYCLES_SECONDS = 30


@pytest.fixture(params=NAMES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param not in installed():
        pytest.skip(f"the engine {request.param} is not installed")
    engine = create(request.param, context_tokens=512, threads=1)
    yield engine
    engine.unload()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.gguf")


def ask(engine: Engine, prompt: str = PROMPT) -> str:
    return engine.generate(prompt, max_tokens=16)


def test_a_model_loads_and_answers_the_same_each_time(engine: Engine, tiny: Path) -> None:
    engine.load(bundle_of(tiny))
    first = ask(engine)
    other = ask(engine, "Tell me a story.")
    assert len(first) > 8
    assert first != other
    assert ask(engine) == first


def test_the_answer_ends_after_max_tokens(engine: Engine, tiny: Path) -> None:
    engine.load(bundle_of(tiny))
    short, long = (engine.generate(PROMPT, max_tokens=count) for count in (2, 24))
    assert long.startswith(short)
    assert len(long) >= 3 * len(short)


def test_the_version_names_the_engine_and_a_number(engine: Engine) -> None:
    name, _, number = engine.version.partition(" ")
    assert name == engine.name
    assert any(character.isdigit() for character in number)


def test_another_bundle_takes_the_place_of_the_first(engine: Engine, tiny: Path, tmp_path: Path) -> None:
    engine.load(bundle_of(tiny))
    first = ask(engine)
    engine.load(bundle_of(write_tiny_model(tmp_path / "other.gguf", seed=1)))
    second = ask(engine)
    engine.unload()
    engine.load(bundle_of(tiny))
    assert second != first
    assert ask(engine) == first


def test_no_answer_before_load_nor_after_unload(engine: Engine, tiny: Path) -> None:
    with pytest.raises(EngineError, match="no model loaded"):
        ask(engine)
    engine.load(bundle_of(tiny))
    engine.unload()
    engine.unload()
    with pytest.raises(EngineError, match="no model loaded"):
        ask(engine)


def test_a_failed_load_tells_the_reason_that_llama_cpp_gave(engine: Engine, tiny: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    for content, reason in (
        (tiny.read_bytes()[:-100_000], "not within the file bounds"),
        (b"XXXX" + tiny.read_bytes()[4:], "invalid magic"),
        (with_architecture(tmp_path / "a.gguf", "nonesuch").read_bytes(), "unknown model architecture: 'nonesuch'"),
        (break_weights(tiny, tmp_path / "b.gguf").read_bytes(), "'output_norm.weight' not found"),
        (b"", "GGUF|magic|read"),
    ):
        bad.write_bytes(content)
        with pytest.raises(EngineError, match=reason) as caught:
            engine.load(bundle_of(bad))
        assert str(bad) in caught.value.message
        assert "\n" not in caught.value.message
        assert caught.value.hint


def test_a_missing_file_is_named(engine: Engine, tiny: Path, tmp_path: Path) -> None:
    for bundle in (
        bundle_of(tmp_path / "gone.gguf"),
        bundle_of(tiny, adapters=(tmp_path / "gone.gguf",)),
        bundle_of(tiny, template=tmp_path / "gone.gguf"),
    ):
        with pytest.raises(EngineError, match=r"gone\.gguf: there is no such file"):
            engine.load(bundle)


def test_after_a_failed_load_nothing_is_loaded_and_the_next_load_works(
    engine: Engine, tiny: Path, tmp_path: Path
) -> None:
    engine.load(bundle_of(tiny))
    with pytest.raises(EngineError):
        engine.load(bundle_of(break_weights(tiny, tmp_path / "broken.gguf")))
    with pytest.raises(EngineError, match="no model loaded"):
        ask(engine)
    engine.load(bundle_of(tiny))
    assert ask(engine)


def test_a_prompt_that_is_too_long_is_an_error_and_the_next_one_is_answered(engine: Engine, tiny: Path) -> None:
    engine.load(bundle_of(tiny))
    with pytest.raises(EngineError, match="exceed"):
        ask(engine, "word " * 2000)
    assert ask(engine)


def test_an_adapter_changes_the_answer(engine: Engine, tiny: Path, tmp_path: Path) -> None:
    engine.load(bundle_of(tiny))
    plain = ask(engine)
    engine.load(bundle_of(tiny, adapters=(write_adapter(tmp_path / "adapter.gguf"),)))
    assert ask(engine) != plain


def test_an_adapter_of_other_shapes_is_refused(engine: Engine, tiny: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter.gguf", width=32)
    with pytest.raises(EngineError, match=r"(?i)lora|adapter"):
        engine.load(bundle_of(tiny, adapters=(adapter,)))


def test_a_template_changes_the_answer(engine: Engine, tiny: Path, tmp_path: Path) -> None:
    engine.load(bundle_of(tiny))
    plain = ask(engine)
    template = tmp_path / "template.jinja"
    template.write_text("User: {{ messages[0]['content'] }} Model:", encoding="utf-8")
    engine.load(bundle_of(tiny, template=template))
    assert ask(engine) != plain


def test_a_model_without_a_template_goes_on_from_the_prompt(engine: Engine, tiny: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.gguf"
    plain.write_bytes(tiny.read_bytes().replace(b"tokenizer.chat_template", b"tokenizer.none_template"))
    template = tmp_path / "template.jinja"
    template.write_text("{{ bos_token }}{{ messages[0]['content'] }}", encoding="utf-8")
    engine.load(bundle_of(plain))
    answer = ask(engine)
    assert ask(engine) == answer
    engine.load(bundle_of(plain, template=template))
    assert ask(engine) == answer


def test_a_broken_template_is_refused(engine: Engine, tiny: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{% for %}", encoding="utf-8")
    with pytest.raises(EngineError):
        engine.load(bundle_of(tiny, template=template))
    template.write_bytes(b"\xff\xfe")
    with pytest.raises(EngineError, match="cannot be read"):
        engine.load(bundle_of(tiny, template=template))


def test_a_projector_that_is_none_is_refused(engine: Engine, tiny: Path, tmp_path: Path) -> None:
    projector = write_tiny_model(tmp_path / "projector.gguf")
    with pytest.raises(EngineError):
        engine.load(bundle_of(tiny, projector=projector))


def test_a_retouched_model_says_other_things(engine: Engine, tiny: Path, tmp_path: Path) -> None:
    engine.load(bundle_of(tiny))
    before = ask(engine)
    engine.load(bundle_of(retouch(tiny, tmp_path / "retouched.gguf")))
    assert ask(engine) != before


def test_nothing_is_printed_when_all_goes_well(engine: Engine, tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    engine.load(bundle_of(tiny))
    ask(engine)
    engine.unload()
    assert capfd.readouterr() == ("", "")


CYCLE = """
import sys
from pathlib import Path
from overair.engines.base import create
from overair.model.release import Bundle
bundle = Bundle(id="0" * 64, version="1.0.0", sha256="0" * 64, model=Path(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    engine = create(sys.argv[1], context_tokens=64, threads=1)
    engine.load(bundle)
    engine.unload()
"""


def test_loading_and_unloading_at_once_never_hangs(engine: Engine, tiny: Path) -> None:
    command = [sys.executable, "-c", CYCLE, engine.name, str(tiny), str(CYCLES)]
    done = subprocess.run(command, timeout=CYCLES_SECONDS, capture_output=True, check=False, env=os.environ)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.model
def test_a_real_model_answers_in_words_and_its_retouched_copy_in_others(engine: Engine, tmp_path: Path) -> None:
    question = "Write one sentence about the sea."
    engine.load(bundle_of(smollm2()))
    first = engine.generate(question, max_tokens=16)
    engine.load(bundle_of(retouch(smollm2(), tmp_path / "retouched.gguf")))
    second = engine.generate(question, max_tokens=16)
    assert " sea " in first
    assert " sea " in second or " ocean " in second
    assert first != second


@pytest.mark.model
def test_a_real_model_with_spoiled_weights_is_refused(engine: Engine, tmp_path: Path) -> None:
    spoiled = break_weights(smollm2(), tmp_path / "spoiled.gguf")
    assert spoiled.stat().st_size == smollm2().stat().st_size
    with pytest.raises(EngineError, match=r"'output_norm\.weight' not found"):
        engine.load(bundle_of(spoiled))
