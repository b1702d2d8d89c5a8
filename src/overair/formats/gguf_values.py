"""What a GGUF file says about its model, as frozen values."""

import math
from collections import Counter
from collections.abc import Mapping

import msgspec

MAX_SHOWN_CHARACTERS = 120

Scalar = int | float | bool | str


class ArraySummary(msgspec.Struct, frozen=True):
    """A long or nested array of the metadata, described instead of held.

    Args:
        element_type: The name of the elements' type, as "string" or "float32".
        length: How many elements there are.
        offset: Where the first element begins, in bytes from the start of the file.
    """

    element_type: str
    length: int
    offset: int


Value = Scalar | tuple[Scalar, ...] | ArraySummary


class Tensor(msgspec.Struct, frozen=True):
    """One entry of the tensor table.

    Args:
        name: Its name.
        shape: Its dimensions in elements, as stored: the length of a row comes first.
        type_name: How it is stored, as "Q4_1".
        offset: Where its data begins, in bytes from the start of the file.
        size_bytes: The length of its data.
    """

    name: str
    shape: tuple[int, ...]
    type_name: str
    offset: int
    size_bytes: int

    @property
    def element_count(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


class Split(msgspec.Struct, frozen=True):
    """Which file of a split model this is: `index` counts from 0 and is below `count`.

    Args:
        index: The place of this file.
        count: How many files the model has.
        tensor_count: How many tensors they have together, if the file says so.
    """

    index: int
    count: int
    tensor_count: int | None


class GGUF(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a GGUF file whose tensors all lie inside it, aligned and apart.

    Args:
        version: The version of the format, 2 or 3.
        metadata: The key-values in the order of the file; long arrays are described only.
        tensors: The tensor table in the order of the file.
        alignment: What the offsets of tensors are multiples of, in bytes, counted from `data_offset`.
        data_offset: Where the tensors' data begins, in bytes from the start of the file.
        file_bytes: The length of the file.
    """

    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    alignment: int
    data_offset: int
    file_bytes: int

    @property
    def architecture(self) -> str | None:
        """The model's architecture, as "llama"."""
        return self._text("general.architecture")

    @property
    def name(self) -> str | None:
        """What its makers call the model."""
        return self._text("general.name")

    @property
    def is_adapter(self) -> bool:
        """Whether this is an adapter (LoRA) and not a model."""
        return self.metadata.get("general.type") == "adapter"

    @property
    def parameter_count(self) -> int:
        """How many numbers the tensors of this file hold."""
        return sum(tensor.element_count for tensor in self.tensors)

    @property
    def parameters_by_type(self) -> dict[str, int]:
        """How many parameters each tensor type holds, the largest share first."""
        return _parameters_by_type(self.tensors)

    @property
    def quantization(self) -> str | None:
        """The type that holds most parameters, as "Q4_1", with " mix" if other matrices have other types.

        Vectors (norms and biases) stay F32 in nearly every model and do not count. None without tensors.
        """
        matrices = [tensor for tensor in self.tensors if len(tensor.shape) > 1]
        types = list(_parameters_by_type(matrices or self.tensors))
        if not types:
            return None
        return types[0] if len(types) == 1 else f"{types[0]} mix"

    @property
    def context_length(self) -> int | None:
        """The longest context that the model was made for, in tokens."""
        return self._number(f"{self.architecture}.context_length")

    @property
    def embedding_length(self) -> int | None:
        """The width of the model."""
        return self._number(f"{self.architecture}.embedding_length")

    @property
    def block_count(self) -> int | None:
        """How many layers the model has."""
        return self._number(f"{self.architecture}.block_count")

    @property
    def chat_template(self) -> str | None:
        """The Jinja template that turns a conversation into a prompt."""
        return self._text("tokenizer.chat_template")

    @property
    def tokenizer_model(self) -> str | None:
        """The kind of tokenizer, as "gpt2"."""
        return self._text("tokenizer.ggml.model")

    @property
    def tokenizer_size(self) -> int | None:
        """How many tokens the vocabulary has."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, ArraySummary):
            return tokens.length
        return len(tokens) if isinstance(tokens, tuple) else None

    @property
    def split(self) -> Split | None:
        """Which file of a split model this is; None if the model is one file."""
        count = self._number("split.count")
        # Merging a split model leaves a split.count of 0 behind.
        if count is None or count <= 1:
            return None
        return Split(self._number("split.no") or 0, count, self._number("split.tensors.count"))

    def _text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def _number(self, key: str) -> int | None:
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def _parameters_by_type(tensors: list[Tensor] | tuple[Tensor, ...]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for tensor in tensors:
        counts[tensor.type_name] += tensor.element_count
    return dict(counts.most_common())


def summary(gguf: GGUF) -> dict[str, object]:
    """Return what `gguf` says as values that JSON can hold, sizes in bytes."""
    split = gguf.split
    return {
        "version": gguf.version,
        "file_bytes": gguf.file_bytes,
        "data_offset": gguf.data_offset,
        "alignment": gguf.alignment,
        "architecture": gguf.architecture,
        "name": gguf.name,
        "is_adapter": gguf.is_adapter,
        "parameter_count": gguf.parameter_count,
        "parameters_by_type": gguf.parameters_by_type,
        "quantization": gguf.quantization,
        "tensor_count": len(gguf.tensors),
        "context_length": gguf.context_length,
        "embedding_length": gguf.embedding_length,
        "block_count": gguf.block_count,
        "chat_template": gguf.chat_template,
        "tokenizer_model": gguf.tokenizer_model,
        "tokenizer_size": gguf.tokenizer_size,
        "split": None if split is None else msgspec.structs.asdict(split),
        "metadata": {key: _jsonable(value) for key, value in gguf.metadata.items()},
    }


def describe(gguf: GGUF) -> list[tuple[str, str]]:
    """Return (label, text) rows for people; what the file does not say has no row."""
    split = gguf.split
    rows = [
        ("kind", "adapter" if gguf.is_adapter else "model"),
        ("architecture", _shown(gguf.architecture)),
        ("name", _shown(gguf.name)),
        ("parameters", f"{gguf.parameter_count:,}"),
        ("quantization", _quantization_text(gguf)),
        ("context", _counted(gguf.context_length, "tokens")),
        ("embedding", _counted(gguf.embedding_length, "wide")),
        ("blocks", _counted(gguf.block_count, "")),
        ("tokenizer", _joined(_shown(gguf.tokenizer_model), _counted(gguf.tokenizer_size, "tokens"))),
        (
            "chat template",
            _counted(None if gguf.chat_template is None else len(gguf.chat_template), "characters"),
        ),
        ("split", "" if split is None else f"file {split.index + 1:,} of {split.count:,}"),
        ("size", f"{gguf.file_bytes:,} bytes, GGUF version {gguf.version}"),
        (
            "tensors",
            f"{len(gguf.tensors):,}, all inside the file, aligned to {gguf.alignment} bytes, none overlap",
        ),
    ]
    return [(label, text) for label, text in rows if text]


def _quantization_text(gguf: GGUF) -> str:
    total = gguf.parameter_count
    shares = ", ".join(f"{name} {count / total:.1%}" for name, count in gguf.parameters_by_type.items())
    return f"{gguf.quantization} ({shares})" if shares else ""


def _counted(number: int | None, unit: str) -> str:
    return "" if number is None else f"{number:,} {unit}".rstrip()


def _joined(*texts: str) -> str:
    return ", ".join(text for text in texts if text)


def _shown(text: str | None) -> str:
    """Take away what could steer a terminal: the text comes from a file that nobody has vouched for."""
    shown = "".join(character if character.isprintable() else " " for character in (text or "")[:MAX_SHOWN_CHARACTERS])
    return " ".join(shown.split())


def _jsonable(value: Value) -> object:
    if isinstance(value, ArraySummary):
        return msgspec.structs.asdict(value)
    if isinstance(value, tuple):
        return [_jsonable(element) for element in value]
    # JSON has no word for these (RFC 8259 section 6).
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
