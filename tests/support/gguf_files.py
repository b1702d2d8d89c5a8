"""GGUF files for tests: whole ones by the `gguf` package, and any other kind byte by byte."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
F32, F16, Q4_0, Q8_0 = 0, 1, 2, 8


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def key(name: str | bytes, kind: int, payload: bytes) -> bytes:
    return string(name) + struct.pack("<I", kind) + payload


def text_key(name: str, text: str | bytes) -> bytes:
    return key(name, STRING, string(text))


def u32_key(name: str, number: int) -> bytes:
    return key(name, UINT32, struct.pack("<I", number))


def array(kind: int, length: int, payload: bytes) -> bytes:
    return struct.pack("<IQ", kind, length) + payload


def array_key(name: str, kind: int, length: int, payload: bytes) -> bytes:
    return key(name, ARRAY, array(kind, length, payload))


def tensor(name: str | bytes, shape: Sequence[int], kind: int, offset: int) -> bytes:
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def head(*, magic: bytes = b"GGUF", version: int = 3, tensors: int = 0, keys: int = 0) -> bytes:
    return magic + struct.pack("<IQQ", version, tensors, keys)


def assemble(
    keys: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    """Put a file together; the data begins at the next multiple of `alignment`."""
    start = head(version=version, tensors=len(tensors), keys=len(keys)) + b"".join(keys) + b"".join(tensors)
    return start + bytes(-len(start) % alignment) + data


def whole_file() -> bytes:
    """A small whole file that has every type of value, a nested array, a long array, and two tensors."""
    keys = [
        text_key("general.architecture", "llama"),
        text_key("general.name", "Tiny ünd whole"),
        u32_key("llama.context_length", 512),
        u32_key("general.alignment", 64),
        key("a.u8", UINT8, b"\xff"),
        key("a.i8", INT8, b"\xff"),
        key("a.u16", UINT16, b"\xfe\xff"),
        key("a.i16", INT16, b"\xfe\xff"),
        key("a.i32", INT32, struct.pack("<i", -3)),
        key("a.f32", FLOAT32, struct.pack("<f", 0.5)),
        key("a.bool", BOOL, b"\x01"),
        key("a.u64", UINT64, struct.pack("<Q", 2**64 - 1)),
        key("a.i64", INT64, struct.pack("<q", -(2**63))),
        key("a.f64", FLOAT64, struct.pack("<d", -0.25)),
        array_key("b.short", UINT16, 3, struct.pack("<3H", 1, 2, 3)),
        array_key("b.bools", BOOL, 2, b"\x00\x01"),
        array_key("b.long", INT32, 70, struct.pack("<70i", *range(70))),
        array_key("b.nested", ARRAY, 2, array(UINT8, 2, b"\x01\x02") + array(STRING, 1, string("x"))),
        array_key("tokenizer.ggml.tokens", STRING, 65, b"".join(string(f"t{i}") for i in range(65))),
        text_key("tokenizer.ggml.model", "gpt2"),
        text_key("tokenizer.chat_template", "{{ messages }}"),
    ]
    tensors = [tensor("blk.0.w", (32, 2), Q8_0, 0), tensor("blk.0.norm", (4,), F32, 128)]
    return assemble(keys, tensors, bytes(range(144)), alignment=64)


def write_gguf(
    path: Path,
    *,
    architecture: str = "llama",
    metadata: Mapping[str, tuple[gguf.GGUFValueType, Any]] | None = None,
    tensors: Iterable[tuple[str, "np.ndarray[Any, Any]", gguf.GGMLQuantizationType]] = (),
    alignment: int | None = None,
    big_endian: bool = False,
) -> Path:
    """Write a whole file with the `gguf` package; a quantized tensor comes as its bytes, row by row."""
    order = gguf.GGUFEndian.BIG if big_endian else gguf.GGUFEndian.LITTLE
    writer = gguf.GGUFWriter(path, architecture, endianess=order)
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    for name, (kind, value) in (metadata or {}).items():
        writer.add_key_value(name, value, kind)
    for name, values, tensor_type in tensors:
        writer.add_tensor(name, values, raw_dtype=tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
