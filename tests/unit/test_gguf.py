"""The GGUF reader says what a file is, and what is wrong with one that is not whole."""

import io
import json
import struct

import msgspec
import pytest

from overair.errors import GGUFError
from overair.formats import gguf_types
from overair.formats.gguf import GGUF, ArraySummary, Split, Tensor, describe, read_gguf, summary
from overair.formats.gguf_cursor import Cursor
from support.gguf_files import (
    ARRAY,
    BOOL,
    F16,
    F32,
    Q4_0,
    Q8_0,
    STRING,
    UINT8,
    UINT16,
    UINT64,
    array,
    array_key,
    assemble,
    head,
    key,
    string,
    tensor,
    text_key,
    u32_key,
    whole_file,
)


def read(data: bytes) -> GGUF:
    return read_gguf(io.BytesIO(data), len(data))


class CountingFile(io.BytesIO):
    """Knows how many bytes were read."""

    read_bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        taken = super().read(size)
        self.read_bytes += len(taken)
        return taken


def test_a_whole_file_is_read() -> None:
    data = whole_file()
    gguf = read(data)
    assert (gguf.version, gguf.alignment, gguf.file_bytes) == (3, 64, len(data))
    assert gguf.data_offset == len(data) - 144
    assert gguf.tensors == (
        Tensor("blk.0.w", (32, 2), "Q8_0", gguf.data_offset, 68),
        Tensor("blk.0.norm", (4,), "F32", gguf.data_offset + 128, 16),
    )
    values = dict(gguf.metadata)
    long, nested, tokens = (values.pop(name) for name in ("b.long", "b.nested", "tokenizer.ggml.tokens"))
    assert values == {
        "general.architecture": "llama",
        "general.name": "Tiny ünd whole",
        "llama.context_length": 512,
        "general.alignment": 64,
        "a.u8": 255,
        "a.i8": -1,
        "a.u16": 65534,
        "a.i16": -2,
        "a.i32": -3,
        "a.f32": 0.5,
        "a.bool": True,
        "a.u64": 2**64 - 1,
        "a.i64": -(2**63),
        "a.f64": -0.25,
        "b.short": (1, 2, 3),
        "b.bools": (False, True),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.chat_template": "{{ messages }}",
    }
    assert isinstance(long, ArraySummary)
    assert (long.element_type, long.length) == ("int32", 70)
    assert struct.unpack_from("<70i", data, long.offset) == tuple(range(70))
    assert isinstance(nested, ArraySummary)
    assert (nested.element_type, nested.length) == ("array", 2)
    assert isinstance(tokens, ArraySummary)
    assert (tokens.element_type, tokens.length) == ("string", 65)
    assert data[tokens.offset :].startswith(string("t0"))


def test_the_properties_are_taken_from_metadata_and_tensors() -> None:
    gguf = read(whole_file())
    assert (gguf.architecture, gguf.name, gguf.context_length) == ("llama", "Tiny ünd whole", 512)
    assert (gguf.embedding_length, gguf.block_count) == (None, None)
    assert (gguf.tokenizer_model, gguf.tokenizer_size, gguf.chat_template) == ("gpt2", 65, "{{ messages }}")
    assert gguf.parameter_count == 68
    assert gguf.parameters_by_type == {"Q8_0": 64, "F32": 4}
    assert gguf.quantization == "Q8_0"
    assert not gguf.is_adapter
    assert gguf.split is None


def test_a_mix_is_named_by_the_type_that_holds_most() -> None:
    tensors = [tensor("a", (32, 4), Q4_0, 0), tensor("b", (32, 2), Q8_0, 96)]
    assert read(assemble(tensors=tensors, data=bytes(200))).quantization == "Q4_0 mix"


def test_version_2_is_read() -> None:
    assert read(assemble([u32_key("x", 1)], version=2)).version == 2


def test_a_file_without_keys_and_tensors_is_whole() -> None:
    gguf = read(head())
    assert (gguf.tensors, dict(gguf.metadata), gguf.quantization, gguf.architecture) == ((), {}, None, None)


def test_a_scalar_tensor_has_one_element() -> None:
    gguf = read(assemble(tensors=[tensor("scale", (), F32, 0)], data=bytes(4)))
    assert (gguf.tensors[0].shape, gguf.tensors[0].size_bytes, gguf.parameter_count) == ((), 4, 1)


def test_an_adapter_is_recognised() -> None:
    gguf = read(assemble([text_key("general.type", "adapter")]))
    assert gguf.is_adapter
    assert ("kind", "adapter") in describe(gguf)


def split_keys(index: int, count: int, tensors: int) -> list[bytes]:
    numbers = (("split.no", index), ("split.count", count), ("split.tensors.count", tensors))
    return [key(name, UINT16, struct.pack("<H", number)) for name, number in numbers]


def test_a_part_of_a_split_model_says_which() -> None:
    gguf = read(assemble(split_keys(1, 3, 12)))
    assert gguf.split == Split(1, 3, 12)
    assert ("split", "file 2 of 3") in describe(gguf)


def test_a_split_count_of_0_is_left_behind_by_merging() -> None:
    assert read(assemble(split_keys(0, 0, 1), [tensor("a", (4,), F32, 0)], bytes(16))).split is None


def test_a_vocabulary_of_raw_bytes_is_described() -> None:
    gguf = read(assemble([array_key("tokenizer.ggml.tokens", STRING, 2, string(b"\xff") + string("b"))]))
    assert gguf.tokenizer_size == 2
    assert isinstance(gguf.metadata["tokenizer.ggml.tokens"], ArraySummary)


def test_a_short_vocabulary_is_counted() -> None:
    assert (
        read(assemble([array_key("tokenizer.ggml.tokens", STRING, 2, string("a") + string("b"))])).tokenizer_size == 2
    )


def test_a_key_of_another_type_than_expected_is_no_property() -> None:
    gguf = read(
        assemble(
            [
                u32_key("general.name", 1),
                text_key("general.architecture", "x"),
                text_key("x.block_count", "2"),
            ]
        )
    )
    assert (gguf.name, gguf.block_count) == (None, None)


def test_a_value_cannot_be_changed() -> None:
    gguf = read(whole_file())
    with pytest.raises(TypeError):
        gguf.metadata["a.u8"] = 1  # type: ignore[index]  # the point of the test
    with pytest.raises(AttributeError):
        gguf.version = 2  # type: ignore[misc]  # the point of the test


def test_the_summary_survives_json() -> None:
    nan = key("x.nan", 6, struct.pack("<f", float("nan")))
    data = assemble([nan, array_key("x.two", UINT8, 2, b"\1\2"), *split_keys(0, 2, 5)])
    values = summary(read(data))
    assert json.loads(json.dumps(values, allow_nan=False)) == json.loads(msgspec.json.encode(values))
    assert values["split"] == {"index": 0, "count": 2, "tensor_count": 5}
    assert values["metadata"] == {
        "x.nan": "nan",
        "x.two": [1, 2],
        "split.no": 0,
        "split.count": 2,
        "split.tensors.count": 5,
    }
    assert summary(read(whole_file()))["parameters_by_type"] == {"Q8_0": 64, "F32": 4}


def test_the_rows_carry_no_control_characters() -> None:
    rows = describe(read(assemble([text_key("general.name", "a\x1b[31m\nb" + "x" * 5000)])))
    name = dict(rows)["name"]
    assert name.startswith("a [31m b")
    assert len(name) < 200
    assert all(text.isprintable() for row in rows for text in row)


def test_the_rows_name_what_the_file_says() -> None:
    rows = dict(describe(read(whole_file())))
    assert rows["quantization"] == "Q8_0 (Q8_0 94.1%, F32 5.9%)"
    assert rows["tokenizer"] == "gpt2, 65 tokens"
    assert rows["context"] == "512 tokens"
    assert "embedding" not in rows


def test_tensor_data_is_never_read() -> None:
    data = assemble(tensors=[tensor("a", (8 << 20,), F32, 0)])
    file = CountingFile(data + bytes(32 << 20))
    read_gguf(file, len(data) + (32 << 20))
    # One window and the first look; what lies in the window is not looked at.
    assert file.read_bytes <= (1 << 20) + 512


def test_a_long_array_of_numbers_is_passed_over() -> None:
    length = 6 << 20
    data = assemble([array_key("scores", 6, length, bytes(length * 4)), u32_key("after", 7)])
    file = CountingFile(data)
    gguf = read_gguf(file, len(data))
    assert gguf.metadata["after"] == 7
    assert file.read_bytes <= (2 << 20) + 512


def test_strings_are_followed_across_windows() -> None:
    tokens = b"".join(string("x" * (i % 300)) for i in range(20_000))
    gguf = read(assemble([array_key("t", STRING, 20_000, tokens), u32_key("after", 7)]))
    assert len(tokens) > 2 << 20
    assert gguf.metadata["after"] == 7


def test_every_shorter_file_is_refused() -> None:
    data = whole_file()
    for length in range(len(data)):
        with pytest.raises(GGUFError):
            read(data[:length])


def test_a_file_that_shrinks_while_it_is_read_is_refused() -> None:
    with pytest.raises(GGUFError, match="became shorter"):
        read_gguf(io.BytesIO(head(keys=1)), 4096)


def two_tensors(first: bytes, second: bytes, data_bytes: int = 4096) -> bytes:
    return assemble(tensors=[first, second], data=bytes(data_bytes))


HUGE = struct.pack("<Q", 2**63)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
SAFETENSORS = struct.pack("<Q", 60) + b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'

DAMAGED = {
    "an empty file": (b"", "the file is empty"),
    "an html page": (b"\n<!DOCTYPE html><html>sign in</html>", "an HTML page"),
    "an xml error": (b"<?xml version='1.0'?><Error/>", "an XML document"),
    "a json error": (b'{"error": "not found"}', "a JSON document"),
    "plain text": (b"Entry not found", "plain text, beginning 'Entry not found'"),
    "zeros": (bytes(4096), "zero bytes"),
    "a git-lfs pointer": (LFS, "Git LFS pointer"),
    "a safetensors file": (SAFETENSORS, "safetensors"),
    "a zip archive": (b"PK\x03\x04\x14\0", "zip archive"),
    "a ggml file": (b"lmgg\0\0\0\0", "from before GGUF"),
    "unknown bytes": (b"\x01\x02\xff\x04 who knows", "begins with the bytes 01 02 ff 04"),
    "only the magic": (b"GGUF", "the version goes from byte 4 to byte 8, and the file ends at byte 4"),
    "version 1": (head(version=1), "GGUF version 1"),
    "version 4": (head(version=4), "GGUF version 4"),
    "version 0": (head(version=0), "GGUF version 0"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "absurdly many tensors": (head(tensors=2**62), "promises 4611686018427387904 tensors"),
    "absurdly many keys": (head(keys=2**62), "promises 4611686018427387904 keys"),
    "more tensors than bytes": (
        head(tensors=1000),
        "1000 tensors and 0 keys, goes from byte 24 to byte 24024",
    ),
    "more keys than bytes": (head(keys=1000), "0 tensors and 1000 keys, goes from byte 24 to byte 13024"),
    "an absurdly long key": (head(keys=1) + HUGE + bytes(64), "key 0 of 1 goes from byte 32"),
    "a key beyond the limit": (assemble([u32_key("k" * 70_000, 1)]), "longer than 65535 bytes"),
    "an absurdly long string": (assemble([key("a", STRING, HUGE)]), "the value of 'a' goes from byte 45"),
    "an absurdly long array": (
        assemble([array_key("a", UINT64, 2**61, b"")]),
        "2305843009213693952 times uint64",
    ),
    "an absurdly long array of strings": (assemble([array_key("a", STRING, 2**61, b"")]), "times string"),
    "a string in an array that runs out": (
        assemble([array_key("a", STRING, 70, string("") * 69 + HUGE)]),
        "string 69 of the value of 'a' goes from byte 601 to byte",
    ),
    "a key that is not utf-8": (assemble([key(b"ab\xff", UINT8, b"\0")]), "not UTF-8: 0xff at byte 34"),
    "a value that is not utf-8": (assemble([text_key("a", b"\xc3(")]), "'a' is not UTF-8: 0xc3 at byte 45"),
    "a tensor name that is not utf-8": (
        assemble(tensors=[tensor(b"\x80", (1,), F32, 0)]),
        "tensor 0 of 1 is not UTF-8",
    ),
    "a key that stands twice": (
        assemble([u32_key("a", 1), u32_key("a", 2)]),
        "'a' stands twice, the second time at byte 41",
    ),
    "an unknown value type": (assemble([key("a", 13, bytes(64))]), "of type 13, which GGUF does not have"),
    "an unknown element type": (
        assemble([array_key("a", 99, 1, bytes(64))]),
        "of type 99, which GGUF does not have",
    ),
    "a bool of 2": (assemble([key("a", BOOL, b"\2")]), "the byte at 37 is 2"),
    "a bool of 3 in a short array": (assemble([array_key("a", BOOL, 3, b"\1\0\3")]), "the byte at 51 is 3"),
    "a bool of 4 in a long array": (
        assemble([array_key("a", BOOL, 99, b"\1" * 98 + b"\4")]),
        "the byte at 147 is 4",
    ),
    "arrays too deep": (
        assemble([array_key("a", ARRAY, 1, array(ARRAY, 1, b"") * 3 + array(UINT8, 1, b"\0"))]),
        "more than 4 deep",
    ),
    "too many arrays": (
        assemble([array_key("a", ARRAY, 70_000, array(UINT8, 0, b"") * 70_000)]),
        "more than 65536",
    ),
    "too much text": (assemble([text_key("a", b"x" * (17 << 20))]), "more than 16 MiB of text"),
    "an alignment of 0": (assemble([u32_key("general.alignment", 0)]), "alignment is 0, not a power of two"),
    "an alignment of 24": (
        assemble([u32_key("general.alignment", 24)]),
        "alignment is 24, not a power of two",
    ),
    "an alignment in uint64": (
        assemble([key("general.alignment", UINT64, bytes(8))]),
        "of type uint64, not uint32",
    ),
    "an alignment in text": (assemble([text_key("general.alignment", "32")]), "of type string, not uint32"),
    "a tensor that stands twice": (
        two_tensors(tensor("a", (8,), F32, 0), tensor("a", (8,), F32, 32)),
        "tensor 'a' stands twice, the second time at byte 57",
    ),
    "an absurdly long tensor name": (head(tensors=1) + HUGE + bytes(64), "tensor 0 of 1 goes from byte 32"),
    "an unknown tensor type": (assemble(tensors=[tensor("a", (32,), 77, 0)]), "type 77 .* not known"),
    "a tensor type of long ago": (assemble(tensors=[tensor("a", (32,), 31, 0)]), "type 31 .Q4_0_4_4"),
    "five dimensions": (assemble(tensors=[tensor("a", (1, 1, 1, 1, 1), F32, 0)]), "has 5 dimensions"),
    "absurdly many dimensions": (head(tensors=1) + string("a") + b"\xff" * 64, "has 4294967295 dimensions"),
    "a dimension of 0": (assemble(tensors=[tensor("a", (4, 0), F32, 0)]), "makes 0 elements"),
    "dimensions that overflow": (
        assemble(tensors=[tensor("a", (2**32, 2**32), F32, 0)]),
        "makes 18446744073709551616",
    ),
    "a broken row": (
        assemble(tensors=[tensor("a", (33, 2), Q8_0, 0)], data=bytes(99)),
        "row of 33 .* 32 .* Q8_0",
    ),
    "a tensor askew": (
        assemble(tensors=[tensor("a", (4,), F32, 8)], data=bytes(64)),
        "not aligned to 32 bytes",
    ),
    "a tensor outside": (
        assemble(tensors=[tensor("a", (4,), F16, 64)], data=bytes(64)),
        "1 of 1 tensors .* 8 bytes are missing",
    ),
    "a tensor far outside": (
        assemble(tensors=[tensor("a", (4,), F32, 2**63)], data=bytes(64)),
        "beyond the end",
    ),
    "tensors that overlap": (
        two_tensors(tensor("late", (8,), F32, 64), tensor("early", (17,), F32, 0)),
        "tensors 'early' and 'late' overlap",
    ),
    "tensors at one place": (two_tensors(tensor("a", (1,), F32, 0), tensor("b", (1,), F32, 0)), "overlap"),
    "a split beyond its count": (assemble(split_keys(3, 3, 9)), "split.no is 3, but split.count is 3"),
    "a split with too many tensors": (
        assemble(split_keys(0, 2, 0), [tensor("a", (4,), F32, 0)], bytes(16)),
        "this file has 1 tensors, and split.tensors.count",
    ),
}


@pytest.mark.parametrize(("data", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_what_is_wrong_is_named(data: bytes, message: str) -> None:
    with pytest.raises(GGUFError, match=message) as caught:
        read(data)
    assert caught.value.hint
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500


def test_metadata_beyond_the_limit_is_refused_without_reading_it() -> None:
    length = gguf_types.MAX_METADATA_BYTES
    data = head(keys=1) + string("a") + struct.pack("<I", ARRAY) + array(UINT8, length, b"")
    file = CountingFile(data)
    with pytest.raises(GGUFError, match="no more than 128 MiB of metadata are read"):
        read_gguf(file, len(data) + length)
    assert file.read_bytes < 2 << 10


def test_a_cursor_never_passes_the_end() -> None:
    cursor = Cursor(io.BytesIO(bytes(10)), 10)
    cursor.skip(8, "the start")
    for step in (lambda: cursor.skip(3, "the rest"), lambda: cursor.take(3, "the rest")):
        with pytest.raises(GGUFError, match="the rest goes from byte 8 to byte 11, and the file ends at byte 10"):
            step()
    assert (cursor.offset, cursor.left) == (8, 2)
