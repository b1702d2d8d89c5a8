"""A release and its parts, as every other module handles them."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec.structs import replace

from overair.model.digest import Digest
from overair.model.probe import ProbePolicy
from overair.model.version import VersionText

Role = Literal["model", "adapter", "projector", "template"]

MAX_FILE_BYTES: Final = 1 << 44
MAX_ARTIFACTS: Final = 256
MAX_MIRRORS: Final = 8

# A name becomes a file name in `releases/<id>/`: no separator, no leading dot, nothing that Windows reserves.
NAME_PATTERN: Final = (
    r"^(?!([Cc][Oo][Nn]|[Pp][Rr][Nn]|[Aa][Uu][Xx]|[Nn][Uu][Ll]|([Cc][Oo][Mm]|[Ll][Pp][Tt])[0-9])(\.|$))"
    r"[A-Za-z0-9_]([A-Za-z0-9._+-]{0,126}[A-Za-z0-9_+-])?$(?!\n)"
)

FileSize = Annotated[int, msgspec.Meta(ge=1, le=MAX_FILE_BYTES, description="bytes")]
FileName = Annotated[
    str,
    msgspec.Meta(pattern=NAME_PATTERN, max_length=128, description="a plain file name, safe on every platform"),
]
URL = Annotated[str, msgspec.Meta(min_length=1, max_length=8192, description="http(s), or relative to the manifest")]
TierName = Annotated[
    str,
    msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$(?!\n)", max_length=63, description="a size class, as 1b"),
]


_COMPARISON: Final = r"(>=|<=|==|!=|>|<) ?[0-9]{1,9}(\.[0-9]{1,9}){0,3}"
EngineName = Annotated[str, msgspec.Meta(min_length=1, max_length=63, description="an engine, as llama.cpp")]
EngineRange = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^{_COMPARISON}(, ?{_COMPARISON})*$(?!\n)",
        max_length=128,
        description="a range of versions, as >=6000 or >=6000,<7000",
    ),
]


class ChunkIndexRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the chunk index of an artifact is (`overair.formats.chunks`), and how long its chunks are in bytes."""

    url: URL
    size_bytes: FileSize
    sha256: Digest
    chunk_bytes: Annotated[int, msgspec.Meta(ge=1 << 12, le=1 << 30)]
    mirrors: Annotated[tuple[URL, ...], msgspec.Meta(max_length=MAX_MIRRORS)] = ()


class DeltaRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the bytes are that turn the blob `from_sha256` into this artifact."""

    from_sha256: Digest
    url: URL
    size_bytes: FileSize
    sha256: Digest
    format: str


class Artifact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file that a release installs.

    Args:
        role: What an engine uses it for.
        name: The file's name on the device.
        url: Where its bytes are.
        size_bytes: Its length.
        sha256: Its digest.
        base_sha256: For an adapter, the digest of the model that it was trained on.
        mirrors: Where else its bytes are.
        chunks: Its chunk index, if it has one.
        deltas: Shorter ways to it from blobs that a device may have.
    """

    role: Role
    name: FileName
    url: URL
    size_bytes: FileSize
    sha256: Digest
    base_sha256: Digest | None = None
    mirrors: Annotated[tuple[URL, ...], msgspec.Meta(max_length=MAX_MIRRORS)] = ()
    chunks: ChunkIndexRef | None = None
    deltas: Annotated[tuple[DeltaRef, ...], msgspec.Meta(max_length=64)] = ()


_Placed = TypeVar("_Placed", Artifact, ChunkIndexRef)


def relocated(artifact: Artifact, place: Callable[[str], str]) -> Artifact:
    """The artifact with every address in it, that of its chunk index too, as `place` gives it."""

    def move(part: _Placed) -> _Placed:
        return replace(part, url=place(part.url), mirrors=tuple(place(url) for url in part.mirrors))

    return replace(move(artifact), chunks=artifact.chunks and move(artifact.chunks))


class Requirements(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a device must have to run a release.

    Args:
        ram_bytes: Memory, in bytes: the weights and the cache of a whole context.
        engines: The versions that each engine must have; `llama.cpp` stands for its build, whatever its front end.
            An engine that is not named may try.
    """

    ram_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None
    engines: Annotated[dict[EngineName, EngineRange], msgspec.Meta(max_length=32)] = {}


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One immutable, published version of a model for one tier."""

    tier: TierName
    version: VersionText
    artifacts: tuple[Artifact, ...]
    min_app_version: VersionText | None = None
    release_notes: str = ""
    requires: Requirements = Requirements()
    probe: ProbePolicy = ProbePolicy()

    @property
    def model(self) -> Artifact:
        """The artifact that an engine opens; of a split model, its first file."""
        return next(artifact for artifact in self.artifacts if artifact.role == "model")

    @property
    def id(self) -> Digest:
        """What names this release on a device."""
        return release_id(self.artifacts)

    @property
    def size_bytes(self) -> int:
        """The length of all artifacts together."""
        return sum(artifact.size_bytes for artifact in self.artifacts)


def release_id(artifacts: tuple[Artifact, ...]) -> Digest:
    """Name a set of artifacts.

    A release of one file is named by that file's digest, so that what people see is what `sha256sum` prints. A
    bundle is named by the digest of the sorted lines `role name sha256 base`: a new adapter on the same base is
    another release, and quarantining one leaves the other free.
    """
    if len(artifacts) == 1:
        return artifacts[0].sha256
    lines = sorted(f"{a.role} {a.name} {a.sha256} {a.base_sha256 or '-'}\n" for a in artifacts)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """The artifacts of a release on this disk, as an engine loads them.

    Args:
        id: The release's name on this device.
        version: The release's version.
        sha256: The digest of the model file.
        model: The model file; of a split model, its first file.
        adapters: LoRA adapters, in the order in which they are applied.
        projector: The multimodal projector.
        template: A chat template that replaces the model's own.
    """

    id: Digest
    version: str
    sha256: Digest
    model: Path
    adapters: tuple[Path, ...] = ()
    projector: Path | None = None
    template: Path | None = None
