"""What the metadata of a published tree describes, read without keys: nothing here says who signed it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets, Timestamp

from overair.errors import IntegrityError, TrustError
from overair.model.digest import Digest
from overair.publish.signing import manifest_path
from overair.trust.metadata import refusals
from overair.trust.published import Read

TIMESTAMP_NAME: Final = "timestamp.json"
_HINT: Final = "bring the metadata folder back from the server or a backup"

Kind = TypeVar("Kind", Timestamp, Snapshot, Targets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What `timestamp.json` leads to.

    Args:
        files: The name of each role's file that counts now, `timestamp` to the channels.
        heads: The digest of each channel's manifest; None for a channel that nothing was published to.
        wrong: The files that are missing or other than described, and what is the matter with each.
    """

    files: Mapping[str, str]
    heads: Mapping[str, Digest | None]
    wrong: Mapping[str, str]


def describe(read: Read) -> Described:
    """Follow the metadata from `timestamp.json` on, comparing each file with what is said of it.

    Raises:
        StorageError: A file cannot be read.
    """
    files, heads, wrong = {"timestamp": TIMESTAMP_NAME}, dict[str, Digest | None](), dict[str, str]()
    try:
        timestamp = _load(read, TIMESTAMP_NAME, Timestamp, None)
        of_snapshot = timestamp.snapshot_meta
        files["snapshot"] = f"{of_snapshot.version}.snapshot.json"
        snapshot = _load(read, files["snapshot"], Snapshot, of_snapshot)
    except (IntegrityError, TrustError) as error:
        return Described(files=files, heads=heads, wrong={[*files.values()][-1]: error.message})
    for role, meta in _roles(snapshot):
        files[role] = f"{meta.version}.{role}.json"
        try:
            targets = _load(read, files[role], Targets, meta)
        except (IntegrityError, TrustError) as error:
            wrong[files[role]] = error.message
        else:
            if role != Targets.type:
                heads[role] = _head(targets, role)
    return Described(files=files, heads=heads, wrong=wrong)


def _roles(snapshot: Snapshot) -> Iterator[tuple[str, MetaFile]]:
    for name, meta in snapshot.meta.items():
        yield name.removesuffix(".json"), meta


def _head(targets: Targets, channel: str) -> Digest | None:
    target = targets.targets.get(manifest_path(channel))
    return None if target is None else target.hashes.get("sha256")


def _load(read: Read, name: str, kind: type[Kind], meta: MetaFile | None) -> Kind:
    data = read(name)
    if data is None:
        raise IntegrityError(f"{name} is missing", hint=_HINT)
    with refusals(name, hint=_HINT):
        if meta is not None:
            meta.verify_length_and_hashes(data)
        signed = Metadata[Kind].from_bytes(data).signed
    if not isinstance(signed, kind):
        raise IntegrityError(f"{name} holds {signed.type} metadata", hint=_HINT)
    return signed
