"""What the last check came to: `last_check.json`, for people and for the next check's time. No release hangs on it."""

from pathlib import Path
from typing import Final

import msgspec

from overair.errors import StorageError
from overair.model.report import LastCheck
from overair.store import durable

MAX_BYTES: Final = 100_000


def load_last_check(path: Path) -> LastCheck | None:
    """What was noted, or None where nothing was or it cannot be read."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(MAX_BYTES), type=LastCheck)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def save_last_check(path: Path, check: LastCheck) -> bool:
    """Note what a check came to; False where the disk refuses, which must not fail the check."""
    try:
        durable.write_file(path, msgspec.json.encode(check))
    except StorageError:
        return False
    return True
