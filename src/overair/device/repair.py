"""Find what rotted on the disk, and fetch it again."""

import contextlib
import logging
from threading import Event
from typing import Final

from overair.device.bring import fetch_index
from overair.errors import StorageError
from overair.formats.chunks import read_chunk_index
from overair.model.release import Artifact, ChunkIndexRef, Release
from overair.model.report import Verified
from overair.store.partial import Partial
from overair.store.pieces import Pieces
from overair.store.store import Store
from overair.transport.chunked import ChunkedDownload
from overair.transport.download import StreamDownload
from overair.transport.source import Source

_LOG: Final = logging.getLogger("overair")


def verify(store: Store, http: Source, *, repair: bool) -> Verified:
    """Compare every installed file with its digest; with `repair`, fetch the bad ones again, or the bad parts of them.

    Raises:
        NetworkError: A file could not be fetched.
        IntegrityError: Other bytes came than the release promises.
        StorageError: The disk refused.
        LockedError: Another process is downloading or changes the store.
    """
    sound = bytes_fetched = 0
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
                bytes_fetched += _fetch_again(store, artifact, http)
            if repair:
                _reinstall(store, release)
            (repaired if repair else damaged).append(f"{artifact.name} of {release.version} is {wrong or installed}")
    return Verified(sound=sound, repaired=tuple(repaired), damaged=tuple(damaged), bytes_fetched=bytes_fetched)


def report_mended(store: Store) -> None:
    """Repair a damaged copy of the state from the other, and say so. The store's lock must be held.

    Raises:
        StateUnreadableError: No copy can be read.
    """
    with contextlib.suppress(StorageError):
        for wrong in store.mend_state():
            _LOG.warning("a copy of the state was mended from the other: %s", wrong)


def _fetch_again(store: Store, artifact: Artifact, web: Source) -> int:
    """Put a good blob in the place of a bad one; returns how many bytes came over the network."""
    with store.download_lock():
        if artifact.chunks is None:
            return _fetch_all(store, artifact, web)
        return _fetch_bad_chunks(store, artifact, artifact.chunks, web)


def _fetch_all(store: Store, artifact: Artifact, web: Source) -> int:
    with Partial.open(store.layout.partial, artifact.sha256, artifact.size_bytes) as partial:
        download = StreamDownload(
            web,
            urls=(artifact.url, *artifact.mirrors),
            size_bytes=artifact.size_bytes,
            sha256=artifact.sha256,
            partial=partial,
        )
        path = download.run()
        store.blobs.check_arrived(path, artifact)
        with store.lock():
            store.blobs.adopt(path, artifact)
        partial.discard()  # the journal, which outlives the bytes until they are a blob
    return download.bytes_received


def _fetch_bad_chunks(store: Store, artifact: Artifact, chunks: ChunkIndexRef, web: Source) -> int:
    """Take the chunks of the bad blob as if an earlier try had left them: each is verified before it counts."""
    index = fetch_index(web, chunks, cancel=Event())
    digests = read_chunk_index(index, size_bytes=artifact.size_bytes, chunk_bytes=chunks.chunk_bytes)
    with Pieces.open(store.layout.partial, artifact.sha256, artifact.size_bytes, chunks.chunk_bytes) as pieces:
        pieces.take_over(store.layout.blob(artifact.sha256))
        download = ChunkedDownload(web, urls=(artifact.url, *artifact.mirrors), digests=digests, file=pieces)
        path = download.run()
        with store.lock():
            store.blobs.adopt(path, artifact)
        pieces.discard()
    return download.bytes_received


def _reinstall(store: Store, release: Release) -> None:
    with store.lock():
        store.blobs.reinstall(release)
        store.refresh_links()
