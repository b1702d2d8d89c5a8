"""Whether the parts of a release belong together, and whether a device can run it. What is not known never blocks."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from overair.model.release import Release, Requirements

LLAMA_CPP: Final = "llama.cpp"
_CACHE_ELEMENT_BYTES: Final = 2  # f16, what llama.cpp keeps keys and values in unless it is told otherwise
_COMPARATOR: Final = re.compile(r"(>=|<=|==|!=|>|<) ?([0-9.]+)")
# Where the engines of ours say which build of llama.cpp they have in their `version`.
_BUILDS: Final = (
    re.compile(r"xllamacpp [0-9]+\.[0-9]+\.([0-9]+)$"),
    re.compile(r"llama_server b?([0-9]+)(?: |$)"),
)
_GIGA: Final = 1_000_000_000


def adapters_on_another_base(release: Release) -> str:
    """What is wrong with the adapters of a release, or an empty text.

    llama.cpp refuses an adapter whose shapes do not fit, and silently accepts one that was trained on another model of
    the same shape. So an adapter that names its base goes on no other; one that names none may try.
    """
    models = {artifact.sha256 for artifact in release.artifacts if artifact.role == "model"}
    for artifact in release.artifacts:
        if artifact.role == "adapter" and artifact.base_sha256 is not None and artifact.base_sha256 not in models:
            return f"the adapter {artifact.name} is for the model {artifact.base_sha256}, not {release.model.sha256}"
    return ""


def llama_cpp_build(engine: str) -> int | None:
    """The build of llama.cpp in an engine, from `Engine.version`, or None where that does not tell."""
    found = next((match for pattern in _BUILDS if (match := pattern.match(engine))), None)
    return int(found[1]) if found else None


def in_range(version: Sequence[int], wanted: str) -> bool:
    """Whether a version lies in a range: comparisons that must all hold, separated by commas. 6000 is 6000.0."""
    return all(_compares(version, operator, text) for operator, text in _COMPARATOR.findall(wanted))


def engine_too_old(requires: Requirements, engine: str | None) -> str:
    """What an engine lacks for a release, or an empty text. An engine that is not named in `requires` may try."""
    if engine is None:
        return ""
    name, _, version = engine.partition(" ")
    build = llama_cpp_build(engine)
    known: dict[str, Sequence[int] | None] = {LLAMA_CPP: None if build is None else (build,), name: _numbers(version)}
    for wanted_name, wanted in requires.engines.items():
        numbers = known.get(wanted_name)
        if numbers and not in_range(numbers, wanted):
            has = ".".join(str(number) for number in numbers)
            return f"needs {wanted_name} {wanted}, this device has {has}"
    return ""


def short_of_memory(requires: Requirements, memory_bytes: int | None) -> str:
    """What a machine lacks of memory for a release, or an empty text.

    Args:
        requires: What the release needs.
        memory_bytes: All the memory of the machine at a check; what is free, before a load.
    """
    if requires.ram_bytes is None or memory_bytes is None or memory_bytes >= requires.ram_bytes:
        return ""
    return f"needs {requires.ram_bytes / _GIGA:.1f} GB of memory, this machine has {memory_bytes / _GIGA:.1f} GB"


def memory_bytes(
    *,
    weights_bytes: int,
    layers: int,
    kv_heads: int | Sequence[int],
    key_length: int,
    value_length: int,
    context_tokens: int,
) -> int:
    """What a model takes in memory: its weights, and the keys and values of a whole context in 16 bits each.

    Args:
        weights_bytes: The length of the files that an engine opens.
        layers: How many blocks the model has.
        kv_heads: The heads with a cache of their own in each block, or one number a block.
        key_length: The length of a key of one head.
        value_length: The length of a value of one head.
        context_tokens: How many tokens a prompt and its answer may have together.
    """
    heads = kv_heads * layers if isinstance(kv_heads, int) else sum(kv_heads)
    return weights_bytes + heads * (key_length + value_length) * context_tokens * _CACHE_ELEMENT_BYTES


def memory_needed(metadata: Mapping[str, object], *, weights_bytes: int, context_tokens: int) -> int | None:
    """`memory_bytes` from the metadata of a GGUF, or None where that does not tell.

    The keys are those of the GGUF specification (ggml, docs/gguf.md, section "LLM"). Models that keep less than that in
    their cache, as those with a sliding window or with latent attention, need less. What llama.cpp computes in comes on
    top: 35 to 85 MB for the small models that we measured.
    """
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        return None

    def number(key: str) -> int | None:
        value = metadata.get(f"{architecture}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

    layers, width, heads = number("block_count"), number("embedding_length"), number("attention.head_count")
    usual = width // heads if width and heads else None
    key_length = number("attention.key_length") or usual
    value_length = number("attention.value_length") or usual
    each = metadata.get(f"{architecture}.attention.head_count_kv")
    listed = isinstance(each, tuple) and all(isinstance(heads, int) and heads >= 0 for heads in each)
    kv_heads = tuple(each) if isinstance(each, tuple) and listed else number("attention.head_count_kv") or heads
    if layers is None or key_length is None or value_length is None or kv_heads is None:
        return None
    return memory_bytes(
        weights_bytes=weights_bytes,
        layers=layers,
        kv_heads=kv_heads,
        key_length=key_length,
        value_length=value_length,
        context_tokens=context_tokens,
    )


def _numbers(text: str) -> Sequence[int] | None:
    found = re.match(r"[0-9]{1,9}(?:\.[0-9]{1,9})*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else None


def _compares(version: Sequence[int], operator: str, text: str) -> bool:
    wanted = [int(part) for part in text.split(".")]
    length = max(len(version), len(wanted))
    left, right = ([*numbers, *[0] * (length - len(numbers))] for numbers in (version, wanted))
    return {
        ">=": left >= right,
        "<=": left <= right,
        "==": left == right,
        "!=": left != right,
        ">": left > right,
        "<": left < right,
    }[operator]
