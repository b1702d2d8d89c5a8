"""Whether a device can run a release."""

from pathlib import Path

import msgspec
import pytest

from overair.core import fit
from overair.formats.gguf import read_gguf
from overair.host.memory import memory
from overair.model.release import Requirements
from support.models import gemma3, smollm2
from support.tiny_model import write_tiny_model


@pytest.mark.parametrize(
    ("engine", "build"),
    [
        ("xllamacpp 2026.10.11549", 11549),
        ("xllamacpp 2026.10", None),
        ("llama_server 6123 (0a1b2c3)", 6123),
        ("llama_server b6123", 6123),
        ("llama_server of an unknown version", None),
        ("llama_cpp 0.3.36", None),
        ("mine 2026.10.11549", None),
        ("", None),
    ],
)
def test_the_build_of_llama_cpp_in_an_engine(engine: str, build: int | None) -> None:
    assert fit.llama_cpp_build(engine) == build


@pytest.mark.parametrize(
    ("version", "wanted", "holds"),
    [
        ((6000,), ">=6000", True),
        ((5999,), ">=6000", False),
        ((6000, 0), "==6000", True),
        ((6000,), ">6000.0", False),
        ((2, 10), ">=2.9", True),
        ((2, 10), ">= 2.9, <3", True),
        ((3,), ">=2.9,<3", False),
        ((7,), "!=7.0", False),
        ((7, 1), "<=7", False),
    ],
)
def test_ranges_are_compared_by_their_numbers(version: tuple[int, ...], wanted: str, holds: bool) -> None:
    assert fit.in_range(version, wanted) is holds


@pytest.mark.parametrize("text", ["6000", ">=", "~=6", ">=6;<7", ">=6,", ">=b6000", "", ">=6\n", ">=1.2.3.4.5"])
def test_what_is_not_a_range_is_refused_when_it_is_read(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"engines": {"llama.cpp": text}}, Requirements)


def test_the_memory_of_real_models_is_their_weights_and_their_cache() -> None:
    """Measured beside it, with 2048 tokens: 180 MB and 360 MB, the engine's own buffers included."""
    for path, expected in ((smollm2(), 145_548_352), (gemma3(), 290_861_760)):
        size = path.stat().st_size
        with path.open("rb") as file:
            metadata = read_gguf(file, size).metadata
        assert fit.memory_needed(metadata, weights_bytes=size, context_tokens=2048) == expected


def test_the_heads_may_differ_from_block_to_block(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "m.gguf")
    with path.open("rb") as file:
        metadata = dict(read_gguf(file, path.stat().st_size).metadata)
    plain = fit.memory_needed(metadata, weights_bytes=0, context_tokens=10)
    assert plain is not None
    layers, heads = metadata["llama.block_count"], metadata["llama.attention.head_count"]
    assert isinstance(layers, int)
    assert isinstance(heads, int)
    metadata["llama.attention.head_count_kv"] = (heads, *[0] * (layers - 1))
    assert fit.memory_needed(metadata, weights_bytes=0, context_tokens=10) == plain // layers


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"general.architecture": 7},
        {"general.architecture": "a"},
        {"general.architecture": "a", "a.block_count": True},
    ],
)
def test_what_a_file_does_not_tell_is_not_guessed(metadata: dict[str, object]) -> None:
    assert fit.memory_needed(metadata, weights_bytes=1, context_tokens=1) is None


def test_this_machine_has_memory() -> None:
    now = memory()
    assert now is not None
    assert 0 < now.available_bytes <= now.total_bytes
