"""The GGUF reader says the same as llama.cpp's own `gguf` package, on its files and on real models."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gguf as oracle
import numpy as np
import pytest

from overair.errors import GGUFError
from overair.formats.gguf import GGUF, ArraySummary, read_gguf
from overair.formats.gguf_types import TENSOR_TYPES, VALUE_TYPES
from support.gguf_files import write_gguf
from support.models import gemma3, smollm2

Quantization = oracle.GGMLQuantizationType
Array = np.ndarray[Any, Any]


def read(path: Path) -> GGUF:
    with path.open("rb") as file:
        return read_gguf(file, path.stat().st_size)


class Comparison(NamedTuple):
    """One model, read by both in this process, and how long each took in seconds."""

    path: Path
    gguf: GGUF
    reader: Any
    seconds: float
    reader_seconds: float


def compare(path: Path) -> Comparison:
    start = time.perf_counter()
    gguf = read(path)
    between = time.perf_counter()
    reader = oracle.GGUFReader(path)
    return Comparison(path, gguf, reader, between - start, time.perf_counter() - between)


# The oracle takes some 3 s for SmolLM2 and 10 s for Gemma 3: each is read once.
@pytest.fixture(scope="module", params=[smollm2, gemma3], ids=["smollm2", "gemma3"])
def comparison(request: pytest.FixtureRequest) -> Comparison:
    find: Callable[[], Path] = request.param
    return compare(find())


def test_the_tensor_types_are_those_of_the_package() -> None:
    theirs = {kind.value: (kind.name, *oracle.GGML_QUANT_SIZES[kind]) for kind in Quantization}
    assert {number: tuple(kind) for number, kind in TENSOR_TYPES.items()} == theirs


def test_the_value_types_are_those_of_the_package() -> None:
    theirs = {kind.value: kind.name.lower() for kind in oracle.GGUFValueType}
    assert {number: kind.name for number, kind in VALUE_TYPES.items()} == theirs


@pytest.mark.parametrize("kind", list(Quantization), ids=lambda kind: str(kind.name))
def test_a_tensor_of_each_type_has_the_place_that_the_package_gives_it(tmp_path: Path, kind: Quantization) -> None:
    block_elements, block_bytes = oracle.GGML_QUANT_SIZES[kind]
    rows: Array = np.zeros((3, 2 * block_bytes), dtype=np.uint8)
    after: Array = np.zeros(4, dtype=np.float32)
    path = write_gguf(tmp_path / "m.gguf", tensors=[("a", rows, kind), ("after", after, Quantization.F32)])
    entry, other = read(path).tensors
    assert (entry.shape, entry.type_name, entry.size_bytes) == (
        (2 * block_elements, 3),
        kind.name,
        6 * block_bytes,
    )
    theirs = [tensor.data_offset for tensor in oracle.GGUFReader(path).tensors]
    assert [entry.offset, other.offset] == theirs


def test_a_big_endian_file_of_the_package_is_named(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", metadata={"a": (oracle.GGUFValueType.UINT32, 1)}, big_endian=True)
    with pytest.raises(GGUFError, match="big-endian"):
        read(path)


def test_the_parts_that_the_package_splits_are_read_as_parts(tmp_path: Path) -> None:
    writer = oracle.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=2)
    for name in "abcde":
        writer.add_tensor(name, np.zeros((4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    parts = [read(path) for path in sorted(tmp_path.iterdir())]
    assert [(p.split.index, p.split.count, p.split.tensor_count) for p in parts if p.split] == [
        (0, 3, 5),
        (1, 3, 5),
        (2, 3, 5),
    ]
    assert [len(part.tensors) for part in parts] == [2, 2, 1]


@pytest.mark.model
@pytest.mark.slow
def test_a_real_model_has_the_same_metadata(comparison: Comparison) -> None:
    fields = {name: f for name, f in comparison.reader.fields.items() if not name.startswith("GGUF.")}
    assert list(comparison.gguf.metadata) == list(fields)
    for name, ours in comparison.gguf.metadata.items():
        field = fields[name]
        if isinstance(ours, ArraySummary):
            assert (ours.length, ours.element_type) == (len(field.data), field.types[1].name.lower()), name
            # Behind the key stand its type, the elements' type and the length: 16 bytes.
            assert ours.offset == field.offset + 8 + len(name.encode()) + 16, name
        else:
            assert (list(ours) if isinstance(ours, tuple) else ours) == field.contents(), name


@pytest.mark.model
@pytest.mark.slow
def test_a_real_model_has_the_same_tensors(comparison: Comparison) -> None:
    theirs = [
        (t.name, tuple(t.shape.tolist()), t.tensor_type.name, t.data_offset, int(t.n_bytes))
        for t in comparison.reader.tensors
    ]
    assert [(t.name, t.shape, t.type_name, t.offset, t.size_bytes) for t in comparison.gguf.tensors] == theirs
    assert comparison.gguf.data_offset == comparison.reader.data_offset
    assert comparison.gguf.alignment == comparison.reader.alignment
    assert comparison.gguf.parameter_count == sum(int(t.n_elements) for t in comparison.reader.tensors)


@pytest.mark.model
@pytest.mark.slow
def test_a_real_model_is_read_at_least_20_times_faster(comparison: Comparison) -> None:
    assert comparison.reader_seconds > 20 * comparison.seconds


@pytest.mark.model
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize("find", [smollm2, gemma3], ids=["smollm2", "gemma3"])
def test_reading_a_real_model_takes_less_than_100_mb(find: Callable[[], Path]) -> None:
    program = (
        "import sys, pathlib; from overair.formats.gguf import read_gguf;"
        "path = pathlib.Path(sys.argv[1]); gguf = read_gguf(path.open('rb'), path.stat().st_size);"
        "print(len(gguf.tensors));"
        "print(next(l for l in pathlib.Path('/proc/self/status').open() if l.startswith('VmHWM')).split()[1])"
    )
    done = subprocess.run(  # the interpreter that runs this test, on a file of ours
        [sys.executable, "-c", program, str(find())], capture_output=True, text=True, check=True, timeout=60
    )
    tensors, peak_kib = map(int, done.stdout.split())
    assert tensors > 200
    assert peak_kib * 1024 < 100_000_000


@pytest.mark.model
def test_what_smollm2_is() -> None:
    gguf = read(smollm2())
    assert (gguf.architecture, gguf.parameter_count, gguf.quantization) == ("llama", 134_515_008, "Q4_1 mix")
    assert (gguf.context_length, gguf.embedding_length, gguf.block_count) == (8192, 576, 30)
    assert (gguf.tokenizer_model, gguf.tokenizer_size) == ("gpt2", 49_152)
    assert gguf.chat_template is not None
    assert "<|im_start|>" in gguf.chat_template


@pytest.mark.model
def test_what_gemma3_is() -> None:
    gguf = read(gemma3())
    assert (gguf.architecture, gguf.parameter_count, gguf.tokenizer_size) == ("gemma3", 268_098_176, 262_144)
    assert (gguf.context_length, gguf.tokenizer_model, gguf.chat_template) == (32_768, "llama", None)


@pytest.mark.model
def test_a_real_model_that_lost_its_last_byte_is_cut_short() -> None:
    path = smollm2()
    gguf = read(path)
    end = max(tensor.offset + tensor.size_bytes for tensor in gguf.tensors)
    with (
        path.open("rb") as file,
        pytest.raises(GGUFError, match=r"cut short: 1 of 272 .* 1 bytes are missing"),
    ):
        read_gguf(file, end - 1)
