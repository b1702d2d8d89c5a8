"""A loadable model of half a megabyte, and small, telling changes to any GGUF: for demonstrations and tests.

The writer needs nothing but the standard library, so that the demonstration works where no model can be fetched.
The layout is that of the GGUF specification, version 3:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import hashlib
import io
import math
import shutil
import struct
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Final

from overair.formats.gguf import GGUF, read_gguf

_ALIGNMENT: Final = 32
_MOVE: Final = 0.1
_UINT32, _FLOAT32, _STRING, _ARRAY, _INT32 = 4, 6, 8, 9, 5
_F32: Final = 0
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6

_LAYERS: Final = 2
_WIDTH: Final = 64
_FEED_FORWARD: Final = 128
_SIZES: Final = {
    "context_length": 2048,
    "embedding_length": _WIDTH,
    "block_count": _LAYERS,
    "feed_forward_length": _FEED_FORWARD,
    "attention.head_count": 4,
    "rope.dimension_count": 16,
}
_LAYER: Final[dict[str, tuple[int, ...]]] = {
    "attn_norm": (_WIDTH,),
    **{f"attn_{part}": (_WIDTH, _WIDTH) for part in ("q", "k", "v", "output")},
    "ffn_norm": (_WIDTH,),
    "ffn_gate": (_WIDTH, _FEED_FORWARD),
    "ffn_up": (_WIDTH, _FEED_FORWARD),
    "ffn_down": (_FEED_FORWARD, _WIDTH),
}

# Syllables make an answer that people can read out, and no answer is broken UTF-8.
_SYLLABLES: Final = ["".join(parts) for parts in product(("", "\u2581"), "bdfgklmnprstvz", "aeiou")]
_TOKENS: Final = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *_SYLLABLES]
_TYPES: Final = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256, *[_NORMAL] * len(_SYLLABLES)]
_TEMPLATE: Final = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def write_tiny_model(path: Path, *, seed: int = 0) -> Path:
    """Write a llama-architecture GGUF with weights drawn from `seed`, about 0.5 MB, and return `path`.

    It loads in llama.cpp and answers any prompt with syllables; another seed answers with others.

    Raises:
        OSError: `path` cannot be written.
    """
    tensors = list(_tensors(seed))
    header = io.BytesIO()
    metadata = list(_metadata(seed))
    header.write(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata)))
    for entry in metadata:
        header.write(entry)
    offset = 0
    for name, shape, values in tensors:
        header.write(_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, _F32, offset))
        offset += len(values) + _padding(len(values))
    header.write(bytes(_padding(header.tell())))
    with path.open("wb") as file:
        file.write(header.getvalue())
        for _, _, values in tensors:
            file.write(values + bytes(_padding(len(values))))
    return path


def retouch(source: Path, target: Path, *, seed: int = 1) -> Path:
    """Copy the GGUF `source` to `target` with some weights moved a little, so that it says other things.

    Every scale of the norms (F32 in quantized models too) moves by up to `_MOVE`: enough for other words, too little
    for nonsense. The structure and the length stay the same.

    Raises:
        GGUFError: `source` is not a whole GGUF.
        OSError: A file cannot be read or written.
    """
    model = _copy(source, target)
    with target.open("r+b") as file:
        for tensor in model.tensors:
            if tensor.type_name != "F32" or not tensor.name.endswith("norm.weight"):
                continue
            file.seek(tensor.offset)
            values = struct.unpack(f"<{tensor.size_bytes // 4}f", file.read(tensor.size_bytes))
            noise = _noise(f"{seed}/{tensor.name}", len(values))
            moved = [value * (1 + _MOVE * part) for value, part in zip(values, noise, strict=True)]
            file.seek(tensor.offset)
            file.write(struct.pack(f"<{len(moved)}f", *moved))
    return target


def spoil(source: Path, target: Path) -> Path:
    """Copy the GGUF `source` to `target` with one tensor under another name of the same length.

    The file is whole and of the same length; no engine can load it, because a tensor that it needs is missing.

    Raises:
        GGUFError: `source` is not a whole GGUF.
        OSError: A file cannot be read or written.
    """
    model = _copy(source, target)
    with target.open("r+b") as file:
        file.seek(file.read(model.data_offset).index(_string("output_norm.weight")))
        file.write(_string("output_morn.weight"))
    return target


def _copy(source: Path, target: Path) -> GGUF:
    with source.open("rb") as file:
        model = read_gguf(file, source.stat().st_size)
    shutil.copyfile(source, target)
    return model


def _metadata(seed: int) -> Iterator[bytes]:
    yield _entry("general.architecture", _STRING, _string("llama"))
    yield _entry("general.name", _STRING, _string(f"tiny {seed}"))
    for key, value in _SIZES.items():
        yield _entry(f"llama.{key}", _UINT32, struct.pack("<I", value))
    yield _entry("llama.attention.layer_norm_rms_epsilon", _FLOAT32, struct.pack("<f", 1e-5))
    yield _entry("tokenizer.ggml.model", _STRING, _string("llama"))
    yield _entry("tokenizer.ggml.tokens", _ARRAY, _array(_STRING, [_string(token) for token in _TOKENS]))
    yield _entry("tokenizer.ggml.scores", _ARRAY, _array(_FLOAT32, [bytes(4)] * len(_TOKENS)))
    yield _entry("tokenizer.ggml.token_type", _ARRAY, _array(_INT32, [struct.pack("<i", kind) for kind in _TYPES]))
    for number, key in enumerate(("unknown", "bos", "eos")):
        yield _entry(f"tokenizer.ggml.{key}_token_id", _UINT32, struct.pack("<I", number))
    yield _entry("tokenizer.chat_template", _STRING, _string(_TEMPLATE))


def _tensors(seed: int) -> Iterator[tuple[str, tuple[int, ...], bytes]]:
    vocabulary = len(_TOKENS)
    yield _weights("token_embd.weight", (_WIDTH, vocabulary), seed)
    for layer in range(_LAYERS):
        for name, shape in _LAYER.items():
            yield _weights(f"blk.{layer}.{name}.weight", shape, seed)
    yield _weights("output_norm.weight", (_WIDTH,), seed)
    name, shape, values = _weights("output.weight", (_WIDTH, vocabulary), seed)
    # All but the syllables get a logit of 0, and so are never the likeliest token.
    silent = 4 * _WIDTH * (vocabulary - len(_SYLLABLES))
    yield name, shape, bytes(silent) + values[silent:]


def _weights(name: str, shape: tuple[int, ...], seed: int) -> tuple[str, tuple[int, ...], bytes]:
    count = math.prod(shape)
    values = [1.0] * count if len(shape) == 1 else [noise / 4 for noise in _noise(f"{seed}/{name}", count)]
    return name, shape, struct.pack(f"<{count}f", *values)


def _noise(label: str, count: int) -> list[float]:
    """Draw `count` numbers from -1 to 1: the same ones for the same label, on every platform."""
    drawn = hashlib.shake_256(label.encode()).digest(2 * count)
    return [number / 32768 for number in struct.unpack(f"<{count}h", drawn)]


def _entry(key: str, kind: int, value: bytes) -> bytes:
    return _string(key) + struct.pack("<I", kind) + value


def _array(kind: int, values: list[bytes]) -> bytes:
    return struct.pack("<IQ", kind, len(values)) + b"".join(values)


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _padding(length: int) -> int:
    return -length % _ALIGNMENT
