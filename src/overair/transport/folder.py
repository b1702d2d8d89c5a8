"""A copy of a repository in a folder: a USB stick, a share, a disk image.

It stands in for the server, so a device takes the same checks: what comes from a stick is trusted no more than what
comes from the network.
"""

import contextlib
import threading
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from overair.errors import HTTPStatusError, IntegrityError, NetworkError, StorageError
from overair.model.urls import is_safe_url
from overair.transport.http import Document, NotModified


@dataclass(kw_only=True)
class FolderBody:
    """A file of the folder, read piece by piece."""

    url: str
    start: int
    total: int | None
    stop: int | None
    etag: str | None
    content_type: str
    file: FileIO

    def read_into(self, buffer: memoryview) -> int:
        """Put the next bytes at the front of `buffer`, and return their number; 0 at the end.

        Raises:
            NetworkError: The folder cannot be read any more.
        """
        try:
            most = len(buffer) if self.stop is None else self.stop - self.file.tell()
            return self.file.readinto(buffer[:most]) or 0
        except OSError as error:
            raise _unreadable(self.file.name, error) from error

    def read(self, max_bytes: int) -> bytes:
        """The next bytes.

        Raises:
            NetworkError: The folder cannot be read any more.
        """
        try:
            return self.file.read(max_bytes)
        except OSError as error:
            raise _unreadable(self.file.name, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # a stick that was pulled; what was read is verified
            self.file.close()


class Folder:
    """Answers for a repository's URL with the files of a folder.

    Args:
        folder: The copy of the published tree.
        base_url: The address that the tree is published at; other addresses are not here.

    Raises:
        StorageError: There is no such folder.
    """

    def __init__(self, folder: Path, base_url: str) -> None:
        self._base_url = f"{base_url.rstrip('/')}/"
        try:
            self._folder = folder.resolve()
            is_folder = self._folder.is_dir()
        except OSError as error:
            raise StorageError(f"cannot read {folder}: {error.strerror or error}") from error
        if not is_folder:
            raise StorageError(f"there is no folder {folder}", hint="name a folder with a copy of the repository")

    def get(
        self,
        url: str,
        *,
        max_bytes: int,
        etag: str | None = None,  # noqa: ARG002 - reading anew costs nothing
        total_timeout_s: float = 60.0,  # noqa: ARG002 - the disk has its own
    ) -> Document | NotModified:
        """Read a short document.

        Raises:
            HTTPStatusError: It is not in the folder (404).
            IntegrityError: It is longer than `max_bytes`.
            NetworkError: It cannot be read.
        """
        with self.open(url) as body:
            data = body.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise IntegrityError(f"{body.file.name} has more than {max_bytes} bytes")
        return Document(data=data, etag=None, url=url)

    def open(
        self,
        url: str,
        *,
        start: int = 0,
        stop: int | None = None,
        if_range: str | None = None,
        cancel: threading.Event | None = None,  # noqa: ARG002 - no read of a folder waits for long
        buffer_bytes: int | None = None,  # noqa: ARG002 - a folder sends nothing in advance
    ) -> FolderBody:
        """Begin to read a file, or its bytes from `start` up to `stop` if it is still the same.

        Raises:
            HTTPStatusError: It is not in the folder (404).
            NetworkError: It cannot be read.
        """
        path = self._path(url)
        try:
            file = FileIO(path)
            stat = path.stat()
            etag = f'"{stat.st_size:x}-{stat.st_mtime_ns:x}"'
            total = stat.st_size
            begin, end = (start, min(stop or total, total)) if if_range in {None, etag} else (0, total)
            file.seek(begin)
        except FileNotFoundError as error:
            raise HTTPStatusError(
                f"{path} is not there", status=404, hint="copy the whole repository to the folder"
            ) from error
        except OSError as error:
            raise _unreadable(path, error) from error
        return FolderBody(url=url, start=begin, total=total, stop=end, etag=etag, content_type="", file=file)

    def close(self) -> None:
        """Nothing stays open."""

    def _path(self, url: str) -> Path:
        """The file of an address: below the folder, wherever links in it lead."""
        relative = url.removeprefix(self._base_url)
        path = self._folder / relative
        if relative == url or not is_safe_url(relative) or not path.resolve().is_relative_to(self._folder):
            raise HTTPStatusError(
                f"{url} is not in {self._folder}", status=404, hint="it is not part of the repository"
            )
        return path


def _unreadable(what: object, error: OSError) -> NetworkError:
    return NetworkError(f"cannot read {what}: {error.strerror or error}")
