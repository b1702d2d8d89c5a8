"""Models that are bad in ways that real ones are: damaged before they were signed, or made wrongly.

Each builder takes the path of a good model and that of the bad one to write, and returns the latter.
"""

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np

from overair.formats.gguf import GGUF, ArraySummary, read_gguf

RAISING_TEMPLATE = "{{ raise_exception('this template raises on purpose') }}"
LOOPING_TEMPLATE = (
    "{% for i in range(100000) %}{% for j in range(100000) %}{% for k in range(100000) %}"
    "{% endfor %}{% endfor %}{% endfor %}{{ messages[0]['content'] }}"
)
# Byte tokens and the commonest words of real vocabularies; what is behind them changes places.
_KEPT_TOKENS = 600
_ALIGNMENT = 32
_NAN_HALF = b"\x00\x7e"


def flip_bytes(source: Path, target: Path, *, count: int = 10_000, seed: int = 0) -> Path:
    """Change `count` bytes anywhere in the weights."""
    model = _copied(source, target)
    dice = np.random.default_rng(seed)
    weights = np.memmap(target, dtype=np.uint8, mode="r+", offset=model.data_offset)
    places = dice.integers(0, len(weights), size=count)
    weights[places] ^= dice.integers(1, 256, size=count, dtype=np.uint8)
    weights.flush()
    return target


def zero_weights(source: Path, target: Path) -> Path:
    """All weights are zero, as in a file of which only the header was written."""
    return zero_tail(source, target, part=1.0)


def zero_tail(source: Path, target: Path, *, part: float = 0.3) -> Path:
    """The last part of the weights is zero, as in a copy that was cut and then grown to its length."""
    model = _copied(source, target)
    begin = model.file_bytes - int((model.file_bytes - model.data_offset) * part)
    with target.open("r+b") as file:
        file.truncate(begin)
        file.truncate(model.file_bytes)
    return target


def cut_tail(source: Path, target: Path, *, length: int = 1000) -> Path:
    """The header is right, and the last tensor is not whole."""
    _copied(source, target)
    with target.open("r+b") as file:
        file.truncate(source.stat().st_size - length)
    return target


def nan_scales(source: Path, target: Path) -> Path:
    """The first scale of one tensor is not a number: of a quantized tensor if there is one, else of a norm."""
    model = _copied(source, target)
    quantized = [t for t in model.tensors if t.type_name.startswith(("Q4", "Q5", "Q8")) and t.name.startswith("blk.")]
    norms = [tensor for tensor in model.tensors if tensor.name.endswith("norm.weight")]
    tensor = (quantized or norms)[0]
    with target.open("r+b") as file:
        file.seek(tensor.offset)
        file.write(_NAN_HALF if quantized else struct.pack("<f", float("nan")))
    return target


def shuffle_vocabulary(source: Path, target: Path, *, seed: int = 1) -> Path:
    """The vocabulary is of another model: as many tokens, in another order."""
    content = bytearray(source.read_bytes())
    begin, tokens = _tokens(source, content)
    kept, moved = tokens[:_KEPT_TOKENS], tokens[_KEPT_TOKENS:]
    order = np.random.default_rng(seed).permutation(len(moved))
    joined = b"".join([*kept, *(moved[place] for place in order)])
    content[begin : begin + len(joined)] = joined
    target.write_bytes(content)
    return target


def lengthen_vocabulary(source: Path, target: Path) -> Path:
    """The vocabulary has one token more than there are weights for."""
    content = bytearray(source.read_bytes())
    arrays = {name: _array(source, f"tokenizer.ggml.{name}") for name in ("tokens", "scores", "token_type")}
    present = {name: array for name, array in arrays.items() if array is not None}
    # All that is inserted has the length of the alignment, so that the weights stay where the header says.
    text = b"x" * (_ALIGNMENT - 8 - 4 * (len(present) - 1))
    values = {
        "tokens": struct.pack("<Q", len(text)) + text,
        "scores": struct.pack("<f", 0.0),
        "token_type": struct.pack("<i", 1),
    }
    begin = present["tokens"].offset
    for name, array in sorted(present.items(), key=lambda item: item[1].offset, reverse=True):
        content[array.offset : array.offset] = values[name]
        content[array.offset - 8 : array.offset] = struct.pack("<Q", array.length + 1)
    assert content[begin:].startswith(values["tokens"])
    target.write_bytes(content)
    return target


def write_slow_model(path: Path, *, layers: int) -> Path:
    """Random weights of the tiny model's shapes, with as many layers as it takes to be slow."""
    width, feed_forward = 256, 1024
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *(f"\u2581w{i}" for i in range(200))]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(4)
    writer.add_rope_dimension_count(width // 4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * 200])
    dice = np.random.default_rng(0)
    for name, shape in _slow_shapes(layers, width, feed_forward, len(tokens)):
        values = np.ones(shape) if len(shape) == 1 else dice.normal(scale=0.1, size=shape)
        if name == "output.weight":
            values[:259] = 0
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _slow_shapes(layers: int, width: int, feed_forward: int, tokens: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (tokens, width)
    for layer in range(layers):
        for part in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{part}.weight", (width,)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"blk.{layer}.{part}.weight", (width, width)
        yield f"blk.{layer}.ffn_gate.weight", (feed_forward, width)
        yield f"blk.{layer}.ffn_up.weight", (feed_forward, width)
        yield f"blk.{layer}.ffn_down.weight", (width, feed_forward)
    yield "output_norm.weight", (width,)
    yield "output.weight", (tokens, width)


def _copied(source: Path, target: Path) -> GGUF:
    with source.open("rb") as file:
        model = read_gguf(file, source.stat().st_size)
    shutil.copyfile(source, target)
    return model


def _tokens(source: Path, content: bytearray) -> tuple[int, list[bytes]]:
    """Where the strings of the vocabulary begin, and each with its length before it."""
    array = _array(source, "tokenizer.ggml.tokens")
    assert array is not None
    place, tokens = array.offset, []
    for _ in range(array.length):
        (length,) = struct.unpack_from("<Q", content, place)
        tokens.append(bytes(content[place : place + 8 + length]))
        place += 8 + length
    return array.offset, tokens


def _array(source: Path, key: str) -> ArraySummary | None:
    with source.open("rb") as file:
        found = read_gguf(file, source.stat().st_size).metadata.get(key)
    return found if isinstance(found, ArraySummary) else None
