"""What a publisher signs: TUF metadata with consistent snapshots (specification 1.0, section 6.2).

    root       2 of 3 keys, meant to be kept offline: says which keys the other roles have
    targets    one key: says which key each channel has, by a terminating delegation of `<channel>/*`
    <channel>  one key: the newest manifest of the channel, by length and digest
    snapshot   the online key: the version and digest of targets and of each channel
    timestamp  the online key: the version and digest of snapshot

Nothing here touches a disk or a network but through `read`. Each operation returns the files to upload, named below
`metadata/`, in the order in which they must appear; until all have, a device sees the old state or the new one.
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from securesystemslib.signer import Key
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from overair.errors import TrustError, UsageError
from overair.trust.keys import ONLINE, ROOT, TARGETS, Keyring, channel_role
from overair.trust.metadata import refusals
from overair.trust.published import RESTORE, Kind, Read, load_role, newest_roots

Upload = list[tuple[str, bytes]]
"""Names below `metadata/` and contents, in the order in which they must appear."""

RESERVED: Final = frozenset({Root.type, Targets.type, Snapshot.type, Timestamp.type})
ROOT_THRESHOLD: Final = 2
_ONLINE_ROLES: Final = (Snapshot.type, Timestamp.type)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """How long signatures hold. `online` is the freeze window: so long can somebody hold back updates unnoticed."""

    root: timedelta = timedelta(days=730)
    targets: timedelta = timedelta(days=365)
    channel: timedelta = timedelta(days=365)
    online: timedelta = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiring:
    """A role that must be signed anew soon, or should have been."""

    role: str
    expires: datetime


class MetadataSet:
    """The metadata of one repository. `initialise` and `load` make one; after an operation that raised, load anew.

    Args:
        read: Reads published files.
        keyring: Who signs. Keys that are not needed for an operation need not be at hand.
        expiry: How long new signatures hold.
    """

    def __init__(self, read: Read, keyring: Keyring, expiry: Expiry, root: Metadata[Root]) -> None:
        self._read = read
        self._keyring = keyring
        self._expiry = expiry
        self._root = root
        self._followed = deepcopy(root.signed.roles[ROOT])
        self._targets = Metadata(Targets())
        self._channels: dict[str, Metadata[Targets]] = {}
        self._snapshot = Metadata(Snapshot(meta={}))
        self._timestamp = Metadata(Timestamp())

    @classmethod
    def initialise(
        cls, read: Read, keyring: Keyring, channels: Iterable[str], *, now: datetime, expiry: Expiry | None = None
    ) -> tuple["MetadataSet", Upload]:
        """Make the metadata of a new repository; its first file is the root that applications embed.

        Raises:
            UsageError: There is metadata already, a channel's name is a role's, or keys are missing.
        """
        if read("timestamp.json") is not None:
            raise UsageError("this repository has metadata already", hint="publish to it, or name another folder")
        names = tuple(channels)
        made = cls(read, keyring, expiry or Expiry(), Metadata(_first_root(keyring)))
        uploads = [made._sign_root(now, also=())]
        for channel in names:
            made._delegate(channel)
        uploads += [made._sign_channel(channel, now) for channel in names]
        return made, [*uploads, made._sign_targets(now), *made._seal(now)]

    @classmethod
    def load(
        cls, read: Read, keyring: Keyring, *, expiry: Expiry | None = None, interrupted: bool = False
    ) -> "MetadataSet":
        """Read what is published, and verify it from the keyring's own root keys on: what is signed anew must not come
        from somebody who can write to the server. Expired metadata is fine: it is about to be renewed.

        Args:
            read: Reads published files.
            keyring: Who signs.
            expiry: How long new signatures hold.
            interrupted: What the root before the newest vouches for is good as well: a publisher that exchanged a lost
                key may have died right after the new root. Only for exchanging keys again.

        Raises:
            TrustError: A file is missing or not signed by whom it should be.
            IntegrityError: A file is not what was signed.
            UsageError: There is no metadata.
        """
        newest, before = newest_roots(read, keyring)
        loaded = cls(read, keyring, expiry or Expiry(), newest)
        try:
            loaded._load_below(newest.signed)
        except TrustError:
            if not interrupted or before is None:
                raise
            loaded._load_below(before.signed)
        return loaded

    def _load_below(self, root: Root) -> None:
        """Read what a root vouches for."""
        self._timestamp = load_role(self._read, "timestamp.json", Timestamp, root, None)
        of_snapshot = self._timestamp.signed.snapshot_meta
        self._snapshot = load_role(self._read, f"{of_snapshot.version}.snapshot.json", Snapshot, root, of_snapshot)
        self._targets = self._load_targets(Targets.type, root)
        for channel in self._delegations().roles or {}:
            self._channels[channel] = self._load_targets(channel, self._targets.signed)

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that there are keys for in the metadata."""
        return tuple(self._channels)

    def target(self, channel: str, path: str) -> TargetFile | None:
        """What is signed for a path."""
        return self._channel(channel).signed.targets.get(path)

    def channel_keys(self, channel: str) -> list[Key]:
        """The keys that a channel's manifest is signed with, for envelopes and for readers that verify those.

        Raises:
            UsageError: There is no such channel.
        """
        self._channel(channel)
        targets = self._targets.signed
        return [targets.get_key(keyid) for keyid in targets.get_delegated_role(channel).keyids]

    def put_target(self, channel: str, path: str, data: bytes, *, now: datetime) -> Upload:
        """Sign new content of `path`, below `<channel>/`. The caller uploads it before, under its digest's name.

        Raises:
            UsageError: There is no such channel, the path is another's, or keys are missing.
        """
        role = self._channel(channel)
        if not path.startswith(f"{channel}/") or path.count("/") != 1:
            raise UsageError(f"the channel {channel} cannot sign {path}", hint=f"its paths are {channel}/NAME")
        role.signed.targets[path] = TargetFile.from_data(path, data, ["sha256"])
        return [self._sign_channel(channel, now), *self._seal(now)]

    def refresh(self, *, now: datetime) -> Upload:
        """Sign snapshot and timestamp anew, with the online key alone.

        Raises:
            UsageError: The online key is missing.
        """
        return self._seal(now)

    def add_channel(self, channel: str, *, now: datetime) -> Upload:
        """Delegate to one more channel, whose key the keyring has. Needs the targets key.

        Raises:
            UsageError: The channel exists, has the name of a role, or keys are missing.
        """
        self._delegate(channel)
        return [self._sign_channel(channel, now), self._sign_targets(now), *self._seal(now)]

    def renew(self, role: str, *, now: datetime) -> Upload:
        """Sign a role anew with the keys that it has: `root`, `targets`, `online` or a channel's role in the keyring.

        Raises:
            UsageError: There is no such role, or keys are missing.
        """
        if role == ROOT:
            return [self._sign_root(now, also=())]
        if role == ONLINE:
            return self._seal(now)
        if role == TARGETS:
            return [self._sign_targets(now), *self._seal(now)]
        return [self._sign_channel(self._of_role(role), now), *self._seal(now)]

    def rotate(self, role: str, keys: Sequence[Key], *, now: datetime) -> Upload:
        """Exchange the keys of a role: `root`, `targets`, `online`, or a channel's role in the keyring.

        The old keys sign once more where they are at hand, so that no device is without valid metadata meanwhile.
        What a role says stays as it is: after a theft, look at it first.

        Raises:
            UsageError: There is no such role, or keys are missing.
        """
        if role == ROOT:
            old = list(self._root.signed.roles[ROOT].keyids)
            self._exchange(self._root.signed, ROOT, keys)
            return [self._sign_root(now, also=old)]
        if role in {TARGETS, ONLINE}:
            return self._rotate_by_root((TARGETS,) if role == TARGETS else _ONLINE_ROLES, keys, now)
        channel = self._of_role(role)
        self._exchange(self._targets.signed, channel, keys)
        return [self._sign_channel(channel, now), self._sign_targets(now), *self._seal(now)]

    def expiring(self, *, now: datetime) -> list[Expiring]:
        """The roles of which a quarter of the validity is left, or less."""
        e = self._expiry
        roles = [
            (Root.type, self._root.signed.expires, e.root),
            (Targets.type, self._targets.signed.expires, e.targets),
            *((name, role.signed.expires, e.channel) for name, role in self._channels.items()),
            (Snapshot.type, self._snapshot.signed.expires, e.online),
            (Timestamp.type, self._timestamp.signed.expires, e.online),
        ]
        return [Expiring(role=role, expires=at) for role, at, validity in roles if at - now <= validity / 4]

    def _rotate_by_root(self, roles: tuple[str, ...], keys: Sequence[Key], now: datetime) -> Upload:
        root = self._root.signed
        old = [keyid for role in roles for keyid in root.roles[role].keyids]
        overlap = bool(self._keyring.signers(old))
        for role in roles:
            self._exchange(root, role, keys)
        signed_root = self._sign_root(now, also=())
        targets = [self._sign_targets(now, also=old)] if roles == (TARGETS,) else []
        rest = [*targets, *self._seal(now, also=() if targets else old)]
        return [*rest, signed_root] if overlap else [signed_root, *rest]

    def _exchange(self, delegator: Root | Targets, role: str, keys: Sequence[Key]) -> None:
        of_role = delegator.get_delegated_role(role)
        if len({key.keyid for key in keys}) < of_role.threshold:
            raise UsageError(f"{role} needs {of_role.threshold} keys, and got {len(keys)}")
        for keyid in list(of_role.keyids):
            delegator.revoke_key(keyid, role)
        for key in keys:
            delegator.add_key(key, role)

    def _delegate(self, channel: str) -> None:
        if channel in RESERVED or channel in self._channels:
            raise UsageError(f"there cannot be a new channel {channel}: the name is taken", hint="choose another name")
        keys = self._keyring.keys(channel_role(channel))
        if not keys:
            raise UsageError(f"there is no key for the channel {channel}", hint="make one, then try again")
        role = DelegatedRole(channel, [], threshold=1, terminating=True, paths=[f"{channel}/*"])
        roles = self._delegations().roles
        if roles is None:
            raise TrustError("the targets metadata delegates to hash bins, which overair does not make", hint=RESTORE)
        roles[channel] = role
        self._targets.signed.add_key(keys[-1], channel)
        self._channels[channel] = Metadata(Targets())

    def _delegations(self) -> Delegations:
        if self._targets.signed.delegations is None:
            self._targets.signed.delegations = Delegations(keys={}, roles={})
        return self._targets.signed.delegations

    def _channel(self, channel: str) -> Metadata[Targets]:
        try:
            return self._channels[channel]
        except KeyError:
            known = ", ".join(self._channels) or "none"
            raise UsageError(f"there is no channel {channel}", hint=f"the channels are: {known}") from None

    def _of_role(self, role: str) -> str:
        channel = role.removeprefix(channel_role(""))
        self._channel(channel)
        return channel

    def _load_targets(self, role: str, delegator: Root | Targets) -> Metadata[Targets]:
        meta = self._snapshot.signed.meta.get(f"{role}.json")
        if meta is None:
            raise TrustError(f"the snapshot does not know {role}", hint=RESTORE)
        return load_role(self._read, f"{meta.version}.{role}.json", Targets, delegator, meta)

    def _sign_root(self, now: datetime, *, also: Iterable[str]) -> tuple[str, bytes]:
        root = self._root
        root.signed.version = _following(root)
        data = self._sign(root, ROOT, root.signed, now + self._expiry.root, also)
        if root.signed.version > 1:  # devices follow a chain: the keys before must sign as well (TUF 5.3.4)
            self._refuse_unsigned(root, ROOT, self._followed)
        self._followed = deepcopy(root.signed.roles[ROOT])
        return f"{root.signed.version}.root.json", data

    def _sign_targets(self, now: datetime, *, also: Iterable[str] = ()) -> tuple[str, bytes]:
        return self._sign_listed(self._targets, Targets.type, self._root.signed, now + self._expiry.targets, also)

    def _sign_channel(self, channel: str, now: datetime) -> tuple[str, bytes]:
        expires = now + self._expiry.channel
        return self._sign_listed(self._channels[channel], channel, self._targets.signed, expires, ())

    def _sign_listed(
        self, role: Metadata[Targets], name: str, delegator: Root | Targets, expires: datetime, also: Iterable[str]
    ) -> tuple[str, bytes]:
        role.signed.version = self._free_version(name, role)
        data = self._sign(role, name, delegator, expires, also)
        self._snapshot.signed.meta[f"{name}.json"] = MetaFile.from_data(role.signed.version, data, ["sha256"])
        return f"{role.signed.version}.{name}.json", data

    def _seal(self, now: datetime, *, also: Iterable[str] = ()) -> Upload:
        """Snapshot and timestamp: what makes everything signed before it visible, at once."""
        snapshot, timestamp, root = self._snapshot, self._timestamp, self._root.signed
        snapshot.signed.version = self._free_version(Snapshot.type, snapshot)
        data = self._sign(snapshot, Snapshot.type, root, now + self._expiry.online, also)
        timestamp.signed.version = _following(timestamp)
        timestamp.signed.snapshot_meta = MetaFile.from_data(snapshot.signed.version, data, ["sha256"])
        last = self._sign(timestamp, Timestamp.type, root, now + self._expiry.online, also)
        return [(f"{snapshot.signed.version}.snapshot.json", data), ("timestamp.json", last)]

    def _free_version(self, name: str, metadata: Metadata[Kind]) -> int:
        """The next version that no file has: one that was uploaded before a publisher died must not be replaced."""
        version = _following(metadata)
        while self._read(f"{version}.{name}.json") is not None:
            version += 1
        return version

    def _sign(
        self,
        metadata: Metadata[Kind],
        role: str,
        delegator: Root | Targets,
        expires: datetime,
        also: Iterable[str],
    ) -> bytes:
        metadata.signed.expires = expires.replace(microsecond=0)
        metadata.signatures.clear()
        wanted: Role = delegator.get_delegated_role(role)
        with refusals(f"the new {role} metadata", hint="see the cause above"):
            for signer in self._keyring.signers([*wanted.keyids, *also]):
                metadata.sign(signer, append=True)
        self._refuse_unsigned(metadata, role, wanted)
        return metadata.to_bytes(JSONSerializer(compact=True))

    def _refuse_unsigned(self, metadata: Metadata[Kind], role: str, wanted: Role) -> None:
        present = sum(1 for keyid in wanted.keyids if keyid in metadata.signatures)
        if present < wanted.threshold:
            raise UsageError(
                f"cannot sign {role}: {wanted.threshold} of these keys are needed and {present} are in "
                f"{self._keyring.folder}: {', '.join(keyid[:16] for keyid in wanted.keyids)}",
                hint="bring the keys back from where they are kept, and run the same command again",
            )


def _following(metadata: Metadata[Kind]) -> int:
    return metadata.signed.version + (1 if metadata.signatures else 0)


def _first_root(keyring: Keyring) -> Root:
    threshold = 1 if keyring.dev else ROOT_THRESHOLD
    roles = {role: Role([], threshold if role == ROOT else 1) for role in RESERVED}
    root = Root(roles=roles, consistent_snapshot=True)
    for role in sorted(RESERVED):
        keys = keyring.keys(ONLINE if role in _ONLINE_ROLES else role)
        if len(keys) < roles[role].threshold:
            raise UsageError(f"there are not enough keys for {role}", hint="make keys with: overair repo init")
        for key in keys if role == ROOT else keys[-1:]:
            root.add_key(key, role)
    return root
