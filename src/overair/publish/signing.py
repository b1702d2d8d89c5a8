"""Signs what a repository publishes: its metadata on the folder, and the envelope beside each plain manifest."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

from overair.errors import IntegrityError, TrustError, UsageError
from overair.model.digest import Digest
from overair.publish.tree import Tree, is_there, read_small_file
from overair.publish.upload import put_copies, put_hashed
from overair.store.durable import make_directory, write_file
from overair.trust import dsse
from overair.trust.keys import ONLINE, ROOT, ROOT_KEYS, TARGETS, Keyring, channel_role
from overair.trust.published import Read
from overair.trust.repository import Expiring, Expiry, MetadataSet, Upload

MAX_METADATA_BYTES: Final = 6_000_000
METADATA: Final = "metadata"


class Signing:
    """The signed side of a published tree. The callers hold the publishers' lock.

    Args:
        tree: Where the metadata is.
        keyring: Who signs.
        metadata: What is published now.
        expiry: How long new signatures hold.
        interrupted: How the metadata was loaded, for loading it again.
    """

    def __init__(
        self, tree: Tree, keyring: Keyring, metadata: MetadataSet, expiry: Expiry, interrupted: bool = False
    ) -> None:
        self._tree = tree
        self._keyring = keyring
        self._metadata = metadata
        self._expiry = expiry
        self._interrupted = interrupted

    @classmethod
    def initialise(
        cls, tree: Tree, keyring: Keyring, channels: Iterable[str], *, now: datetime, expiry: Expiry
    ) -> "Signing":
        """Make and write the metadata of a new repository.

        Raises:
            UsageError: There is metadata already, or keys are missing.
            StorageError: The disk refused.
        """
        metadata, files = MetadataSet.initialise(reader(tree), keyring, channels, now=now, expiry=expiry)
        made = cls(tree, keyring, metadata, expiry)
        made._write(files)
        return made

    @classmethod
    def load(cls, tree: Tree, keyring: Keyring, *, expiry: Expiry, interrupted: bool = False) -> "Signing":
        """Read what is published, and verify it; `interrupted` as for `MetadataSet.load`.

        Raises:
            TrustError: It is not signed by whom it should be.
            IntegrityError: A file is not what was signed.
            StorageError: A file cannot be read.
        """
        return cls(tree, keyring, cls._load(tree, keyring, expiry, interrupted), expiry, interrupted)

    @staticmethod
    def _load(tree: Tree, keyring: Keyring, expiry: Expiry, interrupted: bool) -> MetadataSet:
        return MetadataSet.load(reader(tree), keyring, expiry=expiry, interrupted=interrupted)

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that can be published to."""
        return self._metadata.channels

    def head(self, channel: str) -> Digest | None:
        """The digest of the manifest that is signed for a channel, or None if nothing was published.

        Raises:
            UsageError: There is no such channel.
        """
        target = self._metadata.target(channel, manifest_path(channel))
        return None if target is None else target.hashes["sha256"]

    def rehearse(self, *roles: str, now: datetime) -> None:
        """Sign these roles and throw that away: a key or a passphrase that is missing is told before work begins.

        Raises:
            UsageError: Keys are missing, a passphrase is wrong, or there is no such role.
        """
        for role in roles:
            self._load(self._tree, self._keyring, self._expiry, self._interrupted).renew(role, now=now)

    def put_manifest(self, channel: str, data: bytes, *, now: datetime) -> None:
        """Publish a manifest: metadata, the manifest under its digest, the timestamp, and the plain copies last.

        Raises:
            UsageError: Keys are missing.
            StorageError: The disk refused.
        """
        *files, timestamp = self._metadata.put_target(channel, manifest_path(channel), data, now=now)
        self._write(files)
        put_hashed(self._tree, channel, data)
        self._write([timestamp])
        self.put_copies(channel, data)

    def put_copies(self, channel: str, data: bytes) -> None:
        """Write the plain copies of a manifest, and its envelope for readers that verify one file.

        Raises:
            UsageError: Keys are missing.
            StorageError: The disk refused.
        """
        for path in self._tree.envelopes(channel):
            if not self._is_signed(path, channel, data):
                make_directory(path.parent)
                write_file(path, self._envelope(channel, data))
        put_copies(self._tree, channel, data)

    def renew(self, role: str, *, now: datetime) -> None:
        """Sign a role anew, with the keys that it has.

        Raises:
            UsageError: There is no such role, or keys are missing.
            StorageError: The disk refused.
        """
        self._write(self._metadata.renew(role, now=now))

    def add_channel(self, channel: str, *, now: datetime) -> None:
        """Make a key for one more channel, and delegate to it; needs the targets and the online key.

        Raises:
            UsageError: The name is taken, or keys are missing.
            StorageError: The disk refused.
        """
        self.rehearse(TARGETS, now=now)
        if not self._keyring.dev and not self._keyring.keys(channel_role(channel)):
            self._keyring.add(channel_role(channel))
        self._write(self._metadata.add_channel(channel, now=now))

    def rotate(self, role: str, *, now: datetime) -> list[str]:
        """Exchange the keys of `root`, `targets`, `online` or a channel's role for new ones; returns their ids.

        Raises:
            UsageError: There is no such role, it is a development repository, or keys are missing.
            StorageError: The disk refused.
        """
        if self._keyring.dev:
            raise UsageError(
                "one development key does everything here, so there is nothing to exchange it for",
                hint="make a repository with real keys: overair repo init without --dev",
            )
        if role not in _SIGNING_ROTATION:
            self._metadata.channel_keys(role.removeprefix(channel_role("")))
        # Before keys are made that nobody would need.
        self.rehearse(*_SIGNING_ROTATION.get(role, (TARGETS,)), now=now)
        keys = [self._keyring.add(role) for _ in range(ROOT_KEYS if role == ROOT else 1)]
        self._write(self._metadata.rotate(role, keys, now=now))
        return [key.keyid for key in keys]

    def expiring(self, *, now: datetime) -> list[Expiring]:
        """The roles of which a quarter of the validity is left, or less."""
        return self._metadata.expiring(now=now)

    def check_envelope(self, channel: str, envelope: Path) -> None:
        """Refuse an envelope that the channel's key did not sign.

        Raises:
            UsageError: There is no such channel.
            TrustError: Somebody else signed it.
            IntegrityError: It is damaged.
            StorageError: It cannot be read.
        """
        dsse.verify(read_small_file(envelope, dsse.MAX_ENVELOPE_BYTES), self._metadata.channel_keys(channel))

    def root(self) -> bytes:
        """The newest root: what an app embeds."""
        return reader(self._tree)(f"{self.root_version}.root.json") or b""

    @property
    def root_version(self) -> int:
        """The version of the newest root."""
        read, version = reader(self._tree), 1
        while read(f"{version + 1}.root.json") is not None:
            version += 1
        return version

    def _is_signed(self, envelope: Path, channel: str, data: bytes) -> bool:
        """Whether an envelope is around these very bytes, signed with the key that the channel has now."""
        if not is_there(envelope):
            return False
        try:
            content = read_small_file(envelope, dsse.MAX_ENVELOPE_BYTES)
            return dsse.verify(content, self._metadata.channel_keys(channel)) == data
        except (IntegrityError, TrustError):
            return False

    def _envelope(self, channel: str, data: bytes) -> bytes:
        signers = self._keyring.signers(key.keyid for key in self._metadata.channel_keys(channel))
        if not signers:
            raise UsageError(
                f"the key of channel {channel} is not in {self._keyring.folder}",
                hint="bring it back from where it is kept, and run the same command again",
            )
        return dsse.sign(data, signers)

    def _write(self, files: Upload) -> None:
        folder = self._tree.folder / METADATA
        make_directory(folder)
        for name, data in files:
            write_file(folder / name, data)


def reader(tree: Tree) -> Read:
    """Reads the published metadata of a tree."""
    folder = tree.folder / METADATA

    def read(name: str) -> bytes | None:
        path = folder / name
        return read_small_file(path, MAX_METADATA_BYTES) if is_there(path) else None

    return read


def manifest_path(channel: str) -> str:
    """What the metadata calls the manifest of a channel."""
    return f"{channel}/manifest.json"


# Whose keys sign the exchange of a role's keys; that of a channel is signed by targets.
_SIGNING_ROTATION: Final = {ROOT: (ROOT,), ONLINE: (ROOT,), TARGETS: (ROOT, ONLINE)}
