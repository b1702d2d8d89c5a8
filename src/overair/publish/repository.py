"""The publisher's facade: a published tree in a folder, and what may be done to it (DESIGN sections 5 and 7)."""

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from overair.errors import UsageError
from overair.model.digest import Digest
from overair.model.manifest import (
    Manifest,
    Predecessor,
    Rollout,
    encode_manifest,
    parse_manifest,
)
from overair.model.version import parse_version
from overair.publish import build, upload
from overair.publish import rollout as edits
from overair.publish.check import Finding, check_tree
from overair.publish.log import LogEntry, log_entries
from overair.publish.names import base_url_of, channel_name, check_names, check_reason
from overair.publish.releases import spelled_out, standing, version_of
from overair.publish.rollout import Edit
from overair.publish.tree import SETTINGS_NAME, Publication, Settings, Tree, read_settings
from overair.store.durable import make_directory, write_file
from overair.store.lock import exclusive

LOCK_NAME: Final = ".lock"
LOCK_TIMEOUT_S: Final = 3.0

StrPath = str | PathLike[str]
Clock = Callable[[], datetime]


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What `publish` did.

    Args:
        tier: The release's tier.
        version: The release's version.
        channel: Where it was published.
        sequence: The number of the manifest that stands now.
        sha256: The digest of the model; of a split model, of its first file.
        size_bytes: The length of that file.
        url: Where that file is, absolute.
        manifest_url: Where the channel's manifest is.
        already_published: Whether it was there before, so that nothing changed.
        new_bytes: How many bytes the tree did not have before.
        rollout_basis_points: To how many of 10,000 devices it is offered; None for everybody.
        effect: One sentence about what devices will do.
    """

    tier: str
    version: str
    channel: str
    sequence: int
    sha256: Digest
    size_bytes: int
    url: str
    manifest_url: str
    already_published: bool
    new_bytes: int
    rollout_basis_points: int | None
    effect: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollback, a withdrawal or a change of a rollout did; `version` is what everybody in the tier has now."""

    tier: str
    version: str
    channel: str
    sequence: int
    manifest_url: str
    changed: bool
    effect: str


class Repository:
    """A published tree in a folder.

    Args:
        location: The folder, made by `Repository.init`.
        clock: Says what time it is.

    Raises:
        UsageError: There is no repository.
        IntegrityError: Its settings are damaged.
        StorageError: The folder cannot be read.
    """

    def __init__(self, location: StrPath, *, clock: Clock = lambda: datetime.now(UTC)) -> None:
        folder = _folder(location)
        settings = read_settings(folder)
        if settings is None:
            raise UsageError(
                f"no repository in {folder}: {SETTINGS_NAME} is missing", hint="make one with: overair repo init"
            )
        self._tree = Tree(folder, settings)
        self._clock = clock

    @classmethod
    def init(cls, location: StrPath, *, base_url: str, channel: str = "stable") -> "Repository":
        """Make a repository, or open one that has the same settings.

        Args:
            location: The folder; it is created.
            base_url: Where devices will find the folder's content, http(s).
            channel: The channel whose manifest stands at the top as well.

        Raises:
            UsageError: The URL or the channel is not one, or a repository with other settings is there.
            StorageError: The disk refused.
        """
        folder = _folder(location)
        settings = Settings(base_url=base_url_of(base_url), default_channel=channel_name(channel))
        make_directory(folder)
        with exclusive(folder / LOCK_NAME, timeout_s=LOCK_TIMEOUT_S):
            there = read_settings(folder)
            if there is None:
                write_file(folder / SETTINGS_NAME, msgspec.json.format(msgspec.json.encode(settings)) + b"\n")
            elif there != settings:
                raise UsageError(
                    f"{folder} is a repository for {there.base_url} and channel {there.default_channel} already",
                    hint="use another folder, or the same settings",
                )
        return cls(folder)

    @property
    def folder(self) -> Path:
        """Where the tree is."""
        return self._tree.folder

    @property
    def base_url(self) -> str:
        """Where devices find the tree."""
        return self._tree.settings.base_url

    @property
    def default_channel(self) -> str:
        """The channel that is meant where none is named."""
        return self._tree.settings.default_channel

    def manifest(self, channel: str | None = None) -> Manifest | None:
        """What stands in a channel now, or None if nothing was published.

        Raises:
            ManifestError: What is there is not a manifest.
            StorageError: It cannot be read.
        """
        head = self._tree.head(self._channel(channel))
        return head.manifest if head else None

    def publish(
        self,
        paths: StrPath | Sequence[StrPath],
        *,
        tier: str,
        version: str,
        channel: str | None = None,
        notes: str = "",
        min_app_version: str | None = None,
        adapters: Sequence[StrPath] = (),
        mmproj: StrPath | None = None,
        rollout: float | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Published:
        """Publish a release. The same call again finishes what a publisher left that died, or changes nothing.

        Args:
            paths: The GGUF file; of a split model, all its files.
            tier: The size class that it is for.
            version: Its version, by Semantic Versioning.
            channel: Where to publish it; the repository's default if None.
            notes: What is new, for people.
            min_app_version: The oldest app that may have it.
            adapters: LoRA adapters that were trained on this model.
            mmproj: The multimodal projector.
            rollout: The share of the devices that are offered it, above 0 and up to 1; None for everybody.
            on_progress: Called with the bytes done and the bytes in all.

        Raises:
            GGUFError: A file is not a whole GGUF.
            UsageError: A name, a version, a share or a file is not what it should be, or contradicts what stands.
            IntegrityError: A file changed while it was read, or the channel's log is broken.
            LockedError: Another publisher is at work.
            StorageError: The disk refused; what stood before still stands.
        """
        channel = self._channel(channel)
        check_names(tier=tier, version=version, min_app_version=min_app_version, notes=notes)
        plan = None if rollout is None else self._rollout(rollout)
        sources = build.inspect(
            _paths(paths), adapters=_paths(adapters), projector=None if mmproj is None else Path(mmproj)
        )
        with self._alone(channel) as log:
            edits.refuse_old_version(log.manifests, tier, version)
            with upload.taking_in(self._tree, sources, on_progress) as blobs:
                entry = build.describe(
                    sources,
                    [blob.digest for blob in blobs],
                    version=version,
                    notes=notes,
                    min_app_version=min_app_version,
                    url_of=self._tree.blob_url,
                )
                edit = edits.release(
                    log.manifests, channel=channel, tier=tier, entry=entry, rollout=plan, now=self._clock()
                )
                data = log.encoded(edit)
                new_bytes = upload.store_blobs(self._tree, blobs)
            self._put(channel, data)
        candidate = edit.manifest.models[tier].candidate
        return Published(
            tier=tier,
            version=version,
            channel=channel,
            sequence=edit.manifest.sequence,
            sha256=entry.sha256,
            size_bytes=entry.size_bytes,
            url=entry.url,
            manifest_url=self._tree.manifest_url(channel),
            already_published=not edit.changed,
            new_bytes=new_bytes,
            rollout_basis_points=candidate.rollout.basis_points if candidate and candidate.version == version else None,
            effect=edit.effect,
        )

    def set_rollout(self, *, tier: str, share: float, channel: str | None = None) -> Change:
        """Offer the candidate of a tier to another share of the devices: 1 releases it to everybody, 0 pauses it.

        Raises:
            UsageError: The share is not from 0 to 1, or the tier has no candidate.
            IntegrityError, LockedError, StorageError: See `publish`.
        """
        points = 0 if share == 0 else edits.basis_points(share)
        return self._change(
            tier, channel, lambda log, now: edits.set_rollout(log, tier=tier, basis_points=points, now=now)
        )

    def rollback(self, *, tier: str, reason: str, to: str | None = None, channel: str | None = None) -> Change:
        """Return a tier to an older release, the one before if `to` is None, and withdraw all that is newer.

        Raises:
            UsageError: There is nothing to return to, or `to` is unknown, withdrawn or not older; no reason is given.
            IntegrityError, LockedError, StorageError: See `publish`.
        """
        check_reason(reason)
        return self._change(
            tier, channel, lambda log, now: edits.rollback(log, tier=tier, to=to, reason=reason, now=now)
        )

    def withdraw(self, *, tier: str, version: str, reason: str, channel: str | None = None) -> Change:
        """Take one release back; if it is what the tier stands at, the tier returns to the one before.

        Raises:
            UsageError: The version is unknown; there is nothing to return to; no reason is given.
            IntegrityError, LockedError, StorageError: See `publish`.
        """
        check_reason(reason)
        parse_version(version)
        return self._change(
            tier, channel, lambda log, now: edits.withdraw(log, tier=tier, version=version, reason=reason, now=now)
        )

    def log(self, channel: str | None = None, limit: int = 20) -> list[LogEntry]:
        """What was published in a channel, the newest first.

        Raises:
            IntegrityError, StorageError: See `publish`.
        """
        return log_entries(self._tree.log(self._channel(channel)))[:limit]

    def check(self, *, deep: bool = False) -> list[Finding]:
        """Whether all is there that the manifests name; with `deep` every blob is read and hashed.

        Raises:
            StorageError: The disk refused.
        """
        return check_tree(self._tree, deep=deep, now=self._clock())

    def _change(self, tier: str, channel: str | None, edit_of: Callable[[edits.Log, datetime], Edit]) -> Change:
        channel = self._channel(channel)
        with self._alone(channel) as log:
            edit = edit_of(log.manifests, self._clock())
            self._put(channel, log.encoded(edit))
        return Change(
            tier=tier,
            version=version_of(standing(edit.manifest, tier)),
            channel=channel,
            sequence=edit.manifest.sequence,
            manifest_url=self._tree.manifest_url(channel),
            changed=edit.changed,
            effect=edit.effect,
        )

    @contextlib.contextmanager
    def _alone(self, channel: str) -> Iterator["_Log"]:
        """Be the only publisher, with what a dead one left finished, and the channel's log read."""
        with exclusive(self.folder / LOCK_NAME, timeout_s=LOCK_TIMEOUT_S):
            upload.finish(self._tree, channel)
            publications = self._tree.log(channel)
            yield _Log(
                head=publications[0] if publications else None,
                manifests=tuple(
                    spelled_out(publication.manifest, channel=channel, base_url=self.base_url)
                    for publication in publications
                ),
            )

    def _put(self, channel: str, data: bytes | None) -> None:
        if data is not None:
            upload.put_manifest(self._tree, channel, data)

    def _channel(self, channel: str | None) -> str:
        return self.default_channel if channel is None else channel_name(channel)

    def _rollout(self, share: float) -> Rollout:
        salt = f"r-{self._clock():%Y-%m-%d}-{secrets.token_hex(4)}"
        return Rollout(basis_points=edits.basis_points(share), salt=salt)


class _Log(msgspec.Struct, frozen=True, kw_only=True):
    """A channel as an edit sees it, the newest manifest first, and the exact bytes that the next one follows."""

    head: Publication | None
    manifests: edits.Log

    def encoded(self, edit: Edit) -> bytes | None:
        """The bytes to publish, which devices can read; None if the edit changes nothing."""
        if not edit.changed:
            return None
        manifest = edit.manifest
        if self.head is not None:
            predecessor = Predecessor(sha256=self.head.sha256, size_bytes=len(self.head.data))
            manifest = replace(manifest, predecessor=predecessor)
        data = encode_manifest(manifest, over=self.head.document if self.head else None)
        parse_manifest(data)
        return data


def _folder(location: StrPath) -> Path:
    if "://" in str(location):
        raise UsageError(f"not a folder: {location}", hint="publish to a folder, and copy that to the server")
    return Path(location).absolute()


def _paths(paths: StrPath | Sequence[StrPath]) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | PathLike) else [Path(path) for path in paths]
