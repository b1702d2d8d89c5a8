"""Where a device keeps the metadata that it trusts."""

import re
from pathlib import Path
from typing import Final

from overair.errors import TrustError
from overair.store.durable import make_directory, storage_errors, write_file

MAX_FILE_BYTES: Final = 6_000_000
_NAME: Final = re.compile(r"(root_history/)?[a-z0-9][a-z0-9._-]{0,120}\.json")


class TrustFiles:
    """Small files in a folder, each replaced durably and without links, so that FAT will do as well.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes | None:
        """The content of a file, or None where there is none.

        Raises:
            StorageError: The disk refused.
            TrustError: The name is not one of metadata.
        """
        path = self._path(name)
        with storage_errors("read", path):
            if not path.is_file():
                return None
            with path.open("rb") as file:
                return file.read(MAX_FILE_BYTES)

    def write(self, name: str, data: bytes) -> None:
        """Replace a file's content durably.

        Raises:
            StorageError: The disk refused.
            TrustError: The name is not one of metadata.
        """
        path = self._path(name)
        make_directory(path.parent)
        write_file(path, data)

    def _path(self, name: str) -> Path:
        # A role's name is part of it, and whoever has the targets key chose it: neither may it lead elsewhere, nor
        # be `Root`, which on some disks is `root`.
        if _NAME.fullmatch(name) is None:
            raise TrustError(
                f"the metadata names a role that cannot be a channel: {name[:80]!r}",
                hint="ask the publisher: a channel has a name of small letters, digits, - and _",
            )
        return self._folder / name
