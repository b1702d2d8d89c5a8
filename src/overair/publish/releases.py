"""What a channel's log says about the releases of a tier. Pure."""

from collections.abc import Iterator
from typing import TypeVar

from msgspec.structs import replace

from overair.model.digest import Digest
from overair.model.manifest import Manifest, ReleaseEntry
from overair.model.release import relocated
from overair.model.version import compare, parse_version

Entry = TypeVar("Entry", bound=ReleaseEntry)


def spelled_out(manifest: Manifest, *, channel: str, base_url: str) -> Manifest:
    """A manifest that may have been written by hand, with a channel, versions and absolute addresses throughout."""

    def entry_in_full(entry: Entry, version: str) -> Entry:
        artifacts = tuple(relocated(a, lambda url: _absolute(url, base_url)) for a in entry.artifacts)
        url = _absolute(entry.url, base_url)
        return replace(entry, version=entry.version or version, url=url, artifacts=artifacts)

    current, older = manifest.current_version, manifest.rollback_version or manifest.current_version
    models = {
        tier: replace(
            entry_in_full(entry, current),
            rollback=entry.rollback and entry_in_full(entry.rollback, older),
            candidate=entry.candidate and entry_in_full(entry.candidate, current),
        )
        for tier, entry in manifest.models.items()
    }
    return replace(manifest, channel=manifest.channel or channel, models=models)


def _absolute(url: str, base_url: str) -> str:
    return url if "://" in url else f"{base_url}/{url}"


def bare(entry: ReleaseEntry) -> ReleaseEntry:
    """The release alone, without rollback, candidate and rollout."""
    return ReleaseEntry(**{name: getattr(entry, name) for name in ReleaseEntry.__struct_fields__})


def version_of(entry: ReleaseEntry) -> str:
    """The version of a release; one of a manifest that was `spelled_out` always has one."""
    if entry.version is None:
        raise TypeError("a release without a version")
    return entry.version


def id_of(entry: ReleaseEntry, tier: str) -> Digest:
    """What names the release on a device, and in the list of what is withdrawn."""
    return entry.release(tier, version_of(entry)).id


def standing(manifest: Manifest, tier: str) -> ReleaseEntry:
    """The release that the manifest gives to every device of the tier."""
    return bare(manifest.models[tier])


def released(log: tuple[Manifest, ...], tier: str) -> list[ReleaseEntry]:
    """Every version that every device of the tier could once have, as it was published last."""
    return _distinct(entry for manifest in log for entry in _released_by(manifest, tier))


def everything(log: tuple[Manifest, ...], tier: str) -> list[ReleaseEntry]:
    """Every version of the tier that some device could once have: what was released, and the candidates."""
    candidates = (bare(entry.candidate) for manifest in log if (entry := manifest.models.get(tier)) and entry.candidate)
    return _distinct((*released(log, tier), *candidates))


def find(entries: list[ReleaseEntry], version: str) -> ReleaseEntry | None:
    """The release with this version. Build metadata is no difference (Semantic Versioning section 10)."""
    exact = next((entry for entry in entries if entry.version == version), None)
    return exact or next((entry for entry in entries if compare(version_of(entry), version) == 0), None)


def newest(log: tuple[Manifest, ...], tier: str, *, than: ReleaseEntry) -> ReleaseEntry | None:
    """The newest release older than `than`, of other bytes, that the newest manifest does not withdraw."""
    older = [
        entry
        for entry in released(log, tier)
        if compare(version_of(entry), version_of(than)) < 0
        and id_of(entry, tier) != id_of(than, tier)
        and not is_withdrawn(log[0], tier, entry)
    ]
    return max(older, key=lambda entry: parse_version(version_of(entry)), default=None)


def is_withdrawn(manifest: Manifest, tier: str, entry: ReleaseEntry) -> bool:
    """Whether the manifest takes the release back."""
    return manifest.withdrawal(tier, id_of(entry, tier)) is not None


def _released_by(manifest: Manifest, tier: str) -> Iterator[ReleaseEntry]:
    entry = manifest.models.get(tier)
    if entry is not None:
        yield standing(manifest, tier)
    if entry is not None and entry.rollback is not None:
        yield bare(entry.rollback)


def _distinct(entries: Iterator[ReleaseEntry] | tuple[ReleaseEntry, ...]) -> list[ReleaseEntry]:
    found: dict[str, ReleaseEntry] = {}
    for entry in entries:
        found.setdefault(version_of(entry), entry)
    return list(found.values())
