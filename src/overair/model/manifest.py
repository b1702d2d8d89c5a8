"""The manifest: which release each tier of a channel should run (DESIGN section 4).

The structs below have the shape of the JSON document. The first eight names are classic: older, simple readers
know only those, so they never change. `parse_manifest` reads both forms, the full one and the plain one that has
nothing but the classic names, and `Manifest.release` and its siblings hand out `Release` values that no longer
tell the two apart.
"""

from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec

from overair.errors import ManifestError
from overair.model.digest import Digest
from overair.model.explain import explain
from overair.model.probe import ProbePolicy
from overair.model.release import (
    MAX_ARTIFACTS,
    URL,
    Artifact,
    EngineName,
    EngineRange,
    FileName,
    FileSize,
    Release,
    Requirements,
    TierName,
)
from overair.model.urls import is_safe_url
from overair.model.version import VersionText

T = TypeVar("T")

MAX_MANIFEST_BYTES: Final = 5_000_000
SCHEMA_VERSION: Final = 1
BASIS_POINTS: Final = 10_000

ChannelName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$(?!\n)", max_length=63, description="a stream of releases, as stable"
    ),
]
Timestamp = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$",
        max_length=20,
        description="UTC, as 2026-11-23T10:00:00Z",
    ),
]


class Rollout(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """To which share of the devices a candidate is offered, in basis points (10000 is everybody), and since when."""

    basis_points: Annotated[int, msgspec.Meta(ge=0, le=BASIS_POINTS)]
    salt: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    starts_at: Timestamp | None = None
    ramp_seconds: Annotated[int, msgspec.Meta(ge=0)] = 0


class ReleaseEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A release as the document spells it; `url`, `size_bytes` and `sha256` are those of the model file."""

    url: URL
    size_bytes: FileSize
    sha256: Digest
    version: VersionText | None = None
    min_app_version: VersionText | None = None
    release_notes: Annotated[str, msgspec.Meta(max_length=20_000)] = ""
    artifacts: Annotated[tuple[Artifact, ...], msgspec.Meta(max_length=MAX_ARTIFACTS)] = ()
    requires: Requirements = Requirements()
    probe: ProbePolicy = ProbePolicy()

    def release(self, tier: str, version: str) -> Release:
        """The release that this entry describes; `version` stands in where the entry has none."""
        artifacts = self.artifacts or (
            Artifact(role="model", name="model.gguf", url=self.url, size_bytes=self.size_bytes, sha256=self.sha256),
        )
        return Release(
            tier=tier,
            version=self.version or version,
            artifacts=artifacts,
            min_app_version=self.min_app_version,
            release_notes=self.release_notes,
            requires=self.requires,
            probe=self.probe,
        )


class CandidateEntry(ReleaseEntry, frozen=True, kw_only=True, omit_defaults=True):
    """A release that only a cohort is offered."""

    rollout: Rollout


class TierEntry(ReleaseEntry, frozen=True, kw_only=True, omit_defaults=True):
    """The release of a tier, what to return to when it is bad, and what is being rolled out."""

    rollback: ReleaseEntry | None = None
    candidate: CandidateEntry | None = None


class Withdrawal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A release that the publisher took back; `sha256` is the release's id."""

    tier: TierName
    version: VersionText
    sha256: Digest
    reason: Annotated[str, msgspec.Meta(max_length=2_000)] = ""


class Predecessor(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest that was published before this one: with it, the manifests of a channel are its log."""

    sha256: Digest
    size_bytes: FileSize


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One channel's manifest. `schema` is None when it was written by hand, with the classic names only."""

    current_version: VersionText
    models: Annotated[dict[TierName, TierEntry], msgspec.Meta(min_length=1, max_length=256)]
    schema: Annotated[int, msgspec.Meta(ge=1)] | None = None
    channel: ChannelName | None = None
    sequence: Annotated[int, msgspec.Meta(ge=0)] = 0
    published_at: Timestamp | None = None
    expires: Timestamp | None = None
    withdrawn: Annotated[tuple[Withdrawal, ...], msgspec.Meta(max_length=10_000)] = ()
    rollback_version: VersionText | None = None
    predecessor: Predecessor | None = None
    poll_seconds: Annotated[int, msgspec.Meta(ge=1, description="seconds")] | None = None

    def release(self, tier: str) -> Release:
        """The release that every device of the tier may have."""
        return self.models[tier].release(tier, self.current_version)

    def rollback(self, tier: str) -> Release | None:
        """The release that a device of the tier returns to, if the document describes it whole."""
        entry = self.models[tier].rollback
        return entry.release(tier, self.rollback_version or self.current_version) if entry else None

    def candidate(self, tier: str) -> tuple[Release, Rollout] | None:
        """The release that is being rolled out to the tier, and to whom."""
        entry = self.models[tier].candidate
        return (entry.release(tier, self.current_version), entry.rollout) if entry else None

    def withdrawal(self, tier: str, release_id: str) -> Withdrawal | None:
        """The entry that takes this release of the tier back, if there is one."""
        return next((w for w in self.withdrawn if w.tier == tier and w.sha256 == release_id), None)


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest, in full or in plain form. Unknown fields are ignored.

    Raises:
        ManifestError: It is too large, not JSON, or a known field is missing or mistyped; the message names the
            path of the field and what was expected.
    """
    document = parse_document(data)
    models = document.get("models")
    if not isinstance(models, dict):
        raise ManifestError("manifest: expected an object of tiers at $.models")
    for tier, entry in models.items():
        _convert(entry, TierEntry, f"$.models.{tier}")
    manifest = _convert(document, Manifest, "$")
    for path, moment in (("$.published_at", manifest.published_at), ("$.expires", manifest.expires)):
        _check_moment(moment, path)
    for tier in manifest.models:
        _check_tier(tier, manifest)
    return manifest


def parse_document(data: bytes) -> dict[str, Any]:
    """Read a manifest as plain JSON values, so that a publisher can keep the fields it does not know.

    Raises:
        ManifestError: It is larger than `MAX_MANIFEST_BYTES`, not UTF-8, not JSON or not an object.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"manifest: more than {MAX_MANIFEST_BYTES} bytes")
    if not data.strip():
        raise ManifestError("manifest: empty")
    if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        raise ManifestError(
            "manifest: a page of HTML came instead of JSON",
            hint="is there a login page on this network, or a wrong URL? try again on another network",
        )
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"manifest: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ManifestError(f"manifest: expected an object at $, got {type(document).__name__}")
    return document


def encode_manifest(manifest: Manifest, *, over: dict[str, Any] | None = None) -> bytes:
    """Write a manifest, the classic names always among it.

    Args:
        manifest: What to write.
        over: The document that it replaces: fields that this program does not know are kept from there.
    """
    over = over or {}
    document = _unknown(over, Manifest) | msgspec.to_builtins(manifest)
    document["models"] = {
        tier: _unknown(over.get("models", {}).get(tier, {}), TierEntry) | _entry(entry)
        for tier, entry in manifest.models.items()
    }
    document["rollback_version"] = manifest.rollback_version or manifest.current_version
    for tier, entry in manifest.models.items():
        document[f"rollback_url_{tier}"] = (entry.rollback or entry).url
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _entry(entry: TierEntry) -> dict[str, Any]:
    """The entry as JSON values; readers of the plain form may rely on all five classic names."""
    known: dict[str, Any] = msgspec.to_builtins(entry)
    return {"min_app_version": "0.0.0", "release_notes": ""} | known


def _unknown(document: dict[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    known = set(kind.__struct_fields__)
    return {k: v for k, v in document.items() if k not in known and not k.startswith("rollback_url_")}


def _check_tier(tier: str, manifest: Manifest) -> None:
    """What the types cannot say: one model file at least, names that do not collide, addresses that are safe."""
    entry = manifest.models[tier]
    for place, part in (("", entry), (".rollback", entry.rollback), (".candidate", entry.candidate)):
        if part is not None:
            _check_entry(part, f"$.models.{tier}{place}")
    if entry.candidate is not None:
        _check_moment(entry.candidate.rollout.starts_at, f"$.models.{tier}.candidate.rollout.starts_at")


def _check_moment(text: str | None, path: str) -> None:
    """A pattern lets the 99th of a month through."""
    try:
        datetime.fromisoformat(text or "1970-01-01T00:00:00Z")
    except ValueError as error:
        raise ManifestError(f"manifest: expected a moment in UTC, as 2026-11-23T10:00:00Z at {path}") from error


def _check_entry(entry: ReleaseEntry, path: str) -> None:
    urls = [(f"{path}.url", entry.url)]
    for i, artifact in enumerate(entry.artifacts):
        at = f"{path}.artifacts[{i}]"
        urls.append((f"{at}.url", artifact.url))
        urls += [(f"{at}.mirrors[{j}]", url) for j, url in enumerate(artifact.mirrors)]
        if artifact.chunks:
            urls.append((f"{at}.chunks.url", artifact.chunks.url))
            urls += [(f"{at}.chunks.mirrors[{j}]", url) for j, url in enumerate(artifact.chunks.mirrors)]
        urls += [(f"{at}.deltas[{j}].url", delta.url) for j, delta in enumerate(artifact.deltas)]
    for at, url in urls:
        if not is_safe_url(url):
            raise ManifestError(
                f"manifest: expected an http(s) URL or a path below the manifest at {at}: {url[:200]!r}"
            )
    names = [artifact.name.lower() for artifact in entry.artifacts]
    if len(names) != len(set(names)):
        raise ManifestError(f"manifest: two artifacts have the same name at {path}.artifacts")
    models = [artifact for artifact in entry.artifacts if artifact.role == "model"]
    if entry.artifacts and (not models or models[0].sha256 != entry.sha256):
        raise ManifestError(f"manifest: expected the model {entry.sha256} as the first model at {path}.artifacts")


_TEXTS: Final = (EngineName, EngineRange, Digest, VersionText, TierName, ChannelName, FileName, Timestamp)


def _convert(value: Any, kind: type[T], path: str) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ManifestError(f"manifest: {explain(error, _TEXTS, path)}") from error
