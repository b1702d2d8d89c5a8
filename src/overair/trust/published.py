"""What is published, read back and verified before anything in it is signed anew (TUF 1.0, section 5).

Somebody who can write to the server must not get the publisher's signature under what they put there. So trust begins
with the root keys that the publisher's own keyring names, not with a file of the server.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from overair.errors import TrustError, UsageError
from overair.trust.keys import ROOT, Keyring
from overair.trust.metadata import refusals

Read = Callable[[str], bytes | None]
"""Reads a published file below `metadata/`, or None where there is none."""

RESTORE: Final = "bring the metadata folder back from a backup, then see docs/security.md"
Kind = TypeVar("Kind", Root, Targets, Snapshot, Timestamp)


def newest_roots(read: Read, keyring: Keyring) -> tuple[Metadata[Root], Metadata[Root] | None]:
    """The newest root, signed by keys of the keyring, and the one before it.

    Raises:
        TrustError: It is signed by others.
        UsageError: There is none.
    """
    newest: Metadata[Root] | None = None
    before: Metadata[Root] | None = None
    ours = {key.keyid for key in keyring.keys(ROOT)}
    while (data := read(name := f"{newest.signed.version + 1 if newest else 1}.root.json")) is not None:
        before, newest = newest, _following(newest, name, data)
        # Whoever can write to the server can put roots there that their own keys signed; it must be ours.
        if not ours.issuperset(newest.signed.roles[ROOT].keyids):
            raise TrustError(f"{name} names root keys that are not in {keyring.folder}", hint=RESTORE)
    if newest is None:
        raise UsageError("this repository has no signed metadata", hint="make it with: overair repo init")
    return newest, before


def load_role(
    read: Read, name: str, kind: type[Kind], delegator: Root | Targets, meta: MetaFile | None
) -> Metadata[Kind]:
    """A published file that `delegator` vouches for, as `meta` describes it. Expiry does not matter.

    Raises:
        IntegrityError: It is not what `meta` says.
        TrustError: It is missing, or not signed by whom it should be.
    """
    data = read(name)
    if data is None:
        raise TrustError(f"the published metadata lacks {name}", hint=RESTORE)
    role = name.removesuffix(".json").rpartition(".")[2]
    with refusals(name, hint=RESTORE):
        if meta is not None:
            meta.verify_length_and_hashes(data)
        loaded = _parse(name, data, kind)
        delegator.verify_delegate(role, loaded.signed_bytes, loaded.signatures)
    return loaded


def _following(trusted: Metadata[Root] | None, name: str, data: bytes) -> Metadata[Root]:
    root = _parse(name, data, Root)
    if name != f"{root.signed.version}.root.json":
        raise TrustError(f"{name} holds version {root.signed.version}", hint=RESTORE)
    with refusals(name, hint=RESTORE):
        for vouching in (trusted or root, root):
            vouching.signed.verify_delegate(ROOT, root.signed_bytes, root.signatures)
    return root


def _parse(name: str, data: bytes, kind: type[Kind]) -> Metadata[Kind]:
    with refusals(name, hint=RESTORE):
        parsed = Metadata[Kind].from_bytes(data)
    if not isinstance(parsed.signed, kind):
        raise TrustError(f"{name} holds {parsed.signed.type} metadata", hint=RESTORE)
    return parsed
