"""What POSIX asks of the order of calls, checked on the calls themselves.

ext4 and xfs keep more than POSIX promises: each `fsync` writes the whole journal up to there, so that a folder that
was not synced is saved by the next file that is. Where a cut cannot show that a sync is missing, this does.
"""

from collections.abc import Iterator
from typing import Final

from support.tracing import Stop

_WRITES: Final = frozenset({"write", "pwrite64", "writev", "sendfile", "fallocate", "ftruncate", "truncate", "openat"})
_SYNCS: Final = frozenset({"fsync", "fdatasync"})
_RENAMES: Final = frozenset({"rename", "renameat", "renameat2"})
_NAMES: Final = frozenset({"link", "linkat", "mkdir", "mkdirat", "openat"}) | _RENAMES
# What decides nothing, may be lost, and is made again: the history, locks, leases, links for other programs.
_LOOSE: Final = (
    "history.jsonl",
    "lock",
    "lock.pid",
    "trust.lock",
    "trust.lock.pid",
    "model-",
    "leases/",
    "partial/lock",
)


class Order:
    """What is written or named, and not yet synced, on a disk that keeps what it promised and nothing more.

    Args:
        store: The store's folder, as the calls name it.
    """

    def __init__(self, store: str) -> None:
        self._store = store
        self._unsynced: set[str] = set()
        self._unnamed: dict[str, set[str]] = {}

    def faults(self, stop: Stop, *, said: bool) -> Iterator[str]:
        """What is wrong when this call begins; `said` when something was acknowledged just before it."""
        if said:
            yield from self._not_durable("was acknowledged")
        if stop.name in _RENAMES:
            yield from self._faults_of_rename(*stop.paths)
        self._take(stop)

    def faults_at_the_end(self) -> Iterator[str]:
        """What is not durable once the journey is over."""
        return self._not_durable("was acknowledged")

    def _faults_of_rename(self, source: str, target: str) -> Iterator[str]:
        if source in self._unsynced and not self._is_loose(target):
            yield f"{source} is renamed before it is synced"
        name = target.removeprefix(f"{self._store}/")
        if name.startswith("state."):
            yield from self._not_durable("is named by the state", below=("blobs", "releases"))
        if name.startswith("partial/") and target.removesuffix(".json") in self._unsynced:
            yield f"{target} vouches for bytes that are not synced"

    def _not_durable(self, why: str, below: tuple[str, ...] = ("",)) -> Iterator[str]:
        folders = tuple(f"{self._store}/{name}".rstrip("/") for name in below)
        names = {f"the name {path}" for paths in self._unnamed.values() for path in paths if path.startswith(folders)}
        # Bytes that are on their way stay in `partial`, where nobody takes them for a blob.
        files = {path for path in self._unsynced if path.startswith(folders) and "/partial/" not in path}
        found = {text for text in names | files if not self._is_loose(text.removeprefix("the name "))}
        for text in sorted(found):
            if ".tmp" not in text:
                yield f"{text} is not durable and {why}"

    def _is_loose(self, path: str) -> bool:
        name = path.removeprefix(f"{self._store}/")
        return name.startswith((*_LOOSE, "partial/"))

    def _take(self, stop: Stop) -> None:
        """Note what the call does."""
        last = stop.paths[-1]
        if stop.name in _SYNCS:
            self._unsynced.discard(last)
            self._unnamed.pop(last, None)
        if stop.name in _WRITES:
            self._unsynced.add(last)
        if stop.name in _RENAMES:
            self._move(*stop.paths)
        if stop.name in _NAMES:
            self._unnamed.setdefault(last.rpartition("/")[0], set()).add(last)

    def _move(self, source: str, target: str) -> None:
        def moved(path: str) -> str:
            inside = path == source or path.startswith(f"{source}/")
            return target + path.removeprefix(source) if inside else path

        self._unsynced = {moved(path) for path in self._unsynced if path != target}
        for paths in self._unnamed.values():
            paths.discard(source)
        self._unnamed = {moved(k): {moved(path) for path in paths} for k, paths in self._unnamed.items()}
