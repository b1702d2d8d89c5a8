"""Reads the head of a GGUF file, and checks that the file is whole. Tensor data is never read.

Versions 2 and 3, little-endian, of the GGUF specification (ggml, docs/gguf.md, section "File Structure"). Files
come from strangers, and parsers of this format have had memory-safety faults: every length and count is compared
with the bytes that are left before anything is allocated, and the limits stand in `gguf_types`.
"""

import math
import struct
from itertools import pairwise
from types import MappingProxyType
from typing import BinaryIO, Final, NamedTuple

from overair.formats.gguf_cursor import HEAD_BYTES, WINDOW_BYTES, Cursor, broken, what_else
from overair.formats.gguf_types import (
    ARRAY,
    BOOL,
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_ARRAYS,
    MAX_DIMENSIONS,
    MAX_ELEMENTS,
    MAX_KEPT_ELEMENTS,
    MAX_KEYS,
    MAX_NAME_BYTES,
    MAX_NESTING,
    MAX_TENSORS,
    REMOVED_TENSOR_TYPES,
    STRING,
    TENSOR_TYPES,
    UINT32,
    VALUE_TYPES,
    VERSIONS,
    TensorType,
    ValueType,
)
from overair.formats.gguf_values import GGUF, ArraySummary, Scalar, Split, Tensor, Value, describe, summary

__all__ = [
    "GGUF",
    "ArraySummary",
    "Scalar",
    "Split",
    "Tensor",
    "Value",
    "describe",
    "read_gguf",
    "summary",
]

# The fewest bytes that an entry takes: a key's length, type and value; a name's length, dimensions, type and offset.
_MIN_KEY_BYTES: Final = 8 + 4 + 1
_MIN_TENSOR_BYTES: Final = 8 + 4 + 4 + 8
_CONVERT_HINT: Final = "convert the original model again with a current llama.cpp"
_WRITER_HINT: Final = "the tool that wrote this file made a mistake: export the model again with a current llama.cpp"
_SHOWN_NAME: Final = 80


class _Entry(NamedTuple):
    """A row of the tensor table whose offset still counts from the start of the data."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    offset: int
    size_bytes: int


def read_gguf(file: BinaryIO, size: int) -> GGUF:
    """Read the head of a GGUF file and check that every tensor lies inside the file, aligned and apart.

    Args:
        file: A binary file that can seek, open for reading. Only the metadata is read, 1 MiB at a time.
        size: The length of the file in bytes.

    Raises:
        GGUFError: It is not a GGUF, not whole, or beyond a limit; the message says what is wrong and at which byte.
        OSError: The disk refused.
    """
    cursor = Cursor(file, size)
    version = _version(file, cursor, size)
    tensor_count, key_count = _counts(cursor)
    metadata = _Metadata(cursor).read(key_count)
    alignment = _alignment(metadata)
    entries = _tensor_table(cursor, tensor_count)
    data_offset = -(-cursor.offset // alignment) * alignment
    tensors = tuple(_placed(entry, data_offset, alignment) for entry in entries)
    _check_inside(tensors, size)
    _check_apart(tensors)
    gguf = GGUF(
        version=version,
        metadata=MappingProxyType(metadata),
        tensors=tensors,
        alignment=alignment,
        data_offset=data_offset,
        file_bytes=size,
    )
    _check_split(gguf)
    return gguf


def _version(file: BinaryIO, cursor: Cursor, size: int) -> int:
    if size == 0:
        raise broken("not a GGUF: the file is empty", hint="download or export the file again")
    file.seek(0)
    head = file.read(min(size, HEAD_BYTES))
    if not head.startswith(MAGIC):
        what, hint = what_else(head)
        raise broken(f"not a GGUF: the file is {what} (byte 0 should begin with the letters GGUF)", hint=hint)
    cursor.take(len(MAGIC), "the magic")
    version = cursor.u32("the version")
    if version in VERSIONS:
        return version
    if version & 0xFFFF == 0 and version:
        raise broken(
            "a big-endian GGUF (by its version at byte 4): only little-endian ones are read",
            hint=_CONVERT_HINT,
        )
    if version == 1:
        raise broken("GGUF version 1 (at byte 4): only versions 2 and 3 are read", hint=_CONVERT_HINT)
    raise broken(
        f"GGUF version {version} (at byte 4): only versions 2 and 3 are read",
        hint="update overair, or check the file",
    )


def _counts(cursor: Cursor) -> tuple[int, int]:
    tensor_count = cursor.u64("the number of tensors")
    key_count = cursor.u64("the number of keys")
    for count, limit, what in ((tensor_count, MAX_TENSORS, "tensors"), (key_count, MAX_KEYS, "keys")):
        if count > limit:
            raise broken(f"the header (byte 8) promises {count} {what}; no more than {limit} are read")
    least = tensor_count * _MIN_TENSOR_BYTES + key_count * _MIN_KEY_BYTES
    cursor.require(least, f"what the header promises, {tensor_count} tensors and {key_count} keys,")
    return tensor_count, key_count


class _Metadata:
    """Reads the key-values; counts the arrays, which may be nested, over all of them."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._arrays = 0

    def read(self, count: int) -> dict[str, Value]:
        metadata: dict[str, Value] = {}
        for index in range(count):
            start = self._cursor.offset
            key = _name(self._cursor, f"key {index} of {count}")
            if key in metadata:
                raise broken(f"the key {_shown(key)} stands twice, the second time at byte {start}", hint=_WRITER_HINT)
            metadata[key] = self._value(key)
        return metadata

    def _value(self, key: str) -> Value:
        what = f"the value of {_shown(key)}"
        start = self._cursor.offset
        number = self._cursor.u32(f"the type of {_shown(key)}")
        kind = _value_type(number, what, start)
        if key == "general.alignment" and number != UINT32:
            raise broken(f"general.alignment at byte {start} is of type {kind.name}, not uint32", hint=_WRITER_HINT)
        if number == STRING:
            return self._cursor.text(what)
        if number == ARRAY:
            return self._array(what, depth=1)
        return self._numbers(number, kind, 1, what)[0]

    def _array(self, what: str, *, depth: int) -> tuple[Scalar, ...] | ArraySummary:
        cursor = self._cursor
        start = cursor.offset
        self._arrays += 1
        if depth > MAX_NESTING or self._arrays > MAX_ARRAYS:
            raise broken(
                f"{what} at byte {start}: arrays more than {MAX_NESTING} deep, or more than {MAX_ARRAYS} of them"
            )
        number = cursor.u32(f"the element type of {what}")
        kind = _value_type(number, what, start)
        length = cursor.u64(f"the length of {what}")
        cursor.require(length * kind.min_bytes, f"{what}, {length} times {kind.name},")
        described = ArraySummary(kind.name, length, cursor.offset)
        if number == ARRAY:
            for _ in range(length):
                self._array(what, depth=depth + 1)
            return described
        if length > MAX_KEPT_ELEMENTS or depth > 1:
            self._pass_over(number, kind, length, what)
            return described
        return self._strings(length, what, described) if number == STRING else self._numbers(number, kind, length, what)

    def _strings(self, length: int, what: str, described: ArraySummary) -> tuple[Scalar, ...] | ArraySummary:
        strings = [self._cursor.string(what) for _ in range(length)]
        try:
            return tuple(string.decode() for string in strings)
        except UnicodeDecodeError:
            # A vocabulary may hold raw bytes, and llama.cpp loads it.
            return described

    def _numbers(self, number: int, kind: ValueType, length: int, what: str) -> tuple[Scalar, ...]:
        start = self._cursor.offset
        raw = self._cursor.take(length * kind.min_bytes, what)
        if number == BOOL:
            _check_bools(raw, what, start)
            return tuple(byte == 1 for byte in raw)
        return struct.unpack(f"<{length}{kind.code}", raw)

    def _pass_over(self, number: int, kind: ValueType, length: int, what: str) -> None:
        if number == STRING:
            self._cursor.skip_strings(length, what)
        elif number == BOOL:
            for done in range(0, length, WINDOW_BYTES):
                start = self._cursor.offset
                _check_bools(self._cursor.take(min(WINDOW_BYTES, length - done), what), what, start)
        else:
            self._cursor.skip(length * kind.min_bytes, what)


def _value_type(number: int, what: str, start: int) -> ValueType:
    kind = VALUE_TYPES.get(number)
    if kind is None:
        raise broken(f"{what} at byte {start} is of type {number}, which GGUF does not have")
    return kind


def _check_bools(raw: bytes, what: str, start: int) -> None:
    wrong = raw.lstrip(b"\0\1")
    if wrong:
        place = start + len(raw) - len(wrong)
        raise broken(f"{what}: a bool is 0 or 1, and the byte at {place} is {wrong[0]}", hint=_WRITER_HINT)


def _name(cursor: Cursor, what: str) -> str:
    start = cursor.offset
    name = cursor.text(what)
    if cursor.offset - start - 8 > MAX_NAME_BYTES:
        raise broken(f"{what} at byte {start} is longer than {MAX_NAME_BYTES} bytes")
    return name


def _shown(name: str) -> str:
    return repr(name if len(name) <= _SHOWN_NAME else f"{name[:_SHOWN_NAME]}…")


def _alignment(metadata: dict[str, Value]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise broken(f"general.alignment is {alignment}, not a power of two", hint=_WRITER_HINT)
    return alignment


def _tensor_table(cursor: Cursor, count: int) -> list[_Entry]:
    entries: dict[str, _Entry] = {}
    for index in range(count):
        start = cursor.offset
        name = _name(cursor, f"the name of tensor {index} of {count}")
        if name in entries:
            raise broken(f"the tensor {_shown(name)} stands twice, the second time at byte {start}", hint=_WRITER_HINT)
        entries[name] = _entry(cursor, name)
    return list(entries.values())


def _entry(cursor: Cursor, name: str) -> _Entry:
    what = f"the entry of tensor {_shown(name)}"
    start = cursor.offset
    dimensions = cursor.u32(what)
    if dimensions > MAX_DIMENSIONS:
        raise broken(f"tensor {_shown(name)} at byte {start} has {dimensions} dimensions; ggml has no more than 4")
    shape = cursor.unpack(struct.Struct(f"<{dimensions}Q"), what)
    kind = _tensor_type(cursor.u32(what), name, cursor.offset - 4)
    return _Entry(name, shape, kind.name, cursor.u64(what), _size_bytes(name, shape, kind, start))


def _tensor_type(number: int, name: str, start: int) -> TensorType:
    kind = TENSOR_TYPES.get(number)
    if kind is not None:
        return kind
    removed = REMOVED_TENSOR_TYPES.get(number)
    if removed is not None:
        raise broken(
            f"tensor {_shown(name)} is of type {number} ({removed}, at byte {start}), which llama.cpp no longer reads",
            hint="quantize the original model again with a current llama.cpp",
        )
    raise broken(
        f"tensor {_shown(name)} is of type {number} (at byte {start}), whose size is not known here",
        hint="the file is damaged, or of a newer llama.cpp: update overair",
    )


def _size_bytes(name: str, shape: tuple[int, ...], kind: TensorType, start: int) -> int:
    elements = math.prod(shape)
    where = f"tensor {_shown(name)} at byte {start}"
    if elements == 0 or elements > MAX_ELEMENTS:
        raise broken(f"{where} has the shape {shape}, which makes {elements} elements")
    row = shape[0] if shape else 1
    if row % kind.block_elements:
        raise broken(
            f"{where}: a row of {row} is not a multiple of the {kind.block_elements} elements in a {kind.name} block"
        )
    return elements // kind.block_elements * kind.block_bytes


def _placed(entry: _Entry, data_offset: int, alignment: int) -> Tensor:
    if entry.offset % alignment:
        raise broken(
            f"tensor {_shown(entry.name)} begins at byte {data_offset + entry.offset}, "
            f"which is not aligned to {alignment} bytes",
            hint=_WRITER_HINT,
        )
    return Tensor(entry.name, entry.shape, entry.type_name, data_offset + entry.offset, entry.size_bytes)


def _check_inside(tensors: tuple[Tensor, ...], size: int) -> None:
    outside = [tensor for tensor in tensors if tensor.offset + tensor.size_bytes > size]
    if not outside:
        return
    last = max(outside, key=lambda tensor: tensor.offset + tensor.size_bytes)
    end = last.offset + last.size_bytes
    raise broken(
        f"cut short: {len(outside)} of {len(tensors)} tensors reach beyond the end of the file at byte {size}; "
        f"{_shown(last.name)} ends at byte {end}, so {end - size} bytes are missing"
    )


def _check_apart(tensors: tuple[Tensor, ...]) -> None:
    ordered = sorted(tensors, key=lambda tensor: tensor.offset)
    for before, after in pairwise(ordered):
        if before.offset + before.size_bytes > after.offset:
            raise broken(
                f"tensors {_shown(before.name)} and {_shown(after.name)} overlap: the first has the bytes "
                f"{before.offset} to {before.offset + before.size_bytes}, the second begins at byte {after.offset}",
                hint=_WRITER_HINT,
            )


def _check_split(gguf: GGUF) -> None:
    split = gguf.split
    if split is None:
        return
    if not 0 <= split.index < split.count:
        raise broken(f"split.no is {split.index}, but split.count is {split.count}", hint=_WRITER_HINT)
    if split.tensor_count is not None and split.tensor_count < len(gguf.tensors):
        raise broken(
            f"this file has {len(gguf.tensors)} tensors, and split.tensors.count says that all files together "
            f"have {split.tensor_count}",
            hint=_WRITER_HINT,
        )
