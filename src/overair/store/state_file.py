"""The state on disk: two copies, written one after the other, each with its generation and a checksum.

A copy is one line of JSON with the format, the CRC-32 and the length of what follows, then the state as JSON.
"""

import contextlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from overair.errors import StateUnreadableError, StorageError
from overair.model.state import FORMAT, State
from overair.store.durable import storage_errors, write_file

MAX_STATE_BYTES: Final = 16_000_000


class _Header(msgspec.Struct, frozen=True):
    overair_state: int
    crc32: int
    bytes: int


class Loaded(msgspec.Struct, frozen=True):
    """The newest state, and what is wrong with the copies: an empty text for one that is as it should be."""

    state: State
    damage: tuple[str, ...]


def load_state(copies: Sequence[Path]) -> Loaded:
    """The newest state that can be read; an empty one where none was ever written.

    Raises:
        StateUnreadableError: There are copies, and none can be read. Nothing is reset: the quarantine is in there.
        StorageError: The disk refused.
    """
    found: list[State | None] = []
    damage: list[str] = []
    unreadable = False
    for path in copies:
        try:
            found.append(_read(path))
            damage.append("" if found[-1] else f"{path.name} is missing")
        except ValueError as error:
            unreadable = True
            found.append(None)
            damage.append(f"{path.name}: {error}")
    states = [state for state in found if state is not None]
    if states:
        newest = max(states, key=lambda state: state.generation)
        behind = [f"{path.name} is behind" if s and s != newest else "" for path, s in zip(copies, found, strict=True)]
        return Loaded(newest, tuple(d or b for d, b in zip(damage, behind, strict=True)))
    if not unreadable:
        return Loaded(State(), ("",) * len(copies))
    raise StateUnreadableError(
        f"the state in {copies[0].parent} cannot be read ({'; '.join(damage)})",
        hint="rebuild what can be proved from the models that are here with: overair device recover",
    )


def save_state(copies: Sequence[Path], state: State, *, first: int) -> None:
    """Write a state durably to all copies, one after the other: when one is damaged later, nothing is lost.

    Args:
        copies: Where.
        state: What.
        first: The copy to begin with: one that is damaged or behind. Once it is written, the state holds.

    Raises:
        StorageError: The disk refused the first copy; the other is untouched.
    """
    body = msgspec.json.format(msgspec.json.encode(state), indent=1)
    header = msgspec.json.encode(_Header(overair_state=FORMAT, crc32=zlib.crc32(body), bytes=len(body)))
    data = header + b"\n" + body
    write_file(copies[first], data)
    for number, path in enumerate(copies):
        if number != first:
            # The state holds by the first copy; the next write, or a repair, tries the others again.
            with contextlib.suppress(StorageError):
                write_file(path, data)


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
