"""The device's side of Overair as one object."""

import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from overair._version import __version__
from overair.core import commands
from overair.core.plan import Plan
from overair.device.background import Job, find, start
from overair.device.check import check, note_staged, noting_failure
from overair.device.download import download, from_repository, plan
from overair.device.external import Swapped, confirm, swap
from overair.device.ledger import Ledger
from overair.device.manifest import base_url, succession
from overair.device.meter import OnProgress
from overair.device.probing import CONTEXT_TOKENS, Prober, probing_engine
from overair.device.recover import Recovered, recover
from overair.device.repair import verify
from overair.device.reporters import Reporter
from overair.device.session import GENERATE_TIMEOUT_S, LOAD_TIMEOUT_S, Session
from overair.device.settings import settle
from overair.engines.base import Engine, create, installed
from overair.errors import DeferredError
from overair.host import clock
from overair.model.conditions import Conditions
from overair.model.events import Event
from overair.model.offer import Answer, Deferred, Offer, Reason, UpToDate
from overair.model.release import Release
from overair.model.report import Staged, Status, Verified, slot_status, trial_status
from overair.store import history
from overair.store.last_check import load_last_check
from overair.store.store import Store
from overair.transport.folder import Folder
from overair.transport.http import HTTP
from overair.transport.source import Source


class Updater:
    """Keeps one model on one device current.

    Args:
        store: The folder where models and state are kept; it is made when it is not there.
        url: Where the manifest is. What is not given is what the device was told before.
        tier: The size class that this device runs.
        channel: The stream of releases that it follows; `stable` unless told otherwise.
        app_version: The version of the app around the model, for `min_app_version`.
        root: The publisher's `root.json`, or its path: what this device trusts from now on.
        insecure: Take manifests without a signature; not for a device that trusts a root.
        engine: The engine that the app runs; each new release is probed with it before it can become current. Without
            it, the engine of the last session is taken.
        ca_file: Certificate authorities to trust instead of the platform's, as PEM.
        reporters: Who is told of every transition.

    Raises:
        UsageError: The device was never set up and `url` or `tier` is missing, or a value is not of its type.
        StateUnreadableError: The settings cannot be read.
        StorageError: The folder cannot be made or written.
        LockedError: The settings change, and another process held the store all the time.
    """

    def __init__(
        self,
        store: str | Path,
        *,
        url: str | None = None,
        tier: str | None = None,
        channel: str | None = None,
        app_version: str | None = None,
        root: bytes | str | Path | None = None,
        insecure: bool | None = None,
        engine: str | None = None,
        ca_file: str | Path | None = None,
        reporters: Sequence[Reporter] = (),
    ) -> None:
        self._store = Store(Path(store).absolute())
        self._reporters = tuple(reporters)
        given = {
            "url": url,
            "tier": tier,
            "channel": channel,
            "app_version": app_version,
            "insecure": insecure,
            "engine": engine,
            "ca_file": None if ca_file is None else str(Path(ca_file).absolute()),
        }
        self.config = settle(self._store, {k: v for k, v in given.items() if v is not None}, root)
        trusted = self.config.ca_file
        self._http = HTTP(user_agent=f"overair/{__version__}", ca_file=None if trusted is None else Path(trusted))

    def _source(self, folder: str | Path | None) -> Source:
        return self._http if folder is None else Folder(Path(folder), base_url(self.config))

    @property
    def path(self) -> Path:
        """The store's folder."""
        return self._store.layout.root

    def check(self, *, folder: str | Path | None = None) -> Answer:
        """Ask the publisher which release this device should run.

        Args:
            folder: A copy of the repository to ask instead of the network; it takes the same checks.

        Raises:
            NetworkError: The manifest did not come.
            ManifestError: It is not one, or that of another channel.
            TrustError: It is older than one that this device acted on.
        """
        return check(self._store, self.config, self._source(folder))

    def plan(self, offer: Offer, *, conditions: Conditions | None = None) -> Plan:
        """What a download of the offer will do, and what stands in its way.

        Raises:
            StorageError: The disk does not say what is free.
        """
        return plan(self._store, offer.release, conditions or Conditions())

    def download(
        self,
        offer: Offer,
        *,
        conditions: Conditions | None = None,
        on_progress: OnProgress | None = None,
        cancel: threading.Event | None = None,
        folder: str | Path | None = None,
    ) -> Staged:
        """Fetch the offered release and stage it; the next session starts it.

        Args:
            offer: What `check` returned.
            conditions: What must hold before the download starts and while bytes flow.
            on_progress: Called at most ten times a second.
            cancel: Set it to stop; what came is kept.
            folder: A copy of the repository to take the files from.

        Raises:
            DeferredError: A condition does not hold at the start; one that stops holding later pauses the download.
            NetworkError: The bytes did not come; what came is kept. `CancelledError` when `cancel` was set.
            IntegrityError: Other bytes came than the manifest promised.
            StorageError: The disk refused.
            LockedError: Another process changed the store all the time.
        """
        release, wanted = offer.release, conditions or Conditions()
        if folder is not None:  # no byte of it comes over a network
            release, wanted = from_repository(release, base_url(self.config)), replace(wanted, unmetered=False)
        with noting_failure(self._store):
            staged = download(
                self._store,
                release,
                web=self._source(folder),
                conditions=wanted,
                app_version=self.config.app_version,
                on_progress=on_progress,
                cancel=cancel,
                renew=self._renew if folder is None else None,
                prober=self._prober(probing_engine(self.config, self._store.read()), cancel),
                ledger=Ledger(self._store, self._reporters),
            )
        note_staged(self._store, release)
        return staged

    def _prober(
        self, engine: str | None, cancel: threading.Event | None = None, *, context_tokens: int = CONTEXT_TOKENS
    ) -> Prober | None:
        """What probes releases, if it is known for which engine."""
        if engine is None:
            return None
        ledger = Ledger(self._store, self._reporters)
        return Prober(
            self._store,
            engine,
            app_version=self.config.app_version,
            ledger=ledger,
            context_tokens=context_tokens,
            cancel=cancel,
        )

    def _renew(self) -> Release | None:
        """Where the publisher says now that the offered release is."""
        answer = self.check()
        return answer.release if isinstance(answer, Offer) else None

    def update(
        self,
        *,
        conditions: Conditions | None = None,
        on_progress: OnProgress | None = None,
        cancel: threading.Event | None = None,
        folder: str | Path | None = None,
    ) -> Staged | UpToDate | Deferred:
        """Check, and download what is offered, if the conditions hold.

        Raises:
            OverairError: See `check` and `download`.
        """
        answer = self.check(folder=folder)
        if not isinstance(answer, Offer):
            return answer
        try:
            return self.download(answer, conditions=conditions, on_progress=on_progress, cancel=cancel, folder=folder)
        except DeferredError as error:
            return Deferred(reason=Reason.CONDITIONS, explanation=error.message, hint=error.hint)

    def update_in_background(self, *, conditions: Conditions | None = None, folder: str | Path | None = None) -> Job:
        """Update in another process, which goes on when this one ends; the one that runs already is found.

        Args:
            conditions: What must hold before and while bytes flow; the job waits until it does.
            folder: A copy of the repository to take the files from.

        Raises:
            UsageError: This program has no Python that could run it.
            StorageError: The disk refused.
        """
        return start(self.path, conditions=conditions, folder=None if folder is None else Path(folder).absolute())

    def job(self) -> Job | None:
        """The update that runs in the background, or the last that did; None when there was never one.

        Raises:
            StorageError: The disk refused.
        """
        return find(self.path)

    def session(
        self,
        engine: Engine | str | None = None,
        *,
        load_timeout_s: float | None = LOAD_TIMEOUT_S,
        generate_timeout_s: float | None = GENERATE_TIMEOUT_S,
    ) -> Session:
        """A session with the current release, a context manager.

        A new release that has not been probed yet is probed first, where the engine is one that a probe can make anew.

        Args:
            engine: An engine, or the name of one of ours, or None to load `session.bundle` yourself.
            load_timeout_s: How long a load may take before it costs a try, in seconds; None: as long as it takes.
            generate_timeout_s: The same for an answer.

        Raises:
            EngineMissingError: The named engine is not installed.
        """
        made = create(engine) if isinstance(engine, str) else engine
        name = engine if isinstance(engine, str) else made.name if made else None
        known = name is not None and (name in installed() or ":" in name)
        tokens = getattr(made, "context_tokens", CONTEXT_TOKENS)
        prober = self._prober(name, context_tokens=tokens) if known else None
        return Session(
            self._store,
            made,
            app_version=self.config.app_version,
            load_timeout_s=load_timeout_s,
            generate_timeout_s=generate_timeout_s,
            reporters=self._reporters,
            prepare=prober.probe_pending if prober else None,
        )

    def swap(self) -> Swapped:
        """Make pending current for an engine that another program runs, and say what to open.

        Raises:
            IllegalEventError: Nothing is installed yet.
            LockedError: Another process changed the store all the time.
            StorageError: The disk refused, or a file is missing.
        """
        return swap(self._store, app_version=self.config.app_version, reporters=self._reporters)

    def confirm(self) -> None:
        """Confirm the release that the last `swap` handed out.

        Raises:
            IllegalEventError: It is not current any more, or there was no swap.
        """
        confirm(self._store, app_version=self.config.app_version, reporters=self._reporters)

    def rollback(self, *, reason: str = "rolled back by hand") -> Status:
        """Return to the previous release, and quarantine the current one.

        Raises:
            IllegalEventError: There is no previous release.
            LockedError: Another process changed the store all the time.
            StorageError: The disk refused.
        """
        at = clock.timestamp(clock.utc_now())
        ledger = Ledger(self._store, self._reporters)
        with self._store.lock():
            before = self._store.read()
            deaths = self._store.deaths(before, clock.boot_id(), at, self.config.app_version)
            after = ledger.apply_locked(*deaths)
            if after.current == before.current:  # else a crash that nobody had noticed has rolled it back already
                ledger.apply_locked(commands.RollBack(at=at, reason=reason, app_version=self.config.app_version))
        ledger.tell()
        return self.status()

    def status(self) -> Status:
        """What the device knows about itself. Needs no lock.

        Raises:
            StateUnreadableError: The state cannot be read.
        """
        state = self._store.read()
        return Status(
            tier=self.config.tier,
            channel=self.config.channel,
            app_version=self.config.app_version,
            current=slot_status(state.current),
            previous=slot_status(state.previous),
            pending=slot_status(state.pending),
            trial=trial_status(state),
            quarantine=state.quarantine,
            sequence=max(
                (n for name, n in state.sequences.items() if name.startswith(succession(self.config))), default=0
            ),
            sessions=len(state.sessions),
            last_check=load_last_check(self._store.layout.last_check),
        )

    def history(self) -> list[Event]:
        """What happened on this device, the oldest first.

        Raises:
            StorageError: The disk refused.
        """
        return history.read(self._store.layout.history)

    def verify(self, *, repair: bool = False, folder: str | Path | None = None) -> Verified:
        """Read every installed file and compare it with its digest; with `repair`, fetch the bad ones again.

        Args:
            repair: Put good files in the place of bad ones.
            folder: A copy of the repository to fetch them from instead of the network.

        Raises:
            NetworkError: A file could not be fetched.
            StorageError: The disk refused.
            LockedError: Another process is downloading or changes the store.
        """
        return verify(self._store, self._source(folder), repair=repair)

    def recover(self) -> Recovered:
        """Rebuild a state that cannot be read, from the models that are here and the history.

        Raises:
            UsageError: The state can be read: there is nothing to recover.
            StorageError: The disk refused.
            LockedError: Another process holds the store.
        """
        return recover(self._store)

    def collect_garbage(self) -> int:
        """Remove the files that no slot and no session needs; returns the bytes freed.

        Raises:
            LockedError: Another process is downloading, or changed the store all the time.
            StorageError: The disk refused.
        """
        with self._store.download_lock(), self._store.lock():
            return self._store.collect_garbage()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """Use it as a context manager to close the connections at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()
