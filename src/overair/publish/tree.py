"""The published tree on a folder, as it is read (DESIGN section 5).

    repository.json                              settings of this tree
    manifest.json, manifest.dsse.json            plain copy of the default channel, and its envelope
    <channel>/manifest.json, manifest.dsse.json  plain copy, and its envelope
    metadata/                                    TUF: the newest root, and what it vouches for
    targets/<channel>/<sha256>.manifest.json     every manifest that was ever published, immutable
    blobs/sha256/<2 hex>/<64 hex>                immutable

A manifest names its predecessor by digest, so the head and its predecessors are the log of a channel. Both plain
copies hold the same bytes at different depths, which is why every URL in them is absolute.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from overair.errors import IntegrityError, UsageError
from overair.model.digest import Digest
from overair.model.manifest import MAX_MANIFEST_BYTES, ChannelName, Manifest, parse_document, parse_manifest
from overair.store.durable import storage_errors

SETTINGS_NAME: Final = "repository.json"
MANIFEST_NAME: Final = "manifest.json"
ENVELOPE_NAME: Final = "manifest.dsse.json"
HASHED_SUFFIX: Final = ".manifest.json"
MAX_SETTINGS_BYTES: Final = 64 * 1024
FORMAT: Final = 1


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What `repo init` settles.

    Args:
        base_url: Where the tree is reachable.
        default_channel: The channel that the plain `manifest.json` shows.
        mirrors: Where copies of the tree are reachable.
        poll_seconds: How often devices are asked to check.
        format: The version of this shape.
    """

    base_url: str
    default_channel: ChannelName
    mirrors: tuple[str, ...] = ()
    poll_seconds: int | None = None
    format: int = FORMAT

    @property
    def fixed(self) -> tuple[str, str]:
        """What never changes: manifests out there name it."""
        return self.base_url, self.default_channel


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """One manifest of a channel's log, and the exact bytes that it was."""

    manifest: Manifest
    data: bytes

    @property
    def sha256(self) -> Digest:
        """The digest of the manifest's bytes."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def document(self) -> dict[str, Any]:
        """The manifest as plain JSON values, with the fields that this program does not know."""
        return parse_document(self.data)


class Tree:
    """The places and addresses of a published tree, and what stands there.

    Args:
        folder: Where the tree is.
        settings: What `repository.json` says.
        signed_head: The digest of the manifest that is signed for a channel. Without it the plain copies are
            believed, which anybody can change who can write to the folder.
    """

    def __init__(
        self, folder: Path, settings: Settings, *, signed_head: Callable[[str], Digest | None] | None = None
    ) -> None:
        self.folder = folder
        self.settings = settings
        self._signed_head = signed_head

    def signed(self, head: Callable[[str], Digest | None]) -> "Tree":
        """The same tree, read from the manifests on that are signed."""
        return Tree(self.folder, self.settings, signed_head=head)

    def blob(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        return self.folder / blob_place(digest)

    def blob_url(self, digest: Digest) -> str:
        """The absolute address of a blob."""
        return f"{self.settings.base_url}/{blob_place(digest)}"

    def blob_mirrors(self, digest: Digest) -> tuple[str, ...]:
        """The absolute addresses of a blob's copies."""
        return tuple(f"{mirror}/{blob_place(digest)}" for mirror in self.settings.mirrors)

    def hashed_manifest(self, channel: str, digest: Digest) -> Path:
        """Where a channel's manifest with this digest is, or would be."""
        return self.folder / "targets" / channel / f"{digest}{HASHED_SUFFIX}"

    def plain_copies(self, channel: str) -> tuple[Path, ...]:
        """Where the channel's newest manifest is copied to; the first is the head of its log."""
        copies = (self.folder / channel / MANIFEST_NAME,)
        return (*copies, self.folder / MANIFEST_NAME) if channel == self.settings.default_channel else copies

    def envelopes(self, channel: str) -> tuple[Path, ...]:
        """Where the envelopes are that hold the same bytes as the plain copies beside them, signed."""
        return tuple(copy.with_name(ENVELOPE_NAME) for copy in self.plain_copies(channel))

    def manifest_url(self, channel: str) -> str:
        """The absolute address of the channel's manifest."""
        return f"{self.settings.base_url}/{self.plain_copies(channel)[-1].relative_to(self.folder).as_posix()}"

    def channels(self) -> list[str]:
        """The channels that anything was published to."""
        with storage_errors("list", self.folder):
            found = [path.parent.name for path in self.folder.glob(f"*/{MANIFEST_NAME}")]
        default = self.settings.default_channel
        adopted = [default] if is_there(self.folder / MANIFEST_NAME) and default not in found else []
        return sorted(found + adopted)

    def head(self, channel: str) -> Publication | None:
        """The newest manifest of a channel: the signed one; before the first, a plain one that was written by hand.

        Raises:
            ManifestError: It is not a manifest.
            StorageError: It cannot be read.
        """
        digest = self._signed_head(channel) if self._signed_head else None
        if digest is not None:
            return self._publication(channel, digest)
        path = next((copy for copy in self.plain_copies(channel) if is_there(copy)), None)
        return _read_publication(path) if path else None

    def log(self, channel: str) -> tuple[Publication, ...]:
        """Every publication of a channel, the newest first.

        Raises:
            IntegrityError: A manifest that the log names is missing or has other bytes.
            ManifestError: What is there is not a manifest.
            StorageError: A file cannot be read.
        """
        head = self.head(channel)
        publications = [head] if head else []
        while publications and (predecessor := publications[-1].manifest.predecessor):
            publications.append(self._publication(channel, predecessor.sha256))
        return tuple(publications)

    def _publication(self, channel: str, digest: Digest) -> Publication:
        path = self.hashed_manifest(channel, digest)
        if not is_there(path):
            raise IntegrityError(f"the log of channel {channel} is broken: {path} is missing", hint=_MEND)
        publication = _read_publication(path)
        if publication.sha256 != digest:
            raise IntegrityError(f"the log of channel {channel} is broken: {path} was changed", hint=_MEND)
        return publication


_MEND: Final = "bring the file back from the server or a backup, and look at the tree with: overair repo check"


def blob_place(digest: Digest) -> str:
    """The path of a blob below the tree, and below its base URL."""
    return f"blobs/sha256/{digest[:2]}/{digest}"


def read_settings(folder: Path) -> Settings | None:
    """Read `repository.json`, or None where there is none.

    Raises:
        IntegrityError: It is damaged.
        UsageError: A newer version of this program wrote it.
        StorageError: It cannot be read.
    """
    path = folder / SETTINGS_NAME
    if not is_there(path):
        return None
    try:
        settings = msgspec.json.decode(read_small_file(path, MAX_SETTINGS_BYTES), type=Settings)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{path} is damaged: {error}", hint="bring it back from a backup") from error
    if settings.format != FORMAT:
        raise UsageError(f"{path} has format {settings.format}, expected {FORMAT}", hint="update overair and try again")
    return settings


def is_there(path: Path) -> bool:
    """Whether there is a file of this name.

    Raises:
        StorageError: It cannot be told.
    """
    with storage_errors("read", path):
        return path.is_file()


def read_small_file(path: Path, limit: int) -> bytes:
    """Read a whole file of at most `limit` bytes.

    Raises:
        IntegrityError: It is larger.
        StorageError: It cannot be read.
    """
    with storage_errors("read", path), path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise IntegrityError(f"{path} has more than {limit} bytes")
    return data


def _read_publication(path: Path) -> Publication:
    data = read_small_file(path, MAX_MANIFEST_BYTES)
    return Publication(manifest=parse_manifest(data), data=data)
