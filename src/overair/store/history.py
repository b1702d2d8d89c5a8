"""What happened on a device, one event a line."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

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
        with path.open("ab") as file:
            file.write(lines)


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
            except msgspec.DecodeError:
                continue
    return events
