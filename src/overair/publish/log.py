"""A channel's log in words: what each publication changed. Pure."""

from collections.abc import Iterator

import msgspec

from overair.model.digest import Digest
from overair.model.manifest import Manifest, TierEntry
from overair.publish.tree import Publication


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One publication.

    Args:
        sequence: Its number; 0 for a manifest that was written by hand.
        published_at: When, UTC; None for one that was written by hand.
        sha256: The digest of the manifest.
        current_version: The newest version that it gave to everybody.
        changes: What it changed, a line each.
    """

    sequence: int
    published_at: str | None
    sha256: Digest
    current_version: str
    changes: tuple[str, ...]


def log_entries(publications: tuple[Publication, ...]) -> list[LogEntry]:
    """The log in words, the newest publication first."""
    older = (*publications[1:], None)
    return [
        LogEntry(
            sequence=publication.manifest.sequence,
            published_at=publication.manifest.published_at,
            sha256=publication.sha256,
            current_version=publication.manifest.current_version,
            changes=tuple(_changes(before.manifest if before else None, publication.manifest)),
        )
        for publication, before in zip(publications, older, strict=True)
    ]


def _changes(before: Manifest | None, after: Manifest) -> Iterator[str]:
    for tier, entry in sorted(after.models.items()):
        old = before.models.get(tier) if before else None
        old_version = (old.version or before.current_version) if before and old else None
        version = entry.version or after.current_version
        if version != old_version:
            yield f"{tier}: {old_version} -> {version}" if old_version else f"{tier}: {version}"
        yield from _candidate_changes(tier, old, entry)
    known = before.withdrawn if before else ()
    for withdrawal in after.withdrawn:
        if withdrawal not in known:
            yield f"{withdrawal.tier}: {withdrawal.version} withdrawn: {withdrawal.reason}"


def _candidate_changes(tier: str, before: TierEntry | None, after: TierEntry) -> Iterator[str]:
    old = before.candidate if before else None
    new = after.candidate
    if new is not None and new != old:
        yield f"{tier}: {new.version} to {new.rollout.basis_points / 100:g}% of the devices"
    elif old is not None and new is None and old.version != after.version:
        yield f"{tier}: the rollout of {old.version} ends"
