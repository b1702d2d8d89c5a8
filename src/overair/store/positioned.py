"""Read and write a file at an offset, from several threads at once."""

import os
import threading
from io import FileIO


class PositionedFile:
    """A file whose readers and writers do not disturb each other; where the system cannot, they wait for each other.

    Every method raises `OSError` when the disk refuses.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._seeking = threading.Lock()

    def fileno(self) -> int:
        """The descriptor."""
        return self._file.fileno()

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of the bytes."""
        while data:
            written = self._write_some(offset, data)
            offset += written
            data = data[written:]

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Read bytes; returns their number, 0 at the end of the file."""
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [buffer], offset)
        with self._seeking:
            self._file.seek(offset)
            return self._file.readinto(buffer) or 0

    def close(self) -> None:
        """Close it."""
        self._file.close()

    def _write_some(self, offset: int, data: memoryview) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self._file.fileno(), data, offset)
        with self._seeking:
            self._file.seek(offset)
            return self._file.write(data)
