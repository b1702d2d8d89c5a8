"""A session: the time in which a program runs one model, and the only place where a swap happens."""

import contextlib
import logging
import uuid
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from overair.core import commands
from overair.device.repair import report_mended
from overair.engines.base import Engine
from overair.errors import (
    EngineError,
    EngineMissingError,
    IllegalEventError,
    IntegrityError,
    LockedError,
    OverairError,
    StorageError,
)
from overair.host import clock
from overair.model.events import Event, Happening
from overair.model.release import Bundle
from overair.model.state import State
from overair.store.leases import Lease
from overair.store.store import Store

_LOG: Final = logging.getLogger("overair")


class Session:
    """Runs the current release, after swapping in a pending one; a context manager.

    A model on trial that does not load is rolled back and quarantined here, and the session goes on with the previous
    one. With an engine of ours, the first answer that is not empty confirms the release. Without one, load
    `bundle.model` yourself and call `confirm` or `fail`.

    Args:
        store: The device's disk.
        engine: What loads the model, or None when the caller does.
        app_version: The version of the app, noted with a quarantine.
    """

    def __init__(self, store: Store, engine: Engine | None, *, app_version: str | None = None) -> None:
        self.id = uuid.uuid4().hex
        self.happened: tuple[Event, ...] = ()
        self._store = store
        self._engine = engine
        self._app_version = app_version
        self._lease: Lease | None = None
        self._bundle: Bundle | None = None
        self._settled = False

    @property
    def bundle(self) -> Bundle:
        """The files that this session runs; they stay, whatever is staged or swapped meanwhile.

        Raises:
            IllegalEventError: The session has not started, or has ended.
        """
        if self._bundle is None:
            raise IllegalEventError(
                "the session is not open", hint="use it as: with updater.session(engine) as session"
            )
        return self._bundle

    def __enter__(self) -> Self:
        """Swap if there is something to swap in, and load.

        Raises:
            IllegalEventError: Nothing is installed yet.
            EngineError: The model does not load, and there is none to return to.
            IntegrityError: A file of the model is missing.
            LockedError: Another process changed the store all the time.
            StorageError: The disk refused.
        """
        while True:
            self._begin()
            try:
                if self._engine is not None:
                    self._load(self._engine)
            except EngineMissingError:  # says nothing about the model
                self._end()
                raise
            except EngineError as error:
                if not self._failed_to_load(error):
                    raise
            except BaseException:
                self._end()
                raise
            else:
                self._mark(busy=self._engine is None)
                return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Unload and end; an error of the caller's own is no verdict on the model."""
        try:
            if self._engine is not None:
                self._engine.unload()
        finally:
            self._end()

    def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
        """Let the model answer. The first answer that is not empty confirms a release on trial.

        Raises:
            EngineError: The model does not answer; on trial that costs a try.
            IllegalEventError: The session is not open, or the caller runs the engine.
        """
        if self._engine is None or self._bundle is None:
            raise IllegalEventError("this session has no engine", hint="pass one to updater.session(engine)")
        with self._generating():
            text = self._engine.generate(prompt, max_tokens=max_tokens)
        if text.strip() and not self._settled:
            self._settled = self._report(commands.Confirm(at=_now(), session_id=self.id))
            self._collect_garbage()
        return text

    def confirm(self) -> None:
        """Give the verdict "good" on the release that this session runs.

        Raises:
            IllegalEventError: It is not current any more.
            LockedError: Another process changed the store all the time.
            StorageError: The disk refused.
        """
        self._apply(commands.Confirm(at=_now(), session_id=self.id))
        self._settled = True
        self._mark(busy=False)
        self._collect_garbage()

    def fail(self, reason: str) -> None:
        """Give the verdict "bad": the device returns to the previous release, and the next session runs that.

        Raises:
            LockedError: Another process changed the store all the time.
            StorageError: The disk refused.
        """
        self._apply(commands.Fail(at=_now(), session_id=self.id, reason=reason, app_version=self._app_version))
        self._settled = True

    def _begin(self) -> None:
        """Swap, take a try, and make sure that the files are there; all of it durable before the load."""
        self.id, self._settled = uuid.uuid4().hex, False
        try:
            boot, at = clock.boot_id(), _now()
            with self._store.lock():
                # Under the lock: a garbage collection takes a lease that is only half made for that of a dead process.
                self._lease = Lease(self._store.layout.leases, self.id, boot)
                report_mended(self._store)
                deaths = self._store.deaths(self._store.read(), boot, at, self._app_version)
                name = self._engine.version if self._engine else None
                state = self._apply_locked(*deaths, commands.Begin(at=at, session_id=self.id, engine=name))
                self._bundle = self._open(state)
        except StorageError as error:
            self._end()
            self._bundle = self._open_unnoted(error)
        except BaseException:
            self._end()
            raise

    def _open_unnoted(self, error: StorageError) -> Bundle:
        """A proven release goes on working on a disk that cannot be written; one on trial needs its try noted."""
        current = self._store.read().current
        if current is None or not current.proven:
            raise error
        _LOG.warning("nothing is noted of this session: %s", error)
        return self._store.blobs.install(current.release)

    def _open(self, state: State) -> Bundle:
        if state.current is None:
            raise IllegalEventError("nothing is installed yet")
        missing = [a.name for a in state.current.release.artifacts if not self._store.blobs.has(a)]
        if missing:
            raise IntegrityError(
                f"{', '.join(missing)} of {state.current.release.version} is not in {self._store.layout.blobs}",
                hint="fetch it again with: overair device verify --repair",
            )
        return self._store.blobs.install(state.current.release)

    def _load(self, engine: Engine) -> None:
        """Load, and once more if that fails: a disk that refuses once must not condemn a model."""
        try:
            engine.load(self.bundle)
        except EngineMissingError:
            raise
        except EngineError as error:
            _LOG.info("trying once more: %s", error)
            engine.load(self.bundle)

    def _failed_to_load(self, error: EngineError) -> bool:
        """Report a failed load; whether there is another release to run now."""
        failed = self.bundle
        noted = self._report(
            commands.Fail(
                at=_now(),
                session_id=self.id,
                # The folder says nothing about the model, and may say who the user is.
                reason=f"does not load: {error.message.replace(str(failed.model), failed.model.name)}",
                strike=not self._store.read().on_trial,
                app_version=self._app_version,
            )
        )
        if not noted:  # the lease says "busy" for good, and the next session counts that
            self._let_go(keep_note=True)
            return False
        self._end()
        now = self._store.read().current
        if now is None or now.id == failed.id:
            return False
        _LOG.warning("%s does not load and is in quarantine; %s runs again", failed.version, now.release.version)
        return True

    @contextlib.contextmanager
    def _generating(self) -> Iterator[None]:
        self._mark(busy=True)
        try:
            yield
        except EngineMissingError:  # says nothing about the model
            raise
        except EngineError as error:
            reason = f"does not answer: {error.message}"
            self._report(
                commands.Fail(at=_now(), session_id=self.id, reason=reason, strike=True, app_version=self._app_version)
            )
            self._settled = False  # the next answer clears the count again
            raise
        finally:
            self._mark(busy=False)

    def _end(self) -> None:
        """Give the try back, unless it is lost. Where that cannot be noted, the lease goes on saying "idle"."""
        self._mark(busy=False)
        noted = self._report(commands.End(at=_now(), session_id=self.id))
        self._let_go(keep_note=not noted)

    def _let_go(self, *, keep_note: bool) -> None:
        self._bundle = None
        if self._lease is not None:
            self._lease.release(keep_note=keep_note)
            self._lease = None

    def _collect_garbage(self) -> None:
        """Make room, once the confirm of a new release is durable. A download that is under way comes first."""
        if not any(event.what is Happening.CONFIRMED for event in self.happened):
            return
        try:
            with self._store.download_lock(), self._store.lock():
                self._store.collect_garbage()
        except (StorageError, LockedError) as error:
            _LOG.info("not collected: %s", error)

    def _mark(self, *, busy: bool) -> None:
        if self._lease is not None:
            self._lease.set_busy(busy)

    def _report(self, command: commands.Command) -> bool:
        """Tell the state what happened; a disk that refuses must not stop the model from working."""
        try:
            self._apply(command)
        except OverairError as error:
            _LOG.info("not noted: %s", error)
            return False
        return True

    def _apply(self, command: commands.Command) -> None:
        with self._store.lock():
            self._apply_locked(command)

    def _apply_locked(self, *commands: commands.Command) -> State:
        state, events = self._store.apply(*commands)
        self.happened += events
        for event in events:
            level = logging.WARNING if event.what in _BAD else logging.INFO
            _LOG.log(level, "%s %s%s", event.what, event.version, f": {event.reason}" if event.reason else "")
        return state


_BAD: Final = frozenset({Happening.FAILED, Happening.CRASHED, Happening.QUARANTINED, Happening.ROLLED_BACK})


def _now() -> str:
    return clock.timestamp(clock.utc_now())
