"""Where the real models are that some tests need."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def smollm2() -> Path:
    """SmolLM2 135M Instruct: 272 tensors, 49,152 tokens, a chat template."""
    return _model("SmolLM2-135M-Instruct.Q4_1.gguf")


def gemma3() -> Path:
    """Gemma 3 270M: 236 tensors, 262,144 tokens."""
    return _model("gemma-3-270m-q4_k_m.gguf")


def _model(name: str) -> Path:
    path = Path(os.environ.get("OVERAIR_MODELS") or ROOT / ".models") / name
    if path.is_file():
        return path
    reason = f"{path} is missing: `make` downloads it, OVERAIR_MODELS names another folder"
    if os.environ.get("OVERAIR_REQUIRE_MODELS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
