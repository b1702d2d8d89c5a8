"""python-tuf's updater, with its disk and its network exchanged for ours.

python-tuf writes without syncing and makes `root.json` a symbolic link; a device may have neither. What is overridden
here is I/O only, so every decision on what to trust stays python-tuf's. The names begin with an underscore there:
`tests/contract/test_trust_tuf.py` notices when they change.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Final
from urllib.parse import quote, unquote

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Root
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from overair.errors import HTTPStatusError, IntegrityError
from overair.trust.metadata import MAX_ROOT_BYTES, MAX_SNAPSHOT_BYTES, MAX_TARGETS_BYTES, MAX_TIMESTAMP_BYTES
from overair.trust.ports import Fetch, Files

MAX_ROOT_ROTATIONS: Final = 256
MAX_DELEGATIONS: Final = 32
# No file system can hold this name, so a write that is not overridden fails instead of landing somewhere.
_NO_FOLDER: Final = "\0"
_NO_MORE_ROOTS: Final = frozenset({403, 404})


class Fetched(FetcherInterface):
    """Gets metadata through `fetch`, and remembers the last file for messages."""

    def __init__(self, fetch: Fetch) -> None:
        self._get = fetch
        self.url = ""
        self.data = b""

    @property
    def role(self) -> str:
        """The role whose file was fetched last."""
        name = self.url.rpartition("/")[2].removesuffix(".json")
        version, dot, rest = name.partition(".")
        return unquote(rest if dot and version.isdecimal() else name)

    def __str__(self) -> str:
        """Which file was fetched last, for messages."""
        return f"the metadata {self.url.rpartition('/')[2] or 'on this device'}"

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Get a metadata file of at most `max_length` bytes; a longer limit than that of any role does not count.

        Raises:
            IntegrityError: It is longer, or a web page.
            NetworkError: No whole answer came.
        """
        self.url, self.data = url, b""
        limit = min(max_length, MAX_TARGETS_BYTES)
        data = self._get(url, limit)
        if len(data) > limit:
            raise IntegrityError(f"{url} has more than {limit} bytes", hint="is the URL right? this is another file")
        if data[:256].lstrip().startswith(b"<"):
            raise IntegrityError(
                f"{url} is a web page, not metadata",
                hint="is there a login page on this network? open the URL in a browser, or try another network",
            )
        self.data = data
        return data

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self.download_bytes(url, MAX_TARGETS_BYTES)


class DurableUpdater(Updater):
    """The client workflow of TUF over `Files` and `Fetched`.

    Args:
        files: Where metadata is kept.
        fetched: Where it comes from.
        metadata_url: The URL of the published `metadata/` folder.
        bootstrap: The root metadata that trust begins with.
        now: The time that expiry is judged by, aware.
    """

    def __init__(self, files: Files, fetched: Fetched, metadata_url: str, bootstrap: bytes, now: datetime) -> None:
        self._files = files
        self.fetched = fetched
        self._newest_root = bootstrap
        self._now = now
        limits = UpdaterConfig(
            max_root_rotations=MAX_ROOT_ROTATIONS,
            max_delegations=MAX_DELEGATIONS,
            root_max_length=MAX_ROOT_BYTES,
            timestamp_max_length=MAX_TIMESTAMP_BYTES,
            snapshot_max_length=MAX_SNAPSHOT_BYTES,
            targets_max_length=MAX_TARGETS_BYTES,
        )
        super().__init__(_NO_FOLDER, metadata_url, fetcher=fetched, config=limits, bootstrap=bootstrap)
        self._trusted_set.reference_time = now

    @property
    def consistent_snapshot(self) -> bool:
        """Whether the digest of a target is part of its published name (TUF 6.2)."""
        return bool(self._trusted_set.root.consistent_snapshot)

    def keys_of(self, role: str) -> tuple[str, ...] | None:
        """The ids of the keys that the top-level targets name for a role, or None."""
        try:
            return tuple(sorted(self._trusted_set.targets.get_delegated_role(role).keyids))
        except ValueError:
            return None

    def too_old(self) -> tuple[str, datetime] | None:
        """The first role of those loaded that has expired, and when."""
        loaded = (self._trusted_set.get(role) for role in ("root", "timestamp", "snapshot"))
        return next(((m.type, m.expires) for m in loaded if m is not None and m.is_expired(self._now)), None)

    def _load_local_metadata(self, rolename: str) -> bytes:
        name = _file_name(rolename)
        data = self._files.read(name)
        if data is None:
            raise FileNotFoundError(name)
        return data

    def _persist_metadata(self, rolename: str, data: bytes) -> None:
        self._files.write(_file_name(rolename), data)

    def _persist_root(self, version: int, data: bytes) -> None:
        self._write_if_new(_root_name(version), data)

    def _update_root_symlink(self) -> None:
        self._write_if_new(_file_name(Root.type), self._newest_root)

    def _write_if_new(self, name: str, data: bytes) -> None:
        if self._files.read(name) != data:
            self._files.write(name, data)

    def _load_root(self) -> None:
        """Follow the chain of roots (TUF 5.3), as far as it is known here and then from the server.

        Unlike python-tuf's, the limit counts only the roots that are fetched: otherwise a device whose embedded root
        is older than the limit would never see the newest.
        """
        try:
            while self._follow_known_root():
                pass
            for _ in range(MAX_ROOT_ROTATIONS):
                if not self._follow_published_root():
                    break
        finally:
            self._update_root_symlink()

    def _follow_known_root(self) -> bool:
        data = self._files.read(_root_name(self._trusted_set.root.version + 1))
        if data is None:
            return False
        try:
            self._trusted_set.update_root(data)
        except RepositoryError:  # another publisher's, or damaged: the server has the right one
            return False
        self._newest_root = data
        return True

    def _follow_published_root(self) -> bool:
        version = self._trusted_set.root.version + 1
        try:
            data = self._download_metadata(Root.type, MAX_ROOT_BYTES, version)
        except HTTPStatusError as error:
            if error.status in _NO_MORE_ROOTS:
                return False
            raise
        self._trusted_set.update_root(data)
        self._newest_root = data
        self._persist_root(version, data)
        return True


def _file_name(role: str) -> str:
    return f"{quote(role, '')}.json"


def _root_name(version: int) -> str:
    return f"root_history/{version}.root.json"
