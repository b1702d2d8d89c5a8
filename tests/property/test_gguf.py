"""Whatever bytes come, the GGUF reader answers with a GGUF or a GGUFError, soon and in little memory."""

import io
import tempfile
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf as oracle
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from overair.errors import GGUFError
from overair.formats.gguf import GGUF, ArraySummary, Value, read_gguf
from support.gguf_files import assemble, tensor, whole_file, write_gguf

WHOLE = whole_file()
Kind = oracle.GGUFValueType

# What breaks parsers: the edges of the integers that lengths, counts and offsets are stored in.
EDGES = [0, 1, 31, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**61, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1]

places = st.integers(0, len(WHOLE) - 1)
changes = st.lists(
    st.one_of(
        st.tuples(places, st.binary(min_size=1, max_size=8)),
        st.tuples(places, st.sampled_from(EDGES).map(lambda edge: edge.to_bytes(8, "little"))),
    ),
    min_size=1,
    max_size=4,
)


def read_or_refuse(data: bytes) -> GGUF | None:
    """Read in bounded memory; None if the file was refused. Anything but a GGUFError escapes."""
    tracemalloc.start()
    try:
        answer: GGUF | GGUFError = read_gguf(io.BytesIO(data), len(data))
    except GGUFError as error:
        answer = error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 500_000 + 50 * len(data)
    if isinstance(answer, GGUF):
        return answer
    assert answer.message.isprintable()
    assert answer.hint
    return None


def assert_whole(gguf: GGUF) -> None:
    ordered = sorted(gguf.tensors, key=lambda entry: entry.offset)
    for entry in ordered:
        assert (entry.offset - gguf.data_offset) % gguf.alignment == 0
        assert gguf.data_offset <= entry.offset < entry.offset + entry.size_bytes <= gguf.file_bytes
    for before, after in pairwise(ordered):
        assert before.offset + before.size_bytes <= after.offset


@settings(max_examples=400)
@given(changes=changes)
def test_a_changed_file_is_whole_or_refused(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(WHOLE)
    for place, new in changes:
        data[place : place + len(new)] = new
    gguf = read_or_refuse(bytes(data))
    if gguf is not None:
        assert_whole(gguf)


@settings(max_examples=150)
@given(start=places, length=st.integers(1, 64), insert=st.binary(max_size=32))
def test_a_file_with_bytes_lost_or_added_is_whole_or_refused(start: int, length: int, insert: bytes) -> None:
    gguf = read_or_refuse(WHOLE[:start] + insert + WHOLE[start + length :])
    if gguf is not None:
        assert_whole(gguf)


@settings(max_examples=150)
@given(
    data=st.binary(max_size=300),
    magic=st.sampled_from([b"", b"GGUF", b"GGUF\3\0\0\0", WHOLE[:24], WHOLE[:200]]),
)
def test_any_bytes_are_read_or_refused(data: bytes, magic: bytes) -> None:
    gguf = read_or_refuse(magic + data)
    if gguf is not None:
        assert_whole(gguf)


spans = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 80)), min_size=1, max_size=6)


@given(spans=spans, data_bytes=st.integers(0, 1600))
def test_tensors_pass_only_inside_and_apart(spans: list[tuple[int, int]], data_bytes: int) -> None:
    entries = [tensor(f"t{i}", (count,), 0, 32 * slot) for i, (slot, count) in enumerate(spans)]
    taken = [set(range(32 * slot, 32 * slot + 4 * count)) for slot, count in spans]
    inside = all(max(span) < data_bytes for span in taken)
    apart = sum(map(len, taken)) == len(set().union(*taken))
    gguf = read_or_refuse(assemble(tensors=entries, data=bytes(data_bytes)))
    assert (gguf is not None) == (inside and apart)


text = st.text(max_size=20)
scalars: dict[oracle.GGUFValueType, st.SearchStrategy[Any]] = {
    Kind.UINT8: st.integers(0, 2**8 - 1),
    Kind.INT8: st.integers(-(2**7), 2**7 - 1),
    Kind.UINT16: st.integers(0, 2**16 - 1),
    Kind.INT16: st.integers(-(2**15), 2**15 - 1),
    Kind.UINT32: st.integers(0, 2**32 - 1),
    Kind.INT32: st.integers(-(2**31), 2**31 - 1),
    Kind.UINT64: st.integers(0, 2**64 - 1),
    Kind.INT64: st.integers(-(2**63), 2**63 - 1),
    Kind.FLOAT32: st.floats(width=32, allow_nan=False),
    Kind.FLOAT64: st.floats(allow_nan=False),
    Kind.BOOL: st.booleans(),
    Kind.STRING: text,
}
arrays = st.one_of(
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=80),
    st.lists(text, min_size=1, max_size=80),
    st.lists(st.booleans(), min_size=1, max_size=80),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=80),
)
values = st.one_of(
    *(st.tuples(st.just(kind), strategy) for kind, strategy in scalars.items()),
    st.tuples(st.just(Kind.ARRAY), arrays),
)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
keys = names.map(lambda name: f"x.{name}")
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4)
plain_types = st.sampled_from([(np.float32, "F32"), (np.float16, "F16"), (np.int8, "I8"), (np.float64, "F64")])


def same(ours: Value, theirs: object) -> bool:
    if isinstance(ours, ArraySummary):
        return isinstance(theirs, list) and len(theirs) == ours.length > 64
    return (list(ours) if isinstance(ours, tuple) else ours) == theirs


@settings(max_examples=60, deadline=None)  # two files and the oracle's own reader in each example
@given(
    metadata=st.dictionaries(keys, values, max_size=6),
    tensors=st.dictionaries(names, st.tuples(shapes, plain_types), max_size=5),
    alignment=st.sampled_from([None, 8, 32, 256]),
)
def test_a_generated_file_reads_as_the_gguf_package_reads_it(
    metadata: dict[str, tuple[oracle.GGUFValueType, Any]],
    tensors: dict[str, tuple[list[int], tuple[type[np.generic], str]]],
    alignment: int | None,
) -> None:
    written = [
        (name, np.zeros(shape, dtype), oracle.GGMLQuantizationType[kind])
        for name, (shape, (dtype, kind)) in tensors.items()
    ]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = write_gguf(Path(folder) / "m.gguf", metadata=metadata, tensors=written, alignment=alignment)
        with path.open("rb") as file:
            gguf = read_gguf(file, path.stat().st_size)
        reader = oracle.GGUFReader(path)
        fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
        assert list(gguf.metadata) == list(fields)
        assert all(same(gguf.metadata[name], field.contents()) for name, field in fields.items())
        assert (gguf.alignment, gguf.data_offset) == (reader.alignment, reader.data_offset)
        theirs = [(t.name, tuple(t.shape), t.tensor_type.name, t.data_offset, t.n_bytes) for t in reader.tensors]
        del reader, fields
    assert [(t.name, t.shape, t.type_name, t.offset, t.size_bytes) for t in gguf.tensors] == theirs
    assert_whole(gguf)
