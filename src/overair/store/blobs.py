"""Immutable bytes on this disk, named by their digest, and the releases that are made of them."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from overair.errors import IntegrityError
from overair.model.digest import Digest
from overair.model.release import Artifact, Bundle, Release
from overair.store import durable
from overair.store.layout import Layout

# What a release is, beside its files; no artifact can have this name.
RECORD_NAME: Final = ".release.json"
_TEMPORARY: Final = ".tmp"


class Blobs:
    """The blobs and releases of a store."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def has(self, artifact: Artifact) -> bool:
        """Whether the blob of an artifact is here, by name and size.

        Raises:
            StorageError: The disk refused.
        """
        return _has_size(self._layout.blob(artifact.sha256), artifact.size_bytes)

    def check_arrived(self, path: Path, artifact: Artifact) -> None:
        """Read a synced file back before it is taken in: what counts is what the disk kept, not what it was given.

        Raises:
            IntegrityError: The file is not the artifact.
            StorageError: The disk refused.
        """
        wrong = _what_is_wrong(path, artifact)
        if wrong is not None:
            raise IntegrityError(
                f"{path} is {wrong}, expected {artifact.sha256}",
                hint="the disk did not keep what was written to it: try again, and if it stays so, check the disk",
            )

    def adopt(self, path: Path, artifact: Artifact) -> None:
        """Take a synced, verified file in under its digest; `path` is gone afterwards.

        Raises:
            IntegrityError: The file has another length than the artifact.
            StorageError: The disk refused.
        """
        with durable.storage_errors("read", path):
            size = path.stat().st_size
        if size != artifact.size_bytes:
            raise IntegrityError(f"{path} has {size} bytes, expected {artifact.size_bytes}")
        with durable.storage_errors("protect", path):
            path.chmod(durable.READ_ONLY)
        durable.move_file(path, self._layout.blob(artifact.sha256))

    def verify(self, artifact: Artifact) -> str | None:
        """What is wrong with the bytes of a blob, or None when they are what its name says.

        Raises:
            StorageError: The disk refused.
        """
        return _what_is_wrong(self._layout.blob(artifact.sha256), artifact)

    def verify_installed(self, release: Release, artifact: Artifact) -> str | None:
        """What is wrong with the file that engines open, where it is not the sound blob itself.

        Raises:
            StorageError: The disk refused.
        """
        path = self._layout.release(release.id) / artifact.name
        with durable.storage_errors("read", path):
            if path.exists() and path.samefile(self._layout.blob(artifact.sha256)):
                return None
        return _what_is_wrong(path, artifact)

    def reinstall(self, release: Release) -> None:
        """Make the files that engines open anew from the blobs; a running session keeps what it has open.

        Raises:
            StorageError: The disk refused, or a blob of the release is missing.
        """
        self._link_all(release, self._layout.release(release.id))

    def install(self, release: Release) -> Bundle:
        """Make the files of a release openable under their own names, and say where they are.

        Raises:
            StorageError: The disk refused, or a blob of the release is missing.
        """
        folder = self._layout.release(release.id)
        if not self._is_installed(release):
            self._link_all(release, folder)
        return bundle_of(release, folder)

    def _is_installed(self, release: Release) -> bool:
        folder = self._layout.release(release.id)
        return all(_has_size(folder / a.name, a.size_bytes) for a in release.artifacts)

    def _link_all(self, release: Release, folder: Path) -> None:
        building = folder.with_name(folder.name + _TEMPORARY)
        durable.remove_tree(building)
        durable.remove_tree(folder)
        durable.make_directory(building)
        for artifact in release.artifacts:
            durable.link_or_copy(self._layout.blob(artifact.sha256), building / artifact.name)
        durable.write_file(building / RECORD_NAME, msgspec.json.encode(release))
        durable.move_file(building, folder)

    def recorded(self) -> list[Release]:
        """The releases that were installed and whose blobs are all here and sound, by re-reading them.

        Raises:
            StorageError: The disk refused.
        """
        with durable.storage_errors("list", self._layout.releases):
            # Not `glob`, which takes a folder that may not be read for an empty one: every release would be forgotten.
            folders = sorted(self._layout.releases.iterdir())
        records = [folder / RECORD_NAME for folder in folders]
        releases = [release for path in records if (release := _read_record(path)) is not None]
        return [release for release in releases if not any(self.verify(artifact) for artifact in release.artifacts)]

    def collect(self, blobs: Iterable[Digest], releases: Iterable[Digest]) -> int:
        """Remove what is neither among these blobs nor among these releases; returns the bytes freed.

        Raises:
            StorageError: The disk refused.
        """
        freed = 0
        for folder, keep in ((self._layout.releases, set(releases)), (self._layout.blobs, set(blobs))):
            with durable.storage_errors("list", folder):
                rubbish = [path for path in folder.iterdir() if path.name not in keep]
            for path in rubbish:
                with durable.storage_errors("remove", path):
                    is_folder, size_bytes = path.is_dir(), path.lstat().st_size
                if is_folder:
                    durable.remove_tree(path)
                else:
                    durable.remove_file(path)
                    freed += size_bytes
        return freed

    def refresh_link(self, slot: str, release: Release | None) -> None:
        """Point the link that other programs open at the model of a slot, or remove it.

        Raises:
            StorageError: The disk refused.
        """
        link = self._layout.link(slot)
        if release is None:
            durable.remove_file(link)
            return
        target = self._layout.release(release.id) / release.model.name
        with durable.storage_errors("link", link):
            if not target.exists() or (link.exists() and _is_same(link, target)):
                return
        temporary = link.with_name(link.name + _TEMPORARY)
        durable.remove_file(temporary)
        durable.link_or_copy(target, temporary)
        durable.exchange(temporary, link)


def _has_size(path: Path, size_bytes: int) -> bool:
    with durable.storage_errors("look at", path):
        try:
            return path.stat().st_size == size_bytes
        except FileNotFoundError:
            return False


def _is_same(copy: Path, original: Path) -> bool:
    """Whether a file is a link to another or, where there are no links, the copy that was made of it."""
    ours, theirs = copy.stat(), original.stat()
    return copy.samefile(original) or (ours.st_size, ours.st_mtime_ns) == (theirs.st_size, theirs.st_mtime_ns)


def _read_record(path: Path) -> Release | None:
    """What a release's folder says that it is, if its name proves it."""
    with durable.storage_errors("read", path):
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
    try:
        release = msgspec.json.decode(data, type=Release)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return release if release.artifacts and release.id == path.parent.name else None


def _what_is_wrong(path: Path, artifact: Artifact) -> str | None:
    with durable.storage_errors("read", path):
        try:
            with path.open("rb") as file:
                actual = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return "missing"
    return None if actual == artifact.sha256 else f"damaged: its digest is {actual}"


def bundle_of(release: Release, folder: Path) -> Bundle:
    """The bundle that a release makes in a folder."""

    def paths(role: str) -> tuple[Path, ...]:
        return tuple(folder / a.name for a in release.artifacts if a.role == role)

    return Bundle(
        id=release.id,
        version=release.version,
        sha256=release.model.sha256,
        model=folder / release.model.name,
        adapters=paths("adapter"),
        projector=next(iter(paths("projector")), None),
        template=next(iter(paths("template")), None),
    )
