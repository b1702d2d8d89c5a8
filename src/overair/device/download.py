"""Bring a release to this disk, verified and durable, and stage it."""

import threading
import time
from collections.abc import Callable

from msgspec.structs import replace

from overair.core import commands
from overair.core.plan import Plan, make_plan
from overair.device.bring import Porter, turn
from overair.device.gate import Gate
from overair.device.ledger import Ledger
from overair.device.meter import Meter, OnProgress
from overair.device.probing import Prober
from overair.errors import DeferredError, ProbeError
from overair.host import clock, disk
from overair.model.conditions import Conditions
from overair.model.digest import Digest
from overair.model.progress import Activity
from overair.model.release import Artifact, Release
from overair.model.report import Staged
from overair.model.state import ProbeNote, Slot
from overair.store.partial import Partial
from overair.store.store import Store
from overair.transport.pace import Pace
from overair.transport.source import Source


def plan(store: Store, release: Release, conditions: Conditions) -> Plan:
    """What a download of this release will do, and what stands in its way now.

    Raises:
        StorageError: The disk does not say what is free.
    """
    todo = make_plan(
        release,
        {a.sha256: _bytes_present(store, a) for a in release.artifacts},
        disk.free_bytes(store.layout.root),
        conditions,
        reserved={a.sha256: store.bytes_reserved(a) for a in release.artifacts},
    )
    if not todo.bytes_to_fetch:
        return todo
    return replace(todo, blocked_by=(*todo.blocked_by, *Gate(conditions, release.model.url).unmet()))


def download(
    store: Store,
    release: Release,
    *,
    web: Source,
    conditions: Conditions,
    app_version: str | None = None,
    on_progress: OnProgress | None = None,
    cancel: threading.Event | None = None,
    renew: Callable[[], Release | None] | None = None,
    prober: Prober | None = None,
    ledger: Ledger | None = None,
) -> Staged:
    """Fetch what is missing, probe the release, and stage it.

    Every artifact is verified and durable before the state names it, and the state is durable before this returns. A
    condition that stops holding on the way pauses the download; another process that downloads is waited for.

    Args:
        store: The device's disk.
        release: What to bring.
        web: What to fetch it with.
        conditions: What must hold before and while bytes flow.
        app_version: The version of the app.
        on_progress: Called at most ten times a second.
        cancel: Set it to stop.
        renew: Asks the publisher again where the release is.
        prober: Probes the release before it is staged, where it is known which engine it is for.
        ledger: Told of what happened.

    Raises:
        ProbeError: It failed its probe, and is in quarantine now.
        DeferredError: A condition does not hold at the start.
        CancelledError: The caller stopped; what came is kept.
        NetworkError: The bytes did not come; what came is kept.
        IntegrityError: Other bytes came than the manifest promised.
        StorageError: The disk refused.
        LockedError: Another process changes the store all the time.
    """
    started = time.monotonic()
    cancel = cancel or threading.Event()
    meter = Meter(release, on_progress)
    porter = Porter(
        store=store,
        web=web,
        gate=Gate(conditions, release.model.url, path=store.layout.root),
        meter=meter,
        cancel=cancel,
        pace=Pace(conditions.max_bytes_per_second),
        renew=renew,
    )
    with turn(store, cancel, meter.wait):
        if not is_staged(store, release):
            todo = plan(store, release, conditions)
            if todo.blocked_by:
                raise deferred(todo)
            for step in todo.steps:
                porter.bring(step.artifact)
            stage(store, release, app_version=app_version, prober=prober, meter=meter, ledger=ledger)
            store.forget_partials(keep=frozenset())
    return Staged(release=release, bytes_fetched=porter.bytes_received, seconds=time.monotonic() - started)


def is_staged(store: Store, release: Release) -> bool:
    """Whether another process has brought it meanwhile."""
    state = store.read()
    there = any(slot is not None and slot.id == release.id for slot in (state.pending, state.current))
    return there and all(store.blobs.has(artifact) for artifact in release.artifacts)


def deferred(todo: Plan) -> DeferredError:
    """The error that says which conditions do not hold."""
    short = todo.disk_bytes_free < todo.disk_bytes_needed
    room = "free some space with: overair device gc, or lower the floor with --min-free"
    waiting = "run the same command again when that has changed, or leave the waiting to: overair device agent"
    return DeferredError(
        f"{todo.release.version} is not downloaded now: {'; '.join(todo.blocked_by)}", hint=room if short else waiting
    )


def from_repository(release: Release, base_url: str) -> Release:
    """The release with its blobs at their places in the repository, wherever else the manifest says they are."""

    def place(digest: Digest) -> str:
        return f"{base_url}/blobs/sha256/{digest[:2]}/{digest}"

    artifacts = tuple(
        replace(
            artifact,
            url=place(artifact.sha256),
            mirrors=(),
            chunks=artifact.chunks and replace(artifact.chunks, url=place(artifact.chunks.sha256), mirrors=()),
        )
        for artifact in release.artifacts
    )
    return replace(release, artifacts=artifacts)


def stage(
    store: Store,
    release: Release,
    *,
    app_version: str | None = None,
    prober: Prober | None = None,
    meter: Meter | None = None,
    ledger: Ledger | None = None,
) -> None:
    """Name a release, whose blobs are all here, as the one that the next session starts, unless it fails its probe.

    Raises:
        ProbeError: It failed; it is in quarantine and gone from this disk.
        IllegalEventError: It is current already, or in quarantine.
        StorageError: The disk refused.
        LockedError: Another process changes the store.
    """
    ledger = ledger or Ledger(store, ())
    note = _probe(store, release, prober, meter) if prober is not None else None
    with store.lock():
        store.blobs.install(release)
        proven = any(slot.proven for slot in store.read().slots() if slot.id == release.id)
        ledger.apply_locked(
            commands.Stage(
                at=clock.timestamp(clock.utc_now()),
                app_version=app_version,
                slot=Slot(release=release, proven=proven, probe=note),
                engine=prober.version if prober else None,
            )
        )
    ledger.tell()


def _probe(store: Store, release: Release, prober: Prober, meter: Meter | None) -> ProbeNote | None:
    def begins() -> None:
        if meter is not None:
            meter.turn_to(Activity.PROBING)

    try:
        return prober.probe(release, begins)
    except ProbeError:
        with store.lock():
            store.collect_garbage()
        raise


def _bytes_present(store: Store, artifact: Artifact) -> int:
    if store.blobs.has(artifact):
        return artifact.size_bytes
    return Partial.bytes_present(store.layout.partial, artifact.sha256)
