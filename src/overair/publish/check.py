"""Is all there that devices will ask for? Looks at a published tree and changes nothing."""

import hashlib
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from overair.errors import IntegrityError, TrustError, UsageError
from overair.model.digest import Digest
from overair.model.manifest import MAX_MANIFEST_BYTES, Manifest
from overair.publish.described import TIMESTAMP_NAME, Described, describe
from overair.publish.key_folder import has_keys, open_signing
from overair.publish.rollout import EXPIRES_AFTER, timestamp
from overair.publish.signing import METADATA, Signing, reader
from overair.publish.tree import SETTINGS_NAME, Publication, Tree, is_there, read_small_file
from overair.store.durable import storage_errors
from overair.trust import dsse

# A quarter of how long a manifest is valid, as of the roles.
WARN_BEFORE_EXPIRY: Final = EXPIRES_AFTER / 4
_RENEWALS: Final = {"timestamp": "", "snapshot": "", "targets": " --role targets", "root": " --role root"}

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


def check_tree(tree: Tree, keys: Path, *, deep: bool, now: datetime) -> list[Finding]:
    """Compare the tree with what its metadata and its manifests say, and every blob with its digest if `deep`.

    Who signed is checked with the public keys in the folder `keys`, where there are any.

    Raises:
        StorageError: The disk refused.
    """
    return list(_Check(tree, keys, deep=deep, now=now).findings())


class _Check:
    def __init__(self, tree: Tree, keys: Path, *, deep: bool, now: datetime) -> None:
        self._described: Described = describe(reader(tree))
        self._tree = tree.signed(self._described.heads.get)
        self._keys = keys
        self._signing: Signing | None = None
        self._deep = deep
        self._now = now
        self._named: set[Path] = {tree.folder / SETTINGS_NAME}
        self._checked: set[tuple[Path, Digest]] = set()
        self._knows_all = not self._described.wrong

    def findings(self) -> Iterator[Finding]:
        yield from self._metadata()
        for channel in self._channels():
            yield from self._head(channel)
            yield from self._log(channel)
        if self._knows_all:
            yield from self._leftovers()

    def _metadata(self) -> Iterator[Finding]:
        folder = self._tree.folder / METADATA
        for name, what in self._described.wrong.items():
            yield self._found("error", folder / name, what)
        if not has_keys(self._keys):
            message = f"who signed was not checked: there are no keys in {self._keys}"
            yield self._found("info", folder / TIMESTAMP_NAME, message)
        elif not self._described.wrong:
            try:
                self._signing = open_signing(self._tree, self._keys, None)
            except (IntegrityError, TrustError, UsageError) as error:
                yield self._found("error", folder / TIMESTAMP_NAME, error.message)
            else:
                yield from self._expiring(self._signing)

    def _expiring(self, signing: Signing) -> Iterator[Finding]:
        names = {**self._described.files, "root": f"{signing.root_version}.root.json"}
        for role, expires in ((one.role, one.expires) for one in signing.expiring(now=self._now)):
            level: Level = "error" if expires <= self._now else "warning"
            word = "expired" if expires <= self._now else "expires"
            renewal = _RENEWALS.get(role, f" --role channel --channel {role}")
            message = f"{word} at {timestamp(expires)}: renew it with: overair repo refresh{renewal}"
            yield self._found(level, self._tree.folder / METADATA / names[role], message)

    def _channels(self) -> list[str]:
        published = [channel for channel, digest in self._described.heads.items() if digest is not None]
        return sorted({*published, *self._tree.channels()})

    def _head(self, channel: str) -> Iterator[Finding]:
        copies = self._tree.plain_copies(channel)
        self._named.update(copies, self._tree.envelopes(channel))
        try:
            head = self._tree.head(channel)
        except IntegrityError as error:
            yield self._found("error", copies[0], error.message)
            return
        if head is not None:
            yield from self._copies(channel, head)
            yield from self._envelopes(channel, head)
            yield from self._expiry(copies[0], head.manifest)
            for file in _files(head.manifest):
                yield from self._file(file)

    def _envelopes(self, channel: str, head: Publication) -> Iterator[Finding]:
        if self._described.heads.get(channel) is None:
            if not self._described.wrong:
                message = "is not signed: devices do not take it, and the next command that publishes builds on it"
                yield self._found("warning", self._tree.plain_copies(channel)[0], message)
            return
        for path in self._tree.envelopes(channel):
            try:
                wrong = self._wrong_envelope(path, channel, head.data)
            except (IntegrityError, TrustError) as error:
                wrong = error.message
            if wrong:
                yield self._found("error", path, wrong)

    def _wrong_envelope(self, path: Path, channel: str, data: bytes) -> str:
        if not is_there(path):
            return "missing: the next command that publishes writes it"
        if dsse.payload(read_small_file(path, dsse.MAX_ENVELOPE_BYTES)) != data:
            return "holds another manifest than is signed for the channel"
        if self._signing is not None:
            self._signing.check_envelope(channel, path)
        return ""

    def _copies(self, channel: str, head: Publication) -> Iterator[Finding]:
        for path in (*self._tree.plain_copies(channel), self._tree.hashed_manifest(channel, head.sha256)):
            if not is_there(path):
                yield self._found("error", path, "missing: the next command that publishes writes it")
            elif read_small_file(path, MAX_MANIFEST_BYTES) != head.data:
                yield self._found("error", path, "differs from the manifest that is signed for the channel")

    def _expiry(self, path: Path, manifest: Manifest) -> Iterator[Finding]:
        if manifest.expires is not None and manifest.expires <= timestamp(self._now + WARN_BEFORE_EXPIRY):
            word = "expired" if manifest.expires <= timestamp(self._now) else "expires"
            message = f"{word} at {manifest.expires} for readers of the envelope: the next publication renews it"
            yield self._found("warning", path, message)

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
            if path not in self._named and not path.name.startswith(".") and not self._is_metadata(path):
                yield self._found("info", path, "no manifest names it")

    def _is_metadata(self, path: Path) -> bool:
        """Whether it is the metadata of a role: old versions stay, and devices need every root."""
        version, dot, rest = path.name.partition(".")
        roles = {"root", *self._described.files}
        is_version = version.isdecimal() and bool(dot) and rest.removesuffix(".json") in roles
        return path.parent == self._tree.folder / METADATA and (is_version or path.name == TIMESTAMP_NAME)

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
