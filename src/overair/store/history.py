"""What happened on a device, one event a line."""

import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from msgspec.structs import replace

from overair.model.events import Event
from overair.store.durable import storage_errors

MAX_HISTORY_BYTES: Final = 1_000_000


def named(events: Iterable[Event]) -> tuple[Event, ...]:
    """The events, each with a name of its own."""
    return tuple(event if event.id else replace(event, id=uuid.uuid4().hex) for event in events)


def append(path: Path, events: Iterable[Event], *, max_bytes: int = MAX_HISTORY_BYTES) -> None:
    """Add events. When the file is full, it becomes `.old` and a new one begins.

    Args:
        path: The file.
        events: What happened; those that have no name get one.
        max_bytes: How long the file may become.

    Raises:
        StorageError: The disk refused.
    """
    lines = b"".join(msgspec.json.encode(event) + b"\n" for event in named(events))
    if not lines:
        return
    with storage_errors("write", path):
        if path.exists() and path.stat().st_size + len(lines) > max_bytes:
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
