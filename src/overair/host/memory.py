"""How much memory there is."""

from pathlib import Path
from typing import Final, NamedTuple

_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")
_USED: Final = Path("/sys/fs/cgroup/memory.current")


class Memory(NamedTuple):
    """What this machine, or the container that this process runs in, has of memory, in bytes."""

    total_bytes: int
    available_bytes: int


def memory() -> Memory | None:
    """The memory of this machine, or None when it does not say."""
    import psutil

    try:
        machine = psutil.virtual_memory()
    except (OSError, psutil.Error, RuntimeError):
        return None
    limit, used = _read(_LIMIT), _read(_USED)
    if limit is None or limit >= machine.total:
        return Memory(machine.total, machine.available)
    return Memory(limit, min(machine.available, max(limit - (used or 0), 0)))


def _read(path: Path) -> int | None:
    """A number that the kernel gives (cgroup v2), or None where it gives none or says `max`."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
