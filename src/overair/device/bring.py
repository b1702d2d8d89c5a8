"""Bring the blobs of a release to this disk: over one stream, or in verified chunks over several."""

import contextlib
import hashlib
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Final, Protocol

from overair.core import retry
from overair.core.sources import LOST_STATUSES
from overair.device.gate import Gate
from overair.device.meter import Meter
from overair.errors import CancelledError, HTTPStatusError, IntegrityError, LockedError, NetworkError
from overair.formats.chunks import MAX_INDEX_BYTES, read_chunk_index
from overair.model.digest import Digest
from overair.model.release import Artifact, ChunkIndexRef, Release
from overair.store.partial import Partial
from overair.store.pieces import Pieces
from overair.store.store import Store
from overair.transport.chunked import ChunkedDownload
from overair.transport.download import StreamDownload
from overair.transport.failures import AnswerError, shown
from overair.transport.http import Document
from overair.transport.pace import Pace
from overair.transport.source import Source

_LOG: Final = logging.getLogger("overair")
_TURN_POLL_S: Final = 0.25


class Engine(Protocol):
    """A download that can be stopped and run again: `ChunkedDownload` or `StreamDownload`."""

    @property
    def bytes_received(self) -> int:
        """How many bytes came over the network so far."""

    def run(self, cancel: Event | None = None) -> Path:
        """Fetch what is missing; see there."""


@dataclass(kw_only=True)
class Porter:
    """Brings blobs here, one after the other, while the conditions hold.

    Args:
        store: Where to.
        web: What to fetch with.
        gate: Says when bytes may flow.
        meter: Told how far it is.
        cancel: Set by the caller to stop.
        pace: How fast it may go.
        renew: Asks the publisher again where the release is; None when it is offered no more.
    """

    store: Store
    web: Source
    gate: Gate
    meter: Meter
    cancel: Event
    pace: Pace
    renew: Callable[[], Release | None] | None = None
    bytes_received: int = 0
    _renewed_at: dict[Digest, int] = field(default_factory=dict)

    def bring(self, artifact: Artifact) -> None:
        """Make sure that the blob of an artifact is here, verified and durable.

        Raises:
            CancelledError: The caller stopped; what came is kept.
            NetworkError: The bytes did not come; what came is kept.
            IntegrityError: Other bytes came than the manifest promised.
            StorageError: The disk refused.
        """
        wanted = artifact
        while not self.store.blobs.has(wanted):
            try:
                self._fetch(wanted)
            except HTTPStatusError as error:
                wanted = self._renewed(wanted, error)
        self.meter.finish(artifact)

    def _fetch(self, artifact: Artifact) -> None:
        if artifact.chunks is None:
            self._as_stream(artifact)
        else:
            self._in_chunks(artifact, artifact.chunks)

    def _as_stream(self, artifact: Artifact) -> None:
        with Partial.open(self.store.layout.partial, artifact.sha256, artifact.size_bytes) as partial:
            path = self._run(
                StreamDownload(
                    self.web,
                    urls=(artifact.url, *artifact.mirrors),
                    size_bytes=artifact.size_bytes,
                    sha256=artifact.sha256,
                    partial=partial,
                    pace=self.pace,
                    on_bytes=lambda done: self.meter.report(artifact, done),
                )
            )
        self.store.blobs.check_arrived(path, artifact)
        self.store.blobs.adopt(path, artifact)

    def _in_chunks(self, artifact: Artifact, chunks: ChunkIndexRef) -> None:
        index = fetch_index(self.web, chunks, cancel=self.cancel)
        digests = read_chunk_index(index, size_bytes=artifact.size_bytes, chunk_bytes=chunks.chunk_bytes)
        folder = self.store.layout.partial
        with Pieces.open(folder, artifact.sha256, artifact.size_bytes, chunks.chunk_bytes) as pieces:
            path = self._run(
                ChunkedDownload(
                    self.web,
                    urls=(artifact.url, *artifact.mirrors),
                    digests=digests,
                    file=pieces,
                    pace=self.pace,
                    on_bytes=lambda done: self.meter.report(artifact, done),
                )
            )
        self.store.blobs.adopt(path, artifact)

    def _run(self, engine: Engine) -> Path:
        """Let it run while the conditions hold; it stops when one does not, keeps its bytes, and goes on after that."""
        try:
            while True:
                self.gate.wait(self.cancel, self.meter.wait)
                with self.gate.watching(self.cancel) as stop:
                    try:
                        return engine.run(stop)
                    except CancelledError:
                        if self.cancel.is_set():
                            raise
                        _LOG.info("the download waits: %s", "; ".join(self.gate.waiting_for))
        finally:
            self.bytes_received += engine.bytes_received

    def _renewed(self, artifact: Artifact, error: HTTPStatusError) -> Artifact:
        """Where the publisher says now that it is: the address may have been one that expires."""
        here = Partial.bytes_present(self.store.layout.partial, artifact.sha256)
        came_since = here > self._renewed_at.get(artifact.sha256, -1)
        if error.status not in LOST_STATUSES or self.renew is None or not came_since:
            raise error
        self._renewed_at[artifact.sha256] = here
        release = self.renew()
        fresh = next((a for a in release.artifacts if a.sha256 == artifact.sha256), None) if release else None
        if fresh is None or _places(fresh) == _places(artifact):
            raise error
        _LOG.info("%s; the manifest names another address", error.message)
        return fresh


def fetch_index(web: Source, chunks: ChunkIndexRef, *, cancel: Event) -> bytes:
    """The chunk index of an artifact, verified.

    Raises:
        NetworkError: It did not come in spite of several tries.
        IntegrityError: It is not the one that the manifest names.
    """
    urls = (chunks.url, *chunks.mirrors)
    failures = 0
    while True:
        url = urls[failures % len(urls)]
        try:
            return _index_from(web, url, chunks)
        except (NetworkError, IntegrityError) as error:
            failures += 1
            elsewhere = failures < len(urls)
            pause_s = retry.pause_s(failures, random.random(), retry_after_s=_asked_to_wait(error))  # noqa: S311 - jitter
            if cancel.is_set() or (not elsewhere and (pause_s is None or not retry.worth_retrying(error))):
                raise
            if not elsewhere and pause_s and cancel.wait(pause_s):
                raise CancelledError(f"stopped fetching {shown(url)}") from error


def _index_from(web: Source, url: str, chunks: ChunkIndexRef) -> bytes:
    document = web.get(url, max_bytes=min(chunks.size_bytes, MAX_INDEX_BYTES))
    data = document.data if isinstance(document, Document) else b""
    if hashlib.sha256(data).hexdigest() != chunks.sha256:
        raise IntegrityError(f"{shown(url)} is not the chunk index that was promised")
    return data


def _asked_to_wait(error: Exception) -> float | None:
    return error.retry_after_s if isinstance(error, AnswerError) else None


def _places(artifact: Artifact) -> tuple[str, ...]:
    index = artifact.chunks and artifact.chunks.url
    return (artifact.url, *artifact.mirrors, index or "")


@contextlib.contextmanager
def turn(store: Store, cancel: Event, on_wait: Callable[[tuple[str, ...]], object]) -> Iterator[None]:
    """Be the only one who downloads into this store; wait for another process that does.

    Raises:
        CancelledError: The caller stopped.
        StorageError: The disk refused.
    """
    with contextlib.ExitStack() as stack:
        said = ""
        while True:
            try:
                stack.enter_context(store.download_lock())
                break
            except LockedError as error:
                if error.message != said:
                    said = error.message
                    on_wait((f"another download to end: {said}",))
                if cancel.wait(_TURN_POLL_S):
                    raise CancelledError("stopped while another process was downloading") from error
        yield
