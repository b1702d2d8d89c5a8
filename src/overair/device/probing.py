"""Probe a release that is on this disk, before it may become current."""

import contextlib
import functools
import logging
import threading
from collections.abc import Callable
from typing import Final

import msgspec

from overair.core import commands
from overair.core.fit import short_of_memory
from overair.device.ledger import Ledger
from overair.device.rotten import drop_rotten, what_rotted
from overair.engines import base
from overair.errors import EngineMissingError, IntegrityError, ProbeError, UsageError
from overair.host import clock
from overair.host.memory import memory
from overair.model.events import Figures
from overair.model.probe import ProbeFigures, ProbeLimits
from overair.model.release import Release
from overair.model.state import ProbeNote, Slot, State
from overair.store.config import Config
from overair.store.store import Store

CONTEXT_TOKENS: Final = 2048

_ROTTEN_HINT: Final = "update again, or fetch it again with: overair device verify --repair"
_LOG: Final = logging.getLogger("overair")


def probing_engine(config: Config, state: State) -> str | None:
    """The name of the engine that this device runs models with, if it was told or a session has shown it."""
    return config.engine or (state.engine.partition(" ")[0] if state.engine else None)


def engine_version(name: str | None) -> str | None:
    """An engine's name and version, or None where it is not installed here."""
    if name is None:
        return None
    with contextlib.suppress(EngineMissingError, UsageError):
        return base.create(name).version
    return None


class Prober:
    """Probes releases with one engine, each once.

    Args:
        store: The device's disk.
        engine: The engine's name, as `overair.engines.base.create` knows it.
        app_version: The version of the app, noted with a quarantine.
        ledger: Told of the verdict.
        context_tokens: How many tokens a prompt and its answer may have together.
        cancel: Ends a probe when it is set.
    """

    def __init__(
        self,
        store: Store,
        engine: str,
        *,
        app_version: str | None,
        ledger: Ledger,
        context_tokens: int = CONTEXT_TOKENS,
        cancel: threading.Event | None = None,
    ) -> None:
        self._store = store
        self._engine = engine
        self._app_version = app_version
        self._ledger = ledger
        self._context_tokens = context_tokens
        self._cancel = cancel

    @functools.cached_property
    def version(self) -> str | None:
        """The engine's name and version, or None where it is not installed."""
        return engine_version(self._engine)

    def probe(self, release: Release, on_begin: Callable[[], object] = lambda: None) -> ProbeNote | None:
        """Load a release in a process of its own, and ask it; None where nothing can be learned about it here.

        A release that was confirmed on this device, or has passed with this engine, is not probed again.

        Args:
            release: What to probe; its blobs are here.
            on_begin: Called when it begins.

        Raises:
            ProbeError: It failed, and is in quarantine now.
            IntegrityError: Its files have rotted, which says nothing about it.
            CancelledError: The caller stopped.
            StorageError: The disk refused.
        """
        state = self._store.read()
        known = next((slot for slot in state.slots() if slot.id == release.id), None)
        if known is not None and (known.proven or (known.probe is not None and known.probe.engine == self.version)):
            return known.probe
        obstacle = _obstacle(release, self.version)
        if obstacle:
            _LOG.warning("%s is not probed: %s", release.version, obstacle)
            return None
        on_begin()
        return self._ask(release, state, self.version or self._engine)

    def probe_pending(self) -> None:
        """Probe what the next session would swap in; one that fails is gone from there afterwards.

        Raises:
            StorageError: The disk refused.
        """
        pending = self._store.read().pending
        if pending is None:
            return
        try:
            note = self.probe(pending.release)
        except (ProbeError, IntegrityError) as error:
            _LOG.warning("%s", error.message)
            return
        if note is not None and note != pending.probe:
            self._ledger.apply(
                commands.Probed(
                    at=note.at,
                    app_version=self._app_version,
                    release_id=pending.id,
                    engine=note.engine,
                    figures=note.figures,
                )
            )

    def _ask(self, release: Release, state: State, version: str) -> ProbeNote | None:
        """Probe; `version` is what a quarantine binds to: an engine that crashes does not live to tell its own."""
        from overair.engines.probe import probe

        with self._store.lock():
            bundle = self._store.blobs.install(release)
        try:
            result = probe(
                bundle,
                engine=self._engine,
                policy=release.probe,
                baseline_tokens_per_second=baseline(state, release),
                context_tokens=self._context_tokens,
                limits=ProbeLimits(memory_bytes=found.total_bytes if (found := memory()) else None),
                cancel=self._cancel,
            )
        except EngineMissingError as error:
            _LOG.warning("%s is not probed: %s", release.version, error.message)
            return None
        at, figures = clock.timestamp(clock.utc_now()), _named(result.figures)
        if result.passed:
            return ProbeNote(at=at, engine=version, figures=figures)
        wrong = what_rotted(self._store, release)
        if wrong:
            drop_rotten(self._store, release)
            raise IntegrityError(f"{release.version} cannot be probed: {wrong}", hint=_ROTTEN_HINT)
        self._ledger.apply(
            commands.Refuse(
                at=at,
                app_version=self._app_version,
                slot=Slot(release=release),
                reason=result.reason,
                engine=version,
                figures=figures,
            )
        )
        raise ProbeError(
            f"{release.version} failed its probe with {version}: {result.reason}",
            hint="this device keeps the model that it has; a newer release will be tried",
        )


def _obstacle(release: Release, engine: str | None) -> str:
    if engine is None:
        return "the engine that this device was told to use is not installed"
    found = memory()
    return short_of_memory(release.requires, found.available_bytes if found else None)


def baseline(state: State, release: Release) -> float | None:
    """What the current model brought in its own probe, in tokens a second."""
    current = state.current
    if current is None or current.probe is None or current.id == release.id:
        return None
    return current.probe.figures.get("tokens_per_second")


def _named(figures: ProbeFigures) -> Figures:
    return {name: float(value) for name, value in msgspec.to_builtins(figures).items() if value is not None}
