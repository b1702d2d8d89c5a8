"""What happened on a device, one event a line."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from overair.model.events import Event
from overair.store.durable import storage_errors

MAX_HISTORY_BYTES: Final = 1_000_000


def append(path: Path, events: Iterable[Event]) -> None:
    """Add events. When the file is full, it becomes `.old` and a new one begins.

    Raises:
        StorageError: The disk refused.
    """
    lines = b"".join(msgspec.json.encode(event) + b"\n" for event in events)
    if not lines:
        return
    with storage_errors("write", path):
        if path.exists() and path.stat().st_size + len(lines) > MAX_HISTORY_BYTES:
            path.replace(path.with_name(path.name + ".old"))
        with path.open("a+b") as file:
            if _is_torn(file):
                lines = b"\n" + lines
            file.write(lines)


def _is_torn(file: BinaryIO) -> bool:
    """Whether the last line has no end: the next event must not be lost with it."""
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def read(path: Path) -> list[Event]:
    """The events that are kept, the oldest first. A line that is torn is passed over.

    Raises:
        StorageError: The disk refused.
    """
    events: list[Event] = []
    for file in (path.with_name(path.name + ".old"), path):
        with storage_errors("read", file):
            lines = file.read_bytes().splitlines() if file.exists() else []
        for line in lines:
            try:
                events.append(msgspec.json.decode(line, type=Event))
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
    return events
