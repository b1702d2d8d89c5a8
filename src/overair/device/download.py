"""Bring a release to this disk, verified and durable, and stage it."""

import threading
import time
from collections.abc import Callable

from msgspec.structs import replace

from overair.core import commands
from overair.core.plan import Plan, make_plan
from overair.errors import DeferredError
from overair.host import clock, disk
from overair.model.conditions import Conditions
from overair.model.digest import Digest
from overair.model.progress import Progress
from overair.model.release import Artifact, Release
from overair.model.report import Staged
from overair.model.state import Slot
from overair.store.partial import Partial
from overair.store.store import Store
from overair.transport.download import download as fetch
from overair.transport.source import Source

OnProgress = Callable[[Progress], None]


def plan(store: Store, release: Release, conditions: Conditions) -> Plan:
    """What a download of this release will do.

    Raises:
        StorageError: The disk does not say what is free.
    """
    present = {a.sha256: _bytes_present(store, a) for a in release.artifacts}
    return make_plan(release, present, disk.free_bytes(store.layout.root), conditions)


def download(
    store: Store,
    release: Release,
    *,
    http: Source,
    conditions: Conditions,
    app_version: str | None = None,
    on_progress: OnProgress | None = None,
    cancel: threading.Event | None = None,
) -> Staged:
    """Fetch what is missing, and stage the release.

    Every artifact is verified and durable before the state names it, and the state is durable before this returns.

    Raises:
        DeferredError: A condition does not hold.
        NetworkError: The bytes did not come; what came is kept.
        IntegrityError: Other bytes came than the manifest promised.
        StorageError: The disk refused.
        LockedError: Another process is downloading, or changes the store.
    """
    started = time.monotonic()
    with store.download_lock():
        todo = plan(store, release, conditions)
        if todo.blocked_by:
            raise DeferredError(
                f"{release.version} is not downloaded now: {'; '.join(todo.blocked_by)}",
                hint="free some space with: overair device gc, or lower the floor with --min-free",
            )
        meter = _Meter(release, on_progress)
        for step in todo.steps:
            _bring(store, step.artifact, http=http, conditions=conditions, meter=meter, cancel=cancel)
        stage(store, release, app_version=app_version)
        store.forget_partials(keep=frozenset())
    return Staged(release=release, bytes_fetched=todo.bytes_to_fetch, seconds=time.monotonic() - started)


def from_repository(release: Release, base_url: str) -> Release:
    """The release with its blobs at their places in the repository, wherever else the manifest says they are."""

    def place(digest: Digest) -> str:
        return f"{base_url}/blobs/sha256/{digest[:2]}/{digest}"

    artifacts = tuple(
        replace(
            artifact,
            url=place(artifact.sha256),
            mirrors=(),
            chunks=artifact.chunks and replace(artifact.chunks, url=place(artifact.chunks.sha256)),
        )
        for artifact in release.artifacts
    )
    return replace(release, artifacts=artifacts)


def stage(store: Store, release: Release, *, app_version: str | None = None) -> None:
    """Name a release, whose blobs are all here, as the one that the next session starts.

    Raises:
        IllegalEventError: It is current already, or in quarantine.
        StorageError: The disk refused.
        LockedError: Another process changes the store.
    """
    with store.lock():
        store.blobs.install(release)
        proven = any(slot.proven for slot in store.read().slots() if slot.id == release.id)
        at = clock.timestamp(clock.utc_now())
        store.apply(commands.Stage(at=at, slot=Slot(release=release, proven=proven), app_version=app_version))


def _bring(
    store: Store,
    artifact: Artifact,
    *,
    http: Source,
    conditions: Conditions,
    meter: "_Meter",
    cancel: threading.Event | None,
) -> None:
    """Make sure that the blob of an artifact is here."""
    if not store.blobs.has(artifact):
        with Partial.open(store.layout.partial, artifact.sha256, artifact.size_bytes) as partial:
            path = fetch(
                http,
                artifact.url,
                size_bytes=artifact.size_bytes,
                sha256=artifact.sha256,
                partial=partial,
                on_bytes=lambda done: meter.report(artifact, done),
                cancel=cancel,
                max_bytes_per_second=conditions.max_bytes_per_second,
            )
        store.blobs.check_arrived(path, artifact)
        store.blobs.adopt(path, artifact)
    meter.finish(artifact)


def _bytes_present(store: Store, artifact: Artifact) -> int:
    if store.blobs.has(artifact):
        return artifact.size_bytes
    return Partial.bytes_present(store.layout.partial, artifact.sha256)


class _Meter:
    """Turns bytes into progress, at most ten times a second."""

    interval_s = 0.1
    window_s = 5.0

    def __init__(self, release: Release, on_progress: OnProgress | None) -> None:
        self._on_progress = on_progress
        self._total = release.size_bytes
        self._finished = 0
        self._samples: list[tuple[float, int]] = []

    def report(self, artifact: Artifact, done: int) -> None:
        now = time.monotonic()
        if self._on_progress is None or (self._samples and now - self._samples[-1][0] < self.interval_s):
            return
        self._say(artifact, self._finished + done, now)

    def finish(self, artifact: Artifact) -> None:
        self._finished += artifact.size_bytes
        if self._on_progress is not None:
            self._say(artifact, self._finished, time.monotonic())

    def _say(self, artifact: Artifact, done: int, now: float) -> None:
        self._samples = [s for s in self._samples if now - s[0] <= self.window_s] + [(now, done)]
        first_time, first_done = self._samples[0]
        rate = (done - first_done) / (now - first_time) if now > first_time and done > first_done else None
        left = (self._total - done) / rate if rate else None
        if self._on_progress is not None:
            self._on_progress(
                Progress(
                    name=artifact.name,
                    bytes_done=done,
                    bytes_total=self._total,
                    bytes_per_second=rate,
                    seconds_left=left,
                )
            )
