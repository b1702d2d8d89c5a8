"""Half a megabyte that real llama.cpp loads, broken and adapted copies of it, and bundles around them."""

import hashlib
from pathlib import Path

import gguf
import numpy as np

from overair.cli.tiny_model import retouch, write_tiny_model
from overair.cli.tiny_model import spoil as break_weights
from overair.model.release import Bundle

__all__ = [
    "break_weights",
    "bundle_of",
    "retouch",
    "with_architecture",
    "write_adapter",
    "write_tiny_model",
]

_WIDTH = 64
_RANK = 4


def bundle_of(
    model: Path, *, adapters: tuple[Path, ...] = (), projector: Path | None = None, template: Path | None = None
) -> Bundle:
    """A bundle with the digest of `model`, or of nothing if there is no such file."""
    digest = hashlib.sha256(model.read_bytes() if model.is_file() else b"").hexdigest()
    return Bundle(
        id=digest,
        version="1.0.0",
        sha256=digest,
        model=model,
        adapters=adapters,
        projector=projector,
        template=template,
    )


def with_architecture(path: Path, name: str) -> Path:
    """A whole GGUF of an architecture that no engine knows, with nothing else in it."""
    writer = gguf.GGUFWriter(path, name)
    writer.add_tensor("token_embd.weight", np.zeros((8, 8), dtype=np.float32))
    return _written(writer, path)


def write_adapter(path: Path, *, seed: int = 0, width: int = _WIDTH) -> Path:
    """A LoRA adapter for the tiny model; with another `width` its shapes do not fit."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 32.0)
    random = np.random.default_rng(seed)
    for name in ("blk.0.attn_output.weight", "blk.1.attn_output.weight"):
        writer.add_tensor(f"{name}.lora_a", random.normal(size=(_RANK, width)).astype(np.float32))
        writer.add_tensor(f"{name}.lora_b", random.normal(size=(width, _RANK)).astype(np.float32))
    return _written(writer, path)


def _written(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
