"""The one publisher of a tree while it changes something, with what a dead one left finished."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from overair.model.manifest import Predecessor, encode_manifest, parse_manifest
from overair.publish import rollout, upload
from overair.publish.key_folder import open_signing
from overair.publish.releases import spelled_out
from overair.publish.rollout import Edit
from overair.publish.signing import Signing
from overair.publish.tree import Publication, Tree
from overair.store.lock import exclusive
from overair.trust.keys import Passphrase, channel_role

LOCK_NAME: Final = ".lock"
LOCK_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLog:
    """A channel as an edit sees it, the newest manifest first, and the exact bytes that the next one follows."""

    channel: str
    signing: Signing
    head: Publication | None
    poll_seconds: int | None
    manifests: rollout.Log

    def encoded(self, edit: Edit) -> bytes | None:
        """The bytes to publish, which devices can read; None if the edit changes nothing."""
        if not edit.changed:
            return None
        manifest = replace(edit.manifest, poll_seconds=self.poll_seconds)
        if self.head is not None:
            predecessor = Predecessor(sha256=self.head.sha256, size_bytes=len(self.head.data))
            manifest = replace(manifest, predecessor=predecessor)
        data = encode_manifest(manifest, over=self.head.document if self.head else None)
        parse_manifest(data)
        return data

    def put(self, data: bytes | None, *, now: datetime) -> None:
        """Publish a manifest, if there is one to publish."""
        if data is not None:
            self.signing.put_manifest(self.channel, data, now=now)


class Writer:
    """Who changes a published tree.

    Args:
        tree: The tree.
        keys: The folder with the keys.
        passphrase: Asked for the passphrase of a key, by its file's name.
    """

    def __init__(self, tree: Tree, keys: Path, passphrase: Passphrase | None) -> None:
        self._tree = tree
        self._keys = keys
        self._passphrase = passphrase

    @contextlib.contextmanager
    def signing(self, *, interrupted: bool = False) -> Iterator[Signing]:
        """Be the only publisher, with the keys and the verified metadata at hand.

        Args:
            interrupted: See `MetadataSet.load`: for exchanging keys, which an earlier try may have begun.

        Raises:
            LockedError: Another publisher is at work.
            UsageError: There are no keys.
            TrustError: What is published was not signed by these keys.
            IntegrityError: Keys or metadata are damaged.
            StorageError: The disk refused.
        """
        with exclusive(self._tree.folder / LOCK_NAME, timeout_s=LOCK_TIMEOUT_S):
            upload.clear_away(self._tree)
            yield open_signing(self._tree, self._keys, self._passphrase, interrupted=interrupted)

    @contextlib.contextmanager
    def log(self, channel: str, *, now: datetime) -> Iterator[ChannelLog]:
        """Be the only publisher, with the keys of a channel at hand and its log read.

        Raises:
            UsageError: There is no such channel, or its keys or the online key are missing.
            LockedError, TrustError, IntegrityError, StorageError: See `signing`.
        """
        with self.signing() as signing:
            signing.head(channel)
            signing.rehearse(channel_role(channel), now=now)
            publications = self._tree.signed(signing.head).log(channel)
            restore(self._tree, signing, channel)
            base_url = self._tree.settings.base_url
            yield ChannelLog(
                channel=channel,
                signing=signing,
                head=publications[0] if publications else None,
                poll_seconds=self._tree.settings.poll_seconds,
                manifests=tuple(
                    spelled_out(publication.manifest, channel=channel, base_url=base_url)
                    for publication in publications
                ),
            )


def restore(tree: Tree, signing: Signing, channel: str) -> None:
    """Make the plain copies and envelopes of a channel what is signed; they lag behind when a publisher died.

    A manifest that was written by hand is not signed for being there: that is for the edit which follows it.

    Raises:
        UsageError: The channel's key is missing.
        IntegrityError: The signed manifest is missing or damaged.
        StorageError: The disk refused.
    """
    head = tree.signed(signing.head).head(channel)
    if head is None:
        return
    if signing.head(channel) is None:
        upload.put_hashed(tree, channel, head.data)
    else:
        signing.put_copies(channel, head.data)
