"""Signs what a repository publishes: its metadata on the folder, and the envelope beside each plain manifest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from overair.errors import IntegrityError, UsageError
from overair.model.digest import Digest
from overair.publish.tree import Tree, is_there, read_small_file
from overair.publish.upload import put_copies, put_hashed
from overair.store.durable import make_directory, write_file
from overair.trust import dsse
from overair.trust.keys import (
    KEYS_FILE,
    ONLINE,
    ROOT,
    ROOT_KEYS,
    TARGETS,
    Keyring,
    Passphrase,
    channel_role,
    refuse_inside,
)
from overair.trust.published import Read
from overair.trust.repository import Expiring, Expiry, MetadataSet, Upload

MAX_METADATA_BYTES: Final = 6_000_000
MAX_EXPIRY_BYTES: Final = 10_000
MAX_DAYS: Final = 3650
ROOT_FILE: Final = "root.json"
EXPIRY_FILE: Final = "expiry.json"


class Signing:
    """The signed side of a published tree. The callers hold the publishers' lock.

    Args:
        tree: Where the metadata is.
        keyring: Who signs.
        metadata: What is published now.
    """

    def __init__(self, tree: Tree, keyring: Keyring, metadata: MetadataSet) -> None:
        self._tree = tree
        self._keyring = keyring
        self._metadata = metadata

    @classmethod
    def initialise(
        cls, tree: Tree, keyring: Keyring, channels: Iterable[str], *, now: datetime, expiry: Expiry
    ) -> "Signing":
        """Make and write the metadata of a new repository.

        Raises:
            UsageError: There is metadata already, or keys are missing.
            StorageError: The disk refused.
        """
        metadata, files = MetadataSet.initialise(_reader(tree), keyring, channels, now=now, expiry=expiry)
        made = cls(tree, keyring, metadata)
        made._write(files)
        return made

    @classmethod
    def load(cls, tree: Tree, keyring: Keyring, *, expiry: Expiry) -> "Signing":
        """Read what is published, and verify it.

        Raises:
            TrustError: It is not signed by whom it should be.
            IntegrityError: A file is not what was signed.
            StorageError: A file cannot be read.
        """
        return cls(tree, keyring, MetadataSet.load(_reader(tree), keyring, expiry=expiry))

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that can be published to."""
        return self._metadata.channels

    def head(self, channel: str) -> Digest | None:
        """The digest of the manifest that is signed for a channel, or None if nothing was published.

        Raises:
            UsageError: There is no such channel.
        """
        target = self._metadata.target(channel, _path(channel))
        return None if target is None else target.hashes["sha256"]

    def put_manifest(self, channel: str, data: bytes, *, now: datetime) -> None:
        """Publish a manifest: metadata, the manifest under its digest, the timestamp, and the plain copies last.

        Raises:
            UsageError: Keys are missing.
            StorageError: The disk refused.
        """
        *files, timestamp = self._metadata.put_target(channel, _path(channel), data, now=now)
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
        copies = self._tree.plain_copies(channel)
        envelopes = [copy.with_name("manifest.dsse.json") for copy in copies]
        if not all(is_there(path) and _holds(path, data) for path in envelopes):
            keyids = [key.keyid for key in self._metadata.channel_keys(channel)]
            signers = self._keyring.signers(keyids)
            if not signers:
                raise UsageError(
                    f"the key of channel {channel} is not in {self._keyring.folder}",
                    hint="bring it back from where it is kept, and run the same command again",
                )
            envelope = dsse.sign(data, signers)
            for path in envelopes:
                make_directory(path.parent)
                write_file(path, envelope)
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
        keys = [self._keyring.add(role) for _ in range(ROOT_KEYS if role == ROOT else 1)]
        self._write(self._metadata.rotate(role, keys, now=now))
        return [key.keyid for key in keys]

    def expiring(self, *, now: datetime) -> list[Expiring]:
        """The roles of which a quarter of the validity is left, or less."""
        return self._metadata.expiring(now=now)

    def root(self) -> bytes:
        """The newest root: what an app embeds."""
        read, version, newest = _reader(self._tree), 1, b""
        while (data := read(f"{version}.root.json")) is not None:
            newest, version = data, version + 1
        return newest

    def _write(self, files: Upload) -> None:
        folder = self._tree.folder / "metadata"
        make_directory(folder)
        for name, data in files:
            write_file(folder / name, data)


def role_of(name: str, channel: str | None) -> str:
    """What the keyring calls a role that somebody typed: root, targets, online, or channel with its name.

    Raises:
        UsageError: There is no such role.
    """
    if name in {ROOT, TARGETS, ONLINE}:
        return name
    if name == "channel" and channel is not None:
        return channel_role(channel)
    raise UsageError(f"no such role: {name}", hint="choose root, targets, online, or channel with --channel")


def open_keys(folder: Path, tree: Path, passphrase: Passphrase | None) -> Keyring:
    """The keys of a publisher.

    Raises:
        UsageError: There are none, or they would be published.
        IntegrityError: They are damaged.
        StorageError: They cannot be read.
    """
    refuse_inside(folder, tree)
    return Keyring.load(folder, write=write_file, passphrase=passphrase)


def set_up(
    tree: Tree,
    folder: Path,
    channels: Sequence[str],
    passphrase: Passphrase | None,
    *,
    dev: bool,
    expires: Mapping[str, int],
    now: datetime,
) -> None:
    """Make what is missing of a repository's keys and metadata, and write the root that apps embed.

    Raises:
        UsageError: The keys would be published, or a passphrase is missing, or a role is unknown.
        TrustError: What is published was not signed by these keys.
        StorageError: The disk refused.
    """
    refuse_inside(folder, tree.folder)
    expiry = write_expiry(folder, expires)
    if is_there(folder / KEYS_FILE):
        keyring = open_keys(folder, tree.folder, passphrase)
    elif dev:
        keyring = Keyring.create_dev(folder, write=write_file)
    elif passphrase is not None:
        keyring = Keyring.create(folder, channels, write=write_file, passphrase=passphrase)
    else:
        raise UsageError(
            "the keys need a passphrase",
            hint="set OVERAIR_PASSPHRASE, or use --dev to try things out with one open key",
        )
    if not is_there(tree.folder / "metadata" / "timestamp.json"):
        signing = Signing.initialise(tree, keyring, channels, now=now, expiry=expiry)
    else:
        signing = Signing.load(tree, keyring, expiry=expiry)
    for channel in channels:
        if channel not in signing.channels:
            signing.add_channel(channel, now=now)
    write_file(folder / ROOT_FILE, signing.root())


def read_expiry(folder: Path) -> Expiry:
    """How long signatures of these keys hold.

    Raises:
        IntegrityError: The file that says so is damaged.
        StorageError: It cannot be read.
    """
    path = folder / EXPIRY_FILE
    if not is_there(path):
        return Expiry()
    try:
        return _expiry(msgspec.json.decode(read_small_file(path, MAX_EXPIRY_BYTES), type=dict[str, int]))
    except (msgspec.DecodeError, UsageError) as error:
        raise IntegrityError(f"{path} is damaged: {error}", hint="remove it to get the defaults") from error


def write_expiry(folder: Path, days: Mapping[str, int]) -> Expiry:
    """Note how long signatures hold, where it is not what was noted before.

    Raises:
        UsageError: A role is unknown, or a number of days is not from 1 to 3650.
        StorageError: The disk refused.
    """
    if not days:
        return read_expiry(folder)
    expiry = _expiry(days)
    make_directory(folder)
    write_file(folder / EXPIRY_FILE, msgspec.json.encode(days) + b"\n")
    return expiry


def _expiry(days: Mapping[str, int]) -> Expiry:
    known = [field.name for field in fields(Expiry)]
    for role, count in days.items():
        if role not in known or not 1 <= count <= MAX_DAYS:
            raise UsageError(
                f"not an expiry: {role}={count}", hint=f"roles are {', '.join(known)}; days from 1 to {MAX_DAYS}"
            )
    return Expiry(**{role: timedelta(days=count) for role, count in days.items()})


def _path(channel: str) -> str:
    return f"{channel}/manifest.json"


def _reader(tree: Tree) -> Read:
    folder = tree.folder / "metadata"

    def read(name: str) -> bytes | None:
        path = folder / name
        return read_small_file(path, MAX_METADATA_BYTES) if is_there(path) else None

    return read


def _holds(envelope: Path, data: bytes) -> bool:
    """Whether an envelope is around these very bytes; who signed it is for its readers to verify."""
    try:
        return dsse.payload(read_small_file(envelope, dsse.MAX_ENVELOPE_BYTES)) == data
    except IntegrityError:
        return False
