"""Find what rotted on the disk, and fetch it again."""

import contextlib
import logging
from typing import Final

from overair.errors import StorageError
from overair.model.release import Artifact, Release
from overair.model.report import Verified
from overair.store.partial import Partial
from overair.store.store import Store
from overair.transport.download import download as fetch
from overair.transport.source import Source

_LOG: Final = logging.getLogger("overair")


def verify(store: Store, http: Source, *, repair: bool) -> Verified:
    """Compare every installed file with its digest; with `repair`, fetch the bad ones again.

    Raises:
        NetworkError: A file could not be fetched.
        IntegrityError: Other bytes came than the release promises.
        StorageError: The disk refused.
        LockedError: Another process is downloading or changes the store.
    """
    sound = 0
    repaired: list[str] = []
    damaged: list[str] = []
    for release in {slot.id: slot.release for slot in store.read().slots()}.values():
        for artifact in release.artifacts:
            wrong = store.blobs.verify(artifact)
            installed = store.blobs.verify_installed(release, artifact) if wrong is None else None
            if wrong is None and installed is None:
                sound += 1
                continue
            if repair and wrong is not None:
                _fetch_again(store, artifact, http)
            if repair:
                _reinstall(store, release)
            (repaired if repair else damaged).append(f"{artifact.name} of {release.version} is {wrong or installed}")
    return Verified(sound=sound, repaired=tuple(repaired), damaged=tuple(damaged))


def report_mended(store: Store) -> None:
    """Repair a damaged copy of the state from the other, and say so. The store's lock must be held.

    Raises:
        StateUnreadableError: No copy can be read.
    """
    with contextlib.suppress(StorageError):
        for wrong in store.mend_state():
            _LOG.warning("a copy of the state was mended from the other: %s", wrong)


def _fetch_again(store: Store, artifact: Artifact, http: Source) -> None:
    """Put a good blob in the place of a bad one."""
    with store.download_lock(), Partial.open(store.layout.partial, artifact.sha256, artifact.size_bytes) as partial:
        path = fetch(http, artifact.url, size_bytes=artifact.size_bytes, sha256=artifact.sha256, partial=partial)
        store.blobs.check_arrived(path, artifact)
        with store.lock():
            store.blobs.adopt(path, artifact)
        partial.discard()  # the journal, which outlives the bytes until they are a blob


def _reinstall(store: Store, release: Release) -> None:
    with store.lock():
        store.blobs.reinstall(release)
        store.refresh_links()
