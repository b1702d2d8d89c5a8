"""The state on disk: two copies, written in turn, each with its generation and a checksum.

A copy is one line of JSON with the format, the CRC-32 and the length of what follows, then the state as JSON.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from overair.errors import StateUnreadableError
from overair.model.state import FORMAT, State
from overair.store.durable import storage_errors, write_file

MAX_STATE_BYTES: Final = 16_000_000


class _Header(msgspec.Struct, frozen=True):
    overair_state: int
    crc32: int
    bytes: int


def load_state(copies: Sequence[Path]) -> State:
    """The newest state that can be read; an empty one where none was ever written.

    Raises:
        StateUnreadableError: There are copies, and none can be read. Nothing is reset: the quarantine is in there.
        StorageError: The disk refused.
    """
    found: list[State] = []
    damage: list[str] = []
    for path in copies:
        try:
            state = _read(path)
        except ValueError as error:
            damage.append(f"{path.name}: {error}")
        else:
            found += [state] if state is not None else []
    if found:
        return max(found, key=lambda state: state.generation)
    if damage:
        raise StateUnreadableError(
            f"the state in {copies[0].parent} cannot be read ({'; '.join(damage)})",
            hint="move the folder away and set the device up again with: overair device init",
        )
    return State()


def save_state(copies: Sequence[Path], state: State) -> None:
    """Write a state durably over the older copy.

    Raises:
        StorageError: The disk refused; the newer copy is untouched.
    """
    body = msgspec.json.format(msgspec.json.encode(state), indent=1)
    header = msgspec.json.encode(_Header(overair_state=FORMAT, crc32=zlib.crc32(body), bytes=len(body)))
    write_file(copies[state.generation % len(copies)], header + b"\n" + body)


def _read(path: Path) -> State | None:
    with storage_errors("read", path):
        try:
            with path.open("rb") as file:
                data = file.read(MAX_STATE_BYTES + 1)
        except FileNotFoundError:
            return None
    if len(data) > MAX_STATE_BYTES:
        raise ValueError(f"more than {MAX_STATE_BYTES} bytes")
    first, _, body = data.partition(b"\n")
    header = msgspec.json.decode(first, type=_Header)
    if len(body) != header.bytes or zlib.crc32(body) != header.crc32:
        raise ValueError("the checksum does not fit")
    return msgspec.json.decode(body, type=State)
