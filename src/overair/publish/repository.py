"""The publisher's facade: a published tree in a folder, and what may be done to it (DESIGN sections 5 and 7)."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path

import msgspec

from overair.core.expectation import require_checkable
from overair.errors import UsageError
from overair.host.clock import utc_now
from overair.model.manifest import Manifest, Rollout
from overair.model.probe import ProbePolicy
from overair.model.version import parse_version
from overair.publish import build, upload
from overair.publish import rollout as edits
from overair.publish.check import Finding, check_tree
from overair.publish.key_folder import ROOT_FILE, role_of, set_up
from overair.publish.log import LogEntry, log_entries
from overair.publish.names import base_url_of, changed, channel_name, check_names, check_reason
from overair.publish.probing import probe_sources, requirements
from overair.publish.releases import standing, version_of
from overair.publish.results import Change, Published
from overair.publish.rollout import Edit
from overair.publish.tree import SETTINGS_NAME, Settings, Tree, read_settings
from overair.publish.writer import LOCK_NAME, LOCK_TIMEOUT_S, Writer, restore
from overair.store.durable import make_directory, write_file
from overair.store.lock import exclusive
from overair.trust.keys import ONLINE, ROOT, Passphrase, refuse_inside

StrPath = str | PathLike[str]
Clock = Callable[[], datetime]


class Repository:
    """A published tree in a folder, signed with keys that are elsewhere.

    Args:
        location: The folder, made by `Repository.init`.
        keys: The folder with the keys; `<location>-keys` if None. Reading needs none.
        passphrase: Asked for the passphrase of a key, by its file's name.
        clock: Says what time it is.

    Raises:
        UsageError: There is no repository.
        IntegrityError: Its settings are damaged.
        StorageError: The folder cannot be read.
    """

    def __init__(
        self,
        location: StrPath,
        *,
        keys: StrPath | None = None,
        passphrase: Passphrase | None = None,
        clock: Clock = utc_now,
    ) -> None:
        folder = _folder(location)
        settings = read_settings(folder)
        if settings is None:
            raise UsageError(
                f"no repository in {folder}: {SETTINGS_NAME} is missing", hint="make one with: overair repo init"
            )
        self._tree = Tree(folder, settings)
        self._keys = _keys_folder(folder, keys)
        self._writer = Writer(self._tree, self._keys, passphrase)
        self._clock = clock

    @classmethod
    def init(
        cls,
        location: StrPath,
        *,
        base_url: str,
        channels: Sequence[str] = ("stable",),
        keys: StrPath | None = None,
        passphrase: Passphrase | None = None,
        dev: bool = False,
        expires: Mapping[str, int] | None = None,
        mirrors: Sequence[str] | None = None,
        poll_seconds: int | None = None,
        clock: Clock = utc_now,
    ) -> "Repository":
        """Make a repository and its keys, or add channels to one that is there.

        Args:
            location: The folder; it is created.
            base_url: Where devices will find the folder's content, http(s).
            channels: The streams of releases; the manifest of the first stands at the top as well.
            keys: The folder for the keys, outside of `location`; `<location>-keys` if None.
            passphrase: Asked for the passphrase of each key; not needed with `dev`.
            dev: One key without a passphrase for everything, to try things out.
            expires: Days that signatures hold, by `root`, `targets`, `channel` and `online`.
            mirrors: Where copies of the folder's content will be, http(s), for what is published from now on; None
                leaves them as they are.
            poll_seconds: How often devices are asked to check, from the next publication on; None leaves it as it is.
            clock: Says what time it is.

        Raises:
            UsageError: The URL or a channel is not one, a repository with other settings is there, the keys would be
                published, or there is no passphrase for them.
            StorageError: The disk refused.
        """
        folder = _folder(location)
        names = list(dict.fromkeys(channel_name(channel) for channel in channels))
        if not names:
            raise UsageError("no channel given", hint="name at least one, as stable")
        settings = Settings(base_url=base_url_of(base_url), default_channel=names[0])
        key_folder = _keys_folder(folder, keys)
        refuse_inside(key_folder, folder)
        make_directory(folder)
        with exclusive(folder / LOCK_NAME, timeout_s=LOCK_TIMEOUT_S):
            there = read_settings(folder)
            if there is not None and there.fixed != settings.fixed:
                raise UsageError(
                    f"{folder} is a repository for {there.base_url} and channel {there.default_channel} already",
                    hint="use another folder, or the same settings",
                )
            settings = changed(there or settings, mirrors=mirrors, poll_seconds=poll_seconds)
            set_up(Tree(folder, settings), key_folder, names, passphrase, dev=dev, expires=expires or {}, now=clock())
            if there != settings:
                write_file(folder / SETTINGS_NAME, msgspec.json.format(msgspec.json.encode(settings)) + b"\n")
        return cls(folder, keys=key_folder, passphrase=passphrase, clock=clock)

    @property
    def folder(self) -> Path:
        """Where the tree is."""
        return self._tree.folder

    @property
    def root_path(self) -> Path:
        """Where the `root.json` is that apps embed."""
        return self._keys / ROOT_FILE

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
        adapter_base: str | None = None,
        mmproj: StrPath | None = None,
        rollout: float | None = None,
        requires: Sequence[str] = (),
        policy: ProbePolicy | None = None,
        probe: bool = True,
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
            adapter_base: The digest of the model that they were trained on, to be compared with this one's.
            mmproj: The multimodal projector.
            rollout: The share of the devices that are offered it, above 0 and up to 1; None for everybody.
            requires: The engines that it needs, as `llama.cpp>=6000`.
            policy: What probes ask it, here and on devices, and expect.
            probe: Load it here in a process of its own and ask it, if an engine is installed.
            on_progress: Called with the bytes done and the bytes in all.

        Raises:
            ProbeError: It failed its probe; nothing is published.
            GGUFError: A file is not a whole GGUF.
            UsageError: A name, a version, a share or a file is not what it should be, or contradicts what stands.
            IntegrityError: A file changed while it was read, or the channel's log is broken.
            LockedError: Another publisher is at work.
            TrustError: What is published was not signed by these keys.
            StorageError: The disk refused; what stood before still stands.
        """
        channel = self._channel(channel)
        check_names(tier=tier, version=version, min_app_version=min_app_version, notes=notes)
        plan = None if rollout is None else self._rollout(rollout)
        sources = build.inspect(
            _paths(paths), adapters=_paths(adapters), projector=None if mmproj is None else Path(mmproj)
        )
        policy, result, skipped = policy or ProbePolicy(), None, "" if probe else "told not to"
        require_checkable(policy)
        needs = requirements(sources, requires)
        with self._writer.log(channel, now=self._clock()) as log:
            edits.refuse_old_version(log.manifests, tier, version)
            with upload.taking_in(self._tree, sources, on_progress) as blobs:
                build.refuse_another_base(blobs[0].digest, adapter_base)
                entry = build.describe(
                    sources,
                    [self._stored(blob) for blob in blobs],
                    version=version,
                    notes=notes,
                    min_app_version=min_app_version,
                    requires=needs,
                    probe=policy,
                )
                edit = edits.release(
                    log.manifests, channel=channel, tier=tier, entry=entry, rollout=plan, now=self._clock()
                )
                data = log.encoded(edit)
                if data is None:
                    skipped = "published before"
                elif probe:
                    digests = [blob.digest for blob in blobs]
                    result, skipped = probe_sources(sources, digests, version=version, policy=policy)
                new_bytes = upload.store_blobs(self._tree, blobs)
            log.put(data, now=self._clock())
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
            probe=result,
            not_probed=skipped,
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
        """Whether all is there that the metadata and the manifests name, and whether signatures run out.

        With `deep` every blob is read and hashed. Who signed is told by the keys, where they are at hand.

        Raises:
            StorageError: The disk refused.
        """
        return check_tree(self._tree, self._keys, deep=deep, now=self._clock())

    def refresh(self, *, role: str = ONLINE, channel: str | None = None) -> None:
        """Sign anew what would expire; with the online key alone, unless another role is named.

        Raises:
            UsageError: There is no such role, or keys are missing.
            IntegrityError, LockedError, StorageError, TrustError: See `publish`.
        """
        with self._writer.signing() as signing:
            signing.renew(role_of(role, self._channel(channel)), now=self._clock())
            if role == ROOT:
                write_file(self.root_path, signing.root())

    def rotate(self, role: str, *, channel: str | None = None) -> list[str]:
        """Exchange the keys of `root`, `targets`, `online` or `channel` for new ones; returns the new keys' ids.

        Raises:
            UsageError: There is no such role, or keys are missing.
            IntegrityError, LockedError, StorageError, TrustError: See `publish`.
        """
        channel = self._channel(channel)
        with self._writer.signing(interrupted=True) as signing:
            keyids = signing.rotate(role_of(role, channel), now=self._clock())
            write_file(self.root_path, signing.root())
            if role == "channel":
                restore(self._tree, signing, channel)
        return keyids

    def _change(self, tier: str, channel: str | None, edit_of: Callable[[edits.Log, datetime], Edit]) -> Change:
        channel = self._channel(channel)
        with self._writer.log(channel, now=self._clock()) as log:
            edit = edit_of(log.manifests, self._clock())
            log.put(log.encoded(edit), now=self._clock())
        return Change(
            tier=tier,
            version=version_of(standing(edit.manifest, tier)),
            channel=channel,
            sequence=edit.manifest.sequence,
            manifest_url=self._tree.manifest_url(channel),
            changed=edit.changed,
            effect=edit.effect,
        )

    def _channel(self, channel: str | None) -> str:
        return self.default_channel if channel is None else channel_name(channel)

    def _stored(self, blob: upload.Incoming) -> build.Stored:
        return build.Stored(
            digest=blob.digest,
            url=self._tree.blob_url(blob.digest),
            mirrors=self._tree.blob_mirrors(blob.digest),
            chunks=upload.index_ref(self._tree, blob),
        )

    def _rollout(self, share: float) -> Rollout:
        salt = f"r-{self._clock():%Y-%m-%d}-{secrets.token_hex(4)}"
        return Rollout(basis_points=edits.basis_points(share), salt=salt)


def _keys_folder(folder: Path, keys: StrPath | None) -> Path:
    return folder.with_name(f"{folder.name}-keys") if keys is None else Path(keys).absolute()


def _folder(location: StrPath) -> Path:
    if "://" in str(location):
        raise UsageError(f"not a folder: {location}", hint="publish to a folder, and copy that to the server")
    return Path(location).absolute()


def _paths(paths: StrPath | Sequence[StrPath]) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | PathLike) else [Path(path) for path in paths]
