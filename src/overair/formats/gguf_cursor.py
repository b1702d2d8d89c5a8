"""A bounded way forward through the head of a GGUF file, and names for files that are none."""

import struct
from typing import BinaryIO, Final

from overair.errors import GGUFError
from overair.formats.gguf_types import MAX_METADATA_BYTES, MAX_TEXT_BYTES, MIB, U32, U64

WINDOW_BYTES: Final = MIB
HEAD_BYTES: Final = 512

_AGAIN: Final = "the file is damaged or was cut short: download or export it again"


def broken(message: str, *, hint: str = _AGAIN) -> GGUFError:
    """Return the error that says what is wrong with a file and, unless told otherwise, to get it again."""
    return GGUFError(message, hint=hint)


class Cursor:
    """Reads numbers and strings one after another, holding one window of the file at a time.

    Every length is compared with the bytes that are left before anything of that length is read. Errors name
    what was being read and where: callers pass that as `what`.

    Args:
        file: A binary file that can seek.
        size: Its length in bytes.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._end = min(size, MAX_METADATA_BYTES)
        self._base = 0
        self._window = b""
        self._at = 0
        self._text_bytes = 0

    @property
    def offset(self) -> int:
        """Where the next read begins, in bytes from the start of the file."""
        return self._base + self._at

    @property
    def left(self) -> int:
        """How many bytes may still be read."""
        return self._end - self.offset

    def require(self, count: int, what: str) -> None:
        """Raise `GGUFError` unless `count` bytes are left."""
        if count <= self.left:
            return
        end = self.offset + count
        if end <= self._size:
            raise broken(
                f"{what} goes from byte {self.offset} to byte {end}; no more than {MAX_METADATA_BYTES // MIB} MiB "
                "of metadata are read",
                hint="no known model has this much metadata: look at what wrote the file",
            )
        raise broken(
            f"cut short or damaged: {what} goes from byte {self.offset} to byte {end}, "
            f"and the file ends at byte {self._size}"
        )

    def unpack(self, layout: struct.Struct, what: str) -> tuple[int, ...]:
        """Read integers."""
        self._fill(layout.size, what)
        values = layout.unpack_from(self._window, self._at)
        self._at += layout.size
        return values

    def u32(self, what: str) -> int:
        """Read an unsigned integer of 4 bytes."""
        return self.unpack(U32, what)[0]

    def u64(self, what: str) -> int:
        """Read an unsigned integer of 8 bytes."""
        return self.unpack(U64, what)[0]

    def take(self, count: int, what: str) -> bytes:
        """Read `count` bytes; the caller has bounded `count`."""
        self._fill(count, what)
        taken = self._window[self._at : self._at + count]
        self._at += count
        return taken

    def string(self, what: str) -> bytes:
        """Read the bytes of a string that is to be kept; all of those together have a limit."""
        length = self.u64(f"the length of {what}")
        self.require(length, what)
        self._text_bytes += length
        if self._text_bytes > MAX_TEXT_BYTES:
            raise broken(f"{what} at byte {self.offset}: more than {MAX_TEXT_BYTES // MIB} MiB of text in the metadata")
        return self.take(length, what)

    def text(self, what: str) -> str:
        """Read a string that has to be UTF-8."""
        start = self.offset + U64.size
        try:
            return self.string(what).decode()
        except UnicodeDecodeError as error:
            wrong = error.object[error.start]
            raise broken(f"{what} is not UTF-8: {wrong:#04x} at byte {start + error.start}") from error

    def skip(self, count: int, what: str) -> None:
        """Pass over `count` bytes without reading them."""
        self.require(count, what)
        self._at += count

    def skip_strings(self, count: int, what: str) -> None:
        """Pass over `count` strings: of each only the length is looked at.

        A vocabulary has some 262,144 of them, hence the loop that touches nothing but local names.
        """
        unpack, header = U64.unpack_from, U64.size
        left = count
        while left:
            self._fill(header, what)
            window, at = self._window, self._at
            start = at
            last = len(window) - header
            while left and at <= last:
                start = at
                at += header + unpack(window, at)[0]
                left -= 1
            self._at = start
            self.require(at - start, f"string {count - left - 1} of {what}")
            self._at = at

    def _fill(self, count: int, what: str) -> None:
        """Make the window hold the next `count` bytes."""
        if self._at + count <= len(self._window):
            return
        self.require(count, what)
        start = self.offset
        self._file.seek(start)
        self._window = self._file.read(min(max(count, WINDOW_BYTES), self._end - start))
        self._base, self._at = start, 0
        if len(self._window) < count:
            raise broken(f"the file became shorter while it was read: {what} at byte {start}")


_FOREIGN: Final = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file it stands for", "run: git lfs pull"),
    (b"PK\x03\x04", "a zip archive (a wheel, or PyTorch weights)", "unpack it, or convert the model to GGUF"),
    (b"lmgg", "a GGML file, from before GGUF", "convert the original model with a current llama.cpp"),
    (b"fmgg", "a GGMF file, from before GGUF", "convert the original model with a current llama.cpp"),
    (b"tjgg", "a GGJT file, from before GGUF", "convert the original model with a current llama.cpp"),
    (b"algg", "a GGLA adapter, from before GGUF", "convert the original adapter with a current llama.cpp"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it first"),
    (b"\xfd7zXZ\x00", "an xz archive", "unpack it first"),
    (b"\x80\x02", "a Python pickle (PyTorch weights)", "convert the model to GGUF with llama.cpp"),
)
_WEB_HINT: Final = "the server answered with a page, not with the model: check the URL, the login and the proxy"
_MARKUP: Final = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<?xml", "an XML document"),
    (b"<", "a page of markup"),
    (b"{", "a JSON document"),
)


def what_else(head: bytes) -> tuple[str, str]:
    """Say what a file is whose first bytes are `head` and not GGUF's magic, and what to do about it."""
    for magic, what, hint in _FOREIGN:
        if head.startswith(magic):
            return what, hint
    if head[8:10] in {b'{"', b"{}", b"{ "}:
        return "a safetensors file", "convert the model to GGUF with llama.cpp"
    if not head.strip(b"\0"):
        return "zero bytes: space was reserved but never written", "download the file again"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for prefix, what in _MARKUP:
        if start[: len(prefix)].lower() == prefix:
            return what, _WEB_HINT
    if head.isascii() and head.decode("ascii").replace("\r", " ").replace("\n", " ").isprintable():
        return f"plain text, beginning {head[:40].decode('ascii')!r}", _WEB_HINT
    return (
        f"something that begins with the bytes {head[:4].hex(' ')}",
        "check that this is the file you meant",
    )
