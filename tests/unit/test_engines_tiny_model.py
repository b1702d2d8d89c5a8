"""The tiny model is a GGUF by our reader and by the reference one, and its copies differ as they say."""

import io
from pathlib import Path

import gguf
import numpy as np

from overair.formats.gguf import GGUF, read_gguf
from support.tiny_model import break_weights, retouch, write_tiny_model


def read(path: Path) -> GGUF:
    content = path.read_bytes()
    return read_gguf(io.BytesIO(content), len(content))


def test_both_readers_see_the_same_small_llama(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf")
    ours, theirs = read(path), gguf.GGUFReader(path)
    assert ours.architecture == "llama"
    assert [tensor.name for tensor in ours.tensors] == [tensor.name for tensor in theirs.tensors]
    assert len(ours.tensors) == 21
    assert 400_000 < path.stat().st_size < 600_000
    embedding = theirs.tensors[0].data
    assert embedding.shape == (399, 64)
    assert 0.1 < float(np.std(embedding)) < 0.2


def test_a_seed_decides_every_byte(tmp_path: Path) -> None:
    first, again, other = (
        write_tiny_model(tmp_path / f"{number}.gguf", seed=seed).read_bytes() for number, seed in enumerate((3, 3, 4))
    )
    assert first == again
    assert first != other
    assert len(first) == len(other)


def test_a_retouched_copy_differs_in_the_norms_only(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "tiny.gguf")
    before = source.read_bytes()
    after = retouch(source, tmp_path / "retouched.gguf").read_bytes()
    changed = {
        tensor.name
        for tensor in read(source).tensors
        if before[tensor.offset :][: tensor.size_bytes] != after[tensor.offset :][: tensor.size_bytes]
    }
    assert changed == {
        "output_norm.weight",
        *(f"blk.{layer}.{name}_norm.weight" for layer in (0, 1) for name in ("attn", "ffn")),
    }
    start = read(source).data_offset
    assert (before[:start], len(before)) == (after[:start], len(after))
    assert retouch(source, tmp_path / "b.gguf", seed=2).read_bytes() != after


def test_a_broken_copy_is_whole_but_lacks_a_tensor(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "tiny.gguf")
    broken = break_weights(source, tmp_path / "broken.gguf")
    missing = {tensor.name for tensor in read(source).tensors} - {tensor.name for tensor in read(broken).tensors}
    assert missing == {"output_norm.weight"}
    assert broken.stat().st_size == source.stat().st_size
