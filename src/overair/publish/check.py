"""Is all there that devices will ask for? Looks at a published tree and changes nothing."""

import hashlib
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from overair.errors import IntegrityError
from overair.model.digest import Digest
from overair.model.manifest import MAX_MANIFEST_BYTES, Manifest
from overair.publish.rollout import EXPIRES_AFTER, timestamp
from overair.publish.tree import SETTINGS_NAME, Publication, Tree, is_there, read_small_file
from overair.store.durable import storage_errors

# A quarter of how long a manifest is valid.
WARN_BEFORE_EXPIRY: Final = EXPIRES_AFTER / 4

Level = Literal["error", "warning", "info"]


class _File(NamedTuple):
    """What a manifest says of one file."""

    url: str
    size_bytes: int
    sha256: Digest


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that `check` saw.

    Args:
        level: "error": devices will fail on it; "warning": they soon may; "info": it is only in the way.
        path: The file, relative to the repository.
        message: What is the matter with it.
    """

    level: Level
    path: str
    message: str


def check_tree(tree: Tree, *, deep: bool, now: datetime) -> list[Finding]:
    """Compare the tree with what its manifests say, and every blob with its digest if `deep`.

    Raises:
        StorageError: The disk refused.
    """
    return list(_Check(tree, deep=deep, now=now).findings())


class _Check:
    def __init__(self, tree: Tree, *, deep: bool, now: datetime) -> None:
        self._tree = tree
        self._deep = deep
        self._now = now
        self._named: set[Path] = {tree.folder / SETTINGS_NAME}
        self._checked: set[tuple[Path, Digest]] = set()
        self._knows_all = True

    def findings(self) -> Iterator[Finding]:
        for channel in self._tree.channels():
            yield from self._head(channel)
            yield from self._log(channel)
        if self._knows_all:
            yield from self._leftovers()

    def _head(self, channel: str) -> Iterator[Finding]:
        copies = self._tree.plain_copies(channel)
        self._named.update(copies)
        try:
            head = self._tree.head(channel)
        except IntegrityError as error:
            yield self._found("error", copies[0], error.message)
            return
        if head is not None:
            yield from self._copies(channel, head)
            yield from self._expiry(copies[0], head.manifest)
            for file in _files(head.manifest):
                yield from self._file(file)

    def _copies(self, channel: str, head: Publication) -> Iterator[Finding]:
        for path in (*self._tree.plain_copies(channel), self._tree.hashed_manifest(channel, head.sha256)):
            if not is_there(path):
                yield self._found("error", path, "missing: the next command that publishes writes it")
            elif read_small_file(path, MAX_MANIFEST_BYTES) != head.data:
                yield self._found("error", path, "differs from the newest manifest of the channel")

    def _expiry(self, path: Path, manifest: Manifest) -> Iterator[Finding]:
        if manifest.expires is not None and manifest.expires <= timestamp(self._now + WARN_BEFORE_EXPIRY):
            expired = manifest.expires <= timestamp(self._now)
            yield self._found("warning", path, f"{'expired' if expired else 'expires'} at {manifest.expires}")

    def _log(self, channel: str) -> Iterator[Finding]:
        try:
            publications = self._tree.log(channel)
        except IntegrityError as error:
            self._knows_all = False
            yield self._found("error", self._tree.plain_copies(channel)[0], error.message)
            return
        for newer, older in pairwise(publications):
            if newer.manifest.sequence != older.manifest.sequence + 1:
                path = self._tree.hashed_manifest(channel, newer.sha256)
                what = f"has sequence {newer.manifest.sequence} and follows sequence {older.manifest.sequence}"
                yield self._found("error", path, what)
        for publication in publications:
            self._named.add(self._tree.hashed_manifest(channel, publication.sha256))
            places = (self._place(file.url) for file in _files(publication.manifest))
            self._named.update(place for place in places if place is not None)

    def _file(self, file: _File) -> Iterator[Finding]:
        path = self._place(file.url)
        if path is None:
            yield Finding(level="info", path=file.url, message="on another server: not checked")
        elif (path, file.sha256) not in self._checked:
            self._checked.add((path, file.sha256))
            wrong = self._what_is_wrong(path, file)
            if wrong:
                yield self._found("error", path, wrong)

    def _what_is_wrong(self, path: Path, file: _File) -> str:
        with storage_errors("read", path):
            if not path.is_file():
                return "missing, and a manifest names it"
            size = path.stat().st_size
            if size != file.size_bytes:
                return f"has {size} bytes, the manifest says {file.size_bytes}"
            if self._deep:
                with path.open("rb") as opened:
                    actual = hashlib.file_digest(opened, "sha256").hexdigest()
                return "" if actual == file.sha256 else f"damaged: its digest is {actual}, expected {file.sha256}"
        return ""

    def _leftovers(self) -> Iterator[Finding]:
        with storage_errors("list", self._tree.folder):
            files = sorted(path for path in self._tree.folder.rglob("*") if path.is_file())
        for path in files:
            if path not in self._named and not path.name.startswith("."):
                yield self._found("info", path, "no manifest names it")

    def _place(self, url: str) -> Path | None:
        """Where a URL of a manifest leads in this tree; manifests hold no URL that climbs."""
        below = url.removeprefix(self._tree.settings.base_url + "/")
        return None if "://" in below else self._tree.folder / below

    def _found(self, level: Level, path: Path, message: str) -> Finding:
        return Finding(level=level, path=path.relative_to(self._tree.folder).as_posix(), message=message)


def _files(manifest: Manifest) -> Iterator[_File]:
    for tier in manifest.models.values():
        for entry in (tier, tier.rollback, tier.candidate):
            if entry is None:
                continue
            yield _File(entry.url, entry.size_bytes, entry.sha256)
            for artifact in entry.artifacts:
                for file in (artifact, artifact.chunks, *artifact.deltas):
                    if file is not None:
                        yield _File(file.url, file.size_bytes, file.sha256)
