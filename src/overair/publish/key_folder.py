"""The folder with the publisher's keys, and what else is kept there: how long signatures hold, the root for apps.

keys.json, *.pem   the keys
expiry.json        days that signatures hold, by role, where they are not the defaults
root.json          the newest root: what apps embed
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from overair.errors import IntegrityError, UsageError
from overair.publish.signing import METADATA, Signing
from overair.publish.tree import Tree, is_there, read_small_file
from overair.store.durable import write_file
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
from overair.trust.repository import Expiry

MAX_EXPIRY_BYTES: Final = 10_000
MAX_DAYS: Final = 3650
ROOT_FILE: Final = "root.json"
EXPIRY_FILE: Final = "expiry.json"


def role_of(name: str, channel: str) -> str:
    """What the keyring calls a role that somebody typed: root, targets, online, or channel with its name.

    Raises:
        UsageError: There is no such role.
    """
    if name in {ROOT, TARGETS, ONLINE}:
        return name
    if name == "channel":
        return channel_role(channel)
    raise UsageError(f"no such role: {name}", hint="choose root, targets, online, or channel with --channel")


def has_keys(folder: Path) -> bool:
    """Whether a publisher's keys are in a folder.

    Raises:
        StorageError: It cannot be told.
    """
    return is_there(folder / KEYS_FILE)


def open_signing(tree: Tree, folder: Path, passphrase: Passphrase | None, *, interrupted: bool = False) -> Signing:
    """What is published, verified, with the keys that sign it; `interrupted` as for `MetadataSet.load`.

    Raises:
        UsageError: There are no keys, or they would be published.
        TrustError: What is published was not signed by these keys.
        IntegrityError: Keys or metadata are damaged.
        StorageError: They cannot be read.
    """
    keyring = _open_keys(folder, tree, passphrase)
    return Signing.load(tree, keyring, expiry=read_expiry(folder), interrupted=interrupted)


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

    The same call again finishes what one left that died.

    Raises:
        UsageError: The keys would be published, or a passphrase is missing, or a role is unknown.
        TrustError: What is published was not signed by these keys.
        StorageError: The disk refused.
    """
    expiry = _with(read_expiry(folder), expires)
    keyring = _keys(tree, folder, channels, passphrase, dev=dev)
    if expires:
        write_file(folder / EXPIRY_FILE, msgspec.json.encode(_days(expiry)) + b"\n")
    if is_there(tree.folder / METADATA / "timestamp.json"):
        signing = Signing.load(tree, keyring, expiry=expiry)
    elif is_there(folder / ROOT_FILE):  # apps may have it: metadata that begins anew would not be believed
        raise UsageError(
            f"the keys in {folder} belong to another repository, or {tree.folder} lost its metadata",
            hint="name another folder for the keys, or bring the metadata back from the server or a backup",
        )
    else:
        _complete(keyring, channels)
        signing = Signing.initialise(tree, keyring, channels, now=now, expiry=expiry)
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
        days = msgspec.json.decode(read_small_file(path, MAX_EXPIRY_BYTES), type=dict[str, int])
        return _with(Expiry(), days)
    except (msgspec.DecodeError, UnicodeDecodeError, UsageError) as error:
        raise IntegrityError(f"{path} is damaged: {error}", hint="remove it to get the defaults") from error


def _keys(tree: Tree, folder: Path, channels: Sequence[str], passphrase: Passphrase | None, *, dev: bool) -> Keyring:
    refuse_inside(folder, tree.folder)
    if has_keys(folder):
        keyring = _open_keys(folder, tree, passphrase)
        if keyring.dev != dev:
            raise _of_the_other_kind(keyring)
        return keyring
    if dev:
        return Keyring.create_dev(folder, write=write_file)
    if passphrase is None:
        raise UsageError(
            "the keys need a passphrase",
            hint="set OVERAIR_PASSPHRASE, or use --dev to try things out with one open key",
        )
    return Keyring.create(folder, channels, write=write_file, passphrase=passphrase)


def _of_the_other_kind(keyring: Keyring) -> UsageError:
    if keyring.dev:
        return UsageError(
            f"in {keyring.folder} is one open key for development",
            hint="say --dev again; for real keys, name another repository and another folder of keys",
        )
    return UsageError(f"in {keyring.folder} are real keys, not one open key", hint="leave --dev out")


def _complete(keyring: Keyring, channels: Sequence[str]) -> None:
    """Make the keys that are missing: a publisher may have died while it made them."""
    needed = {ROOT: ROOT_KEYS, TARGETS: 1, ONLINE: 1, **{channel_role(channel): 1 for channel in channels}}
    for role, count in needed.items():
        for _ in range(0 if keyring.dev else count - len(keyring.keys(role))):
            keyring.add(role)


def _open_keys(folder: Path, tree: Tree, passphrase: Passphrase | None) -> Keyring:
    refuse_inside(folder, tree.folder)
    return Keyring.load(folder, write=write_file, passphrase=passphrase)


def _with(expiry: Expiry, days: Mapping[str, int]) -> Expiry:
    known = _days(expiry)
    for role, count in days.items():
        if role not in known or not 1 <= count <= MAX_DAYS:
            raise UsageError(
                f"not an expiry: {role}={count}", hint=f"roles are {', '.join(known)}; days from 1 to {MAX_DAYS}"
            )
    return Expiry(**{role: timedelta(days=count) for role, count in (known | dict(days)).items()})


def _days(expiry: Expiry) -> dict[str, int]:
    return {field.name: getattr(expiry, field.name).days for field in fields(Expiry)}
