"""The numbers that GGUF gives to types, and the limits within which we read one.

Sources: the GGUF specification (ggml, docs/gguf.md, section "File Structure") and, for the sizes of blocks, the
table of llama.cpp's `gguf` package, which a contract test compares with this one.
"""

import struct
from typing import Final, NamedTuple

KIB: Final = 1 << 10
MIB: Final = 1 << 20

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
DEFAULT_ALIGNMENT: Final = 32  # bytes

# The largest real vocabulary with its merges takes some 30 MiB; this much bounds the time that a hostile file costs.
MAX_METADATA_BYTES: Final = 128 * MIB
MAX_TEXT_BYTES: Final = 16 * MIB  # of all the strings that are kept, together
MAX_NAME_BYTES: Final = 64 * KIB - 1  # of one key (the specification's limit) or one tensor's name
MAX_KEYS: Final = 1 << 14
MAX_TENSORS: Final = 1 << 17
MAX_ARRAYS: Final = 1 << 16  # nested ones included
MAX_NESTING: Final = 4  # arrays within arrays
MAX_DIMENSIONS: Final = 4  # GGML_MAX_DIMS
MAX_ELEMENTS: Final = (1 << 63) - 1  # of one tensor: ggml counts in int64
MAX_KEPT_ELEMENTS: Final = 64  # longer arrays are only described


class ValueType(NamedTuple):
    """How a metadata value is stored: its name, its `struct` code (empty if it has none) and its fewest bytes."""

    name: str
    code: str
    min_bytes: int


class TensorType(NamedTuple):
    """How a tensor is stored: its name, and how many elements and bytes one block has."""

    name: str
    block_elements: int
    block_bytes: int


UINT32: Final = 4
BOOL: Final = 7
STRING: Final = 8
ARRAY: Final = 9

VALUE_TYPES: Final[dict[int, ValueType]] = {
    0: ValueType("uint8", "B", 1),
    1: ValueType("int8", "b", 1),
    2: ValueType("uint16", "H", 2),
    3: ValueType("int16", "h", 2),
    UINT32: ValueType("uint32", "I", 4),
    5: ValueType("int32", "i", 4),
    6: ValueType("float32", "f", 4),
    BOOL: ValueType("bool", "B", 1),
    STRING: ValueType("string", "", 8),
    ARRAY: ValueType("array", "", 12),
    10: ValueType("uint64", "Q", 8),
    11: ValueType("int64", "q", 8),
    12: ValueType("float64", "d", 8),
}

TENSOR_TYPES: Final[dict[int, TensorType]] = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    9: TensorType("Q8_1", 32, 40),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    15: TensorType("Q8_K", 256, 292),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    24: TensorType("I8", 1, 1),
    25: TensorType("I16", 1, 2),
    26: TensorType("I32", 1, 4),
    27: TensorType("I64", 1, 8),
    28: TensorType("F64", 1, 8),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    39: TensorType("MXFP4", 32, 17),
    40: TensorType("NVFP4", 64, 36),
    41: TensorType("Q1_0", 128, 18),
}

# llama.cpp dropped these: it cannot load them either.
REMOVED_TENSOR_TYPES: Final[dict[int, str]] = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}

U32: Final = struct.Struct("<I")
U64: Final = struct.Struct("<Q")
