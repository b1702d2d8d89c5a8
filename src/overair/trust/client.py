"""What a device verifies with: the client workflow of TUF (specification 1.0, section 5), by python-tuf.

Names of files: `<role>.json` is the newest trusted metadata of a role, `root_history/<version>.root.json` every root
that led here. Each file is written as soon as it is verified, so a refresh that stops half-way has still moved on,
and a later one never accepts less.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tuf.api.exceptions import ExpiredMetadataError, LengthOrHashMismatchError
from tuf.api.metadata import TargetFile

from overair.errors import IntegrityError, TrustError
from overair.model.digest import Digest, parse_digest
from overair.model.manifest import MAX_MANIFEST_BYTES
from overair.trust.metadata import check_root, expired, expiry, refusals
from overair.trust.ports import Fetch, Files
from overair.trust.updater import DurableUpdater, Fetched

_CHANGED: Final = "check for an update again; if that does not help, the server or a network in between changes files"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A signed path: the length in bytes and the digest that its content must have."""

    path: str
    length: int
    sha256: Digest


class TrustClient:
    """Believes nothing but what a chain of signatures from the embedded root vouches for.

    Args:
        files: Where the metadata is kept.
        metadata_url: The URL of the published `metadata/` folder.
        fetch: Gets a URL; ends the refresh by raising when all of it takes too long.
        now: The time that expiry is judged by, aware.
        bootstrap_root: The root that the application embeds. It is where trust begins, whatever the disk says;
            None takes the newest root on the disk.
    """

    def __init__(
        self, files: Files, *, metadata_url: str, fetch: Fetch, now: datetime, bootstrap_root: bytes | None = None
    ) -> None:
        self._files = files
        self._metadata_url = metadata_url
        self._fetch = fetch
        self._now = now
        self._bootstrap = bootstrap_root
        self._refreshed: DurableUpdater | None = None

    def refresh(self) -> None:
        """Bring root, timestamp, snapshot and targets up to date, in this order (TUF 5.3 to 5.6).

        Raises:
            ExpiredError: Metadata is authentic but too old to install by.
            TrustError: Metadata is not signed by whom it should be, or goes back.
            IntegrityError: Bytes are not what was signed, or are a web page.
            NetworkError: The server gave no answer, or a wrong one.
            StorageError: The disk refused.
        """
        self._refreshed = None
        self._refreshed = self._refresh()

    def target_info(self, path: str) -> Target | None:
        """What is signed for `path`, found through the delegations (TUF 5.6.7); None when nobody signed it.

        Raises: as `refresh`, which comes first where it was not done.
        """
        found = self._find(path)
        return None if found is None else _target(found)

    def keys_of(self, role: str) -> tuple[str, ...]:
        """The ids of the keys that may sign for a role which the top-level targets delegate to, sorted.

        Raises: as `refresh`, which comes first where it was not done, and:
            TrustError: There is no such role.
        """
        if self._refreshed is None:
            self.refresh()
        keyids = self._refreshed.keys_of(role) if self._refreshed else None
        if keyids is None:
            raise TrustError(f"nobody may sign for {role}", hint="is the channel right?")
        return keyids

    def fetch_target(self, path: str, base_url: str, *, cached: bytes | None = None) -> bytes:
        """Fetch a target of at most 5 MB, a manifest, and verify it (TUF 5.7). Models are downloaded elsewhere.

        Args:
            path: The target's path.
            base_url: The URL of the published `targets/` folder.
            cached: Content that is here from before: returned without a request if it is what is signed now.

        Raises: as `refresh`, and:
            TrustError: Nobody who may has signed `path`.
            IntegrityError: The bytes are not what was signed.
        """
        found = self._find(path)
        if found is None:
            raise TrustError(
                f"nobody who may has signed {path}", hint="is the channel right, and was anything published to it?"
            )
        if cached is not None and _is_signed(found, cached):
            return cached
        url = f"{base_url.rstrip('/')}/{self._published_path(found)}"
        data = self._fetch(url, min(found.length, MAX_MANIFEST_BYTES))
        with refusals(path, hint=_CHANGED):
            found.verify_length_and_hashes(data)
        return data

    def _find(self, path: str) -> TargetFile | None:
        updater = self._current()
        with self._refusals(updater):
            return updater.get_targetinfo(path)

    def _current(self) -> DurableUpdater:
        if self._refreshed is None:
            self._refreshed = self._refresh()
        return self._refreshed

    def _refresh(self) -> DurableUpdater:
        root = self._bootstrap if self._bootstrap is not None else self._files.read("root.json")
        if root is None:
            raise TrustError("this device has no trusted root", hint="embed one with: overair device init --root FILE")
        check_root(root, what="the root that this device trusts")
        updater = DurableUpdater(self._files, Fetched(self._fetch), self._metadata_url, root, self._now)
        with self._refusals(updater):
            updater.refresh()
        return updater

    def _published_path(self, target: TargetFile) -> str:
        if not self._current().consistent_snapshot:
            return target.path
        folder, slash, name = target.path.rpartition("/")
        digest = target.hashes.get("sha256") or next(iter(target.hashes.values()))
        return f"{folder}{slash}{digest}.{name}"

    @contextmanager
    def _refusals(self, updater: DurableUpdater) -> Iterator[None]:
        with refusals(updater.fetched, hint=_CHANGED):
            try:
                yield
            except ExpiredMetadataError as error:
                role, expires = updater.too_old() or (updater.fetched.role, expiry(updater.fetched.data))
                raise expired(role, expires, self._now) from error
            except (TypeError, ValueError, KeyError, AttributeError, OverflowError, RecursionError) as error:
                # python-tuf checks every signature, and not every type
                raise TrustError(f"{updater.fetched} is malformed: {type(error).__name__}", hint=_CHANGED) from error


def embed_root(files: Files, root: bytes) -> int:
    """Make `root` the trust of a device that has none, and return its version.

    An older or newer root of the same publisher changes nothing: an app goes on embedding the one it was built with,
    and devices follow the chain of roots by themselves.

    Raises:
        TrustError: It is not root metadata signed by itself, or the device trusts another publisher.
        StorageError: The disk refused.
    """
    version = check_root(root)
    present = files.read("root.json")
    if present is None or not _is_root(present):
        files.write("root.json", root)
        return version
    trusted = check_root(present)
    known = present if version == trusted else files.read(f"root_history/{version}.root.json")
    if known is not None and known != root:
        raise TrustError("this device trusts another root", hint="make a new store to trust another publisher")
    return trusted


def _is_root(data: bytes) -> bool:
    try:
        check_root(data)
    except TrustError:
        return False
    return True


def _is_signed(target: TargetFile, data: bytes) -> bool:
    try:
        target.verify_length_and_hashes(data)
    except LengthOrHashMismatchError:
        return False
    return True


def _target(found: TargetFile) -> Target:
    try:
        return Target(path=found.path, length=found.length, sha256=parse_digest(found.hashes["sha256"]))
    except KeyError:
        raise IntegrityError(f"{found.path} is signed without a SHA-256") from None
