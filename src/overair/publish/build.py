"""Files become a release: what they are, whether they belong together, and how a manifest describes them."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from overair.errors import GGUFError, UsageError
from overair.formats.gguf import GGUF, Split, read_gguf
from overair.model.digest import Digest
from overair.model.manifest import ReleaseEntry
from overair.model.probe import ProbePolicy
from overair.model.release import NAME_PATTERN, Artifact, ChunkIndexRef, Requirements, Role
from overair.store.durable import storage_errors

MAX_NAME: Final = 128
_PROJECTOR_ARCHITECTURE: Final = "clip"
_SPLIT_NAME: Final = re.compile(r"(?P<prefix>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")

_ARTICLES: Final = {"model": "a model", "adapter": "an adapter", "projector": "a projector"}


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A file to publish, as it was when it was inspected.

    Args:
        path: Where it is.
        role: What an engine will use it for.
        name: Its name on devices.
        size_bytes: Its length.
        modified_ns: When it was last written to, to notice that it changes while it is published.
        split: Which file of a split model it is.
        metadata: What the file says of itself.
    """

    path: Path
    role: Role
    name: str
    size_bytes: int
    modified_ns: int
    split: Split | None = None
    metadata: dict[str, Any] = {}


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What a file is stored as: the blob's digest, its addresses, and where its chunk index is."""

    digest: Digest
    url: str
    mirrors: tuple[str, ...]
    chunks: ChunkIndexRef | None


def inspect(models: Sequence[Path], *, adapters: Sequence[Path], projector: Path | None) -> tuple[Source, ...]:
    """Look at the files of a release: the model first, or its split files in order.

    Raises:
        GGUFError: A file is not a whole GGUF.
        UsageError: A file is missing, is of another kind than its role, or does not belong to the others.
        StorageError: A file cannot be read.
    """
    sources = [
        *_in_order([_look(path, "model") for path in models]),
        *(_look(path, "adapter") for path in adapters),
        *([_look(projector, "projector")] if projector else []),
    ]
    names: dict[str, Source] = {}
    for source in sources:
        other = names.setdefault(source.name.lower(), source)
        if other is not source:
            raise UsageError(f"{other.path} and {source.path} would have the same name on devices", hint="rename one")
    return tuple(sources)


def describe(
    sources: Sequence[Source],
    stored: Sequence[Stored],
    *,
    version: str,
    notes: str,
    min_app_version: str | None,
    requires: Requirements,
    probe: ProbePolicy,
) -> ReleaseEntry:
    """The manifest's entry for files, each with what it is stored as."""
    artifacts = tuple(
        Artifact(
            role=source.role,
            name=source.name,
            url=blob.url,
            size_bytes=source.size_bytes,
            sha256=blob.digest,
            base_sha256=stored[0].digest if source.role == "adapter" else None,
            mirrors=blob.mirrors,
            chunks=blob.chunks,
        )
        for source, blob in zip(sources, stored, strict=True)
    )
    model = artifacts[0]
    return ReleaseEntry(
        url=model.url,
        size_bytes=model.size_bytes,
        sha256=model.sha256,
        version=version,
        min_app_version=min_app_version,
        release_notes=notes,
        artifacts=artifacts,
        requires=requires,
        probe=probe,
    )


def refuse_another_base(model: Digest, adapter_base: Digest | None) -> None:
    """Refuse adapters that were trained on another model: llama.cpp takes those of the same shape without a word.

    Raises:
        UsageError: They were.
    """
    if adapter_base is not None and adapter_base.lower() != model:
        raise UsageError(
            f"the adapters were trained on the model {adapter_base[:80]}, and this is {model}",
            hint="publish them with the model that they were trained on",
        )


def device_name(name: str) -> str:
    """A file's name as it may stand in a manifest: characters that some platform refuses become dashes."""
    if re.fullmatch(NAME_PATTERN, name):
        return name
    stem, dot, suffix = name.rpartition(".")
    stem, suffix = (stem, suffix) if dot and suffix else (name, "gguf")
    plain = re.sub(r"[^A-Za-z0-9_.+-]", "-", stem).strip("-.+") or "model"
    ending = "." + (re.sub(r"[^A-Za-z0-9]", "", suffix) or "gguf")
    # The end of a long name is kept, since a split file's number is there.
    plain = plain[-(MAX_NAME - len(ending) - 1) :].lstrip("-.+")
    return plain + ending if re.fullmatch(NAME_PATTERN, plain + ending) else f"_{plain}{ending}"


def _look(path: Path, role: Role) -> Source:
    with storage_errors("read", path):
        is_file = path.is_file()
    if not is_file:
        raise UsageError(f"no such file: {path}", hint="give the path of a GGUF file")
    with storage_errors("read", path), path.open("rb") as file:
        status = os.fstat(file.fileno())
        try:
            gguf = read_gguf(file, status.st_size)
        except GGUFError as error:
            raise GGUFError(f"{path}: {error.message}", hint=error.hint) from error
    _check_role(path, role, gguf)
    return Source(
        path=path,
        role=role,
        name=device_name(path.name),
        size_bytes=status.st_size,
        modified_ns=status.st_mtime_ns,
        split=gguf.split,
        metadata=dict(gguf.metadata),
    )


def _check_role(path: Path, role: Role, gguf: GGUF) -> None:
    is_projector = gguf.architecture == _PROJECTOR_ARCHITECTURE
    actual: Role = "adapter" if gguf.is_adapter else "projector" if is_projector else "model"
    if actual != role:
        options = {"model": "as a model", "adapter": "with --adapter", "projector": "with --mmproj"}
        raise UsageError(f"{path} is not {_ARTICLES[role]} but {_ARTICLES[actual]}", hint=f"give it {options[actual]}")


def _in_order(models: list[Source]) -> list[Source]:
    """The files of one model: a single one, or all the split files, named as llama.cpp looks for them."""
    if not models:
        raise UsageError("no model given", hint="give the path of a GGUF file")
    first = models[0]
    if first.split is None or first.split.count == 1:
        if len(models) > 1:
            raise UsageError(
                f"{first.path} and {models[1].path} are not files of one split model",
                hint="a release has one model: publish each under a tier of its own",
            )
        return models
    ordered = sorted(models, key=lambda source: source.split.index if source.split else -1)
    indexes = [source.split.index for source in ordered if source.split and source.split.count == first.split.count]
    if indexes != list(range(first.split.count)) or len(models) != len(indexes):
        found = ", ".join(str(index + 1) for index in indexes)
        raise UsageError(
            f"{first.path} is one of {first.split.count} split files, and the files given are: {found}",
            hint=f"give all {first.split.count} files of this model, each once, and no other",
        )
    _check_split_names(ordered)
    return ordered


def _check_split_names(ordered: list[Source]) -> None:
    """An engine is given the first file and finds the others by their names, which must follow llama.cpp's pattern."""
    prefixes = set()
    for index, source in enumerate(ordered):
        match = _SPLIT_NAME.fullmatch(source.name)
        if match is None or (int(match["number"]), int(match["count"])) != (index + 1, len(ordered)):
            expected = f"NAME-{index + 1:05}-of-{len(ordered):05}.gguf"
            raise UsageError(f"the split file {source.path} must be named {expected}", hint="rename it")
        prefixes.add(match["prefix"])
    if len(prefixes) > 1:
        raise UsageError(f"split files of one model must have one name: {', '.join(sorted(prefixes))}")
