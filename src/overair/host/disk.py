"""How much room there is."""

import shutil
from pathlib import Path

from overair.errors import StorageError


def free_bytes(path: Path) -> int:
    """What this user may still write to the disk that holds a folder, in bytes.

    Raises:
        StorageError: The disk does not say.
    """
    try:
        return shutil.disk_usage(path).free
    except OSError as error:
        raise StorageError(f"cannot measure the free space of {path}: {error.strerror or error}") from error
