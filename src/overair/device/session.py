"""A session: the time in which a program runs one model, and the only place where a swap happens."""

import contextlib
import functools
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Final, Self, TypedDict

from overair.core import commands
from overair.core.fit import short_of_memory
from overair.device.ledger import Ledger
from overair.device.repair import report_mended
from overair.device.reporters import Reporter
from overair.device.rotten import drop_rotten, what_rotted
from overair.device.watch import Operation, Watch
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
from overair.host.memory import memory
from overair.model.events import Cause, Event, Happening
from overair.model.release import Bundle, Release
from overair.model.state import State
from overair.store.leases import Lease
from overair.store.store import Store

LOAD_TIMEOUT_S: Final = 600.0
GENERATE_TIMEOUT_S: Final = 600.0
# One character may take several tokens: an answer of fewer may be empty and yet not without tokens.
MIN_TOKENS_OF_AN_ANSWER: Final = 8
MAX_REASON_CHARACTERS: Final = 300

_REPAIR_HINT: Final = "fetch it again with: overair device verify --repair"
_LOG: Final = logging.getLogger("overair")


class _Facts(TypedDict):
    at: str
    app_version: str | None


class Session:
    """Runs the current release, after swapping in a pending one; a context manager.

    A model on trial that does not load is rolled back and quarantined here, and the session goes on with the previous
    one. With an engine of ours, the first answer that is not empty confirms the release, and on trial a failed, late or
    empty one costs a try. Without one, load `bundle.model` yourself, wrap each generation in `observe`, and call
    `confirm` or `fail`.

    Args:
        store: The device's disk.
        engine: What loads the model, or None when the caller does.
        app_version: The version of the app, noted with a quarantine.
        load_timeout_s: How long a load may take before it costs a try, in seconds, or None for as long as it takes.
        generate_timeout_s: The same for an answer.
        reporters: Who is told of every transition.
        prepare: Called before anything else; probes the release that this session would swap in.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine | None,
        *,
        app_version: str | None = None,
        load_timeout_s: float | None = LOAD_TIMEOUT_S,
        generate_timeout_s: float | None = GENERATE_TIMEOUT_S,
        reporters: Sequence[Reporter] = (),
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self.id = uuid.uuid4().hex
        self._prepare = prepare
        self._store = store
        self._engine = engine
        self._app_version = app_version
        self._load_timeout_s = load_timeout_s
        self._generate_timeout_s = generate_timeout_s
        self._ledger = Ledger(store, reporters)
        self._lease: Lease | None = None
        self._watch = Watch(None)
        self._release: Release | None = None
        self._bundle: Bundle | None = None
        self._loading = Operation()
        self._settled = False
        self._clear = False

    @property
    def happened(self) -> tuple[Event, ...]:
        """What became of releases in this session, so far."""
        return self._ledger.happened

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
        if self._prepare is not None:
            self._prepare()
        while True:
            self._begin()
            try:
                if self._engine is not None:
                    self._load(self._engine)
            except EngineMissingError:  # says nothing about the model
                self._end()
                raise
            except EngineError as error:
                verdict = self._failed_to_load(error)
                if verdict is error:
                    raise
                if verdict is not None:
                    raise verdict from error
            except BaseException:
                self._end()
                raise
            else:
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
        with self._generating() as operation:
            text = self._engine.generate(prompt, max_tokens=max_tokens)
        if operation.late:
            _LOG.warning("an answer of %s came too late to speak for it", self._bundle.version)
        elif text.strip():
            self._answered()
        elif not text and prompt.strip() and max_tokens >= MIN_TOKENS_OF_AN_ANSWER and self._is_on_trial():
            self._strike(Cause.EMPTY_ANSWER, "answers with nothing")
        return text

    @contextlib.contextmanager
    def observe(self, *, timeout_s: float | None = None) -> Iterator[None]:
        """Wrap a generation of an engine of your own, so that a crash, a hang or an exception in it counts.

        An exception that leaves the block costs a try; `KeyboardInterrupt`, `SystemExit` and other ways to stop do not.
        A block that ends well clears the count, and confirms nothing: what came out is yours to judge. Once a session
        has observed, its process may die outside of the blocks without a strike.

        Args:
            timeout_s: How long the block may take before it costs a try, in seconds.

        Raises:
            IllegalEventError: The session is not open.
        """
        _ = self.bundle
        late = functools.partial(self._strike, Cause.TIMEOUT, f"did not answer within {timeout_s or 0:g} s")
        with self._watch.operation(timeout_s, late) as operation:
            try:
                yield
            except Exception as error:
                if not operation.late:
                    self._strike(Cause.OBSERVED, f"{type(error).__name__}: {error}")
                self._watch.rest()
                raise
        if not operation.late and not self._clear:
            self._clear = self._ledger.report(commands.Complete(**self._facts(), session_id=self.id))

    def confirm(self) -> None:
        """Give the verdict "good" on the release that this session runs.

        Raises:
            IllegalEventError: It is not current any more.
            LockedError: Another process changed the store all the time.
            StorageError: The disk refused.
        """
        self._ledger.apply(commands.Confirm(**self._facts(), session_id=self.id))
        self._settled = True
        self._watch.rest()
        self._collect_garbage()

    def fail(self, reason: str) -> None:
        """Give the verdict "bad": the device returns to the previous release, and the next session runs that.

        Raises:
            LockedError: Another process changed the store all the time.
            StorageError: The disk refused.
        """
        self._ledger.apply(commands.Fail(**self._facts(), session_id=self.id, reason=reason[:MAX_REASON_CHARACTERS]))
        self._settled = True

    def _begin(self) -> None:
        """Swap, take a try, and make sure that the files are there; all of it durable before the load."""
        self.id, self._settled, self._clear = uuid.uuid4().hex, False, False
        try:
            boot = clock.boot_id()
            with self._store.lock():
                # Under the lock: a garbage collection takes a lease that is only half made for that of a dead process.
                self._lease = Lease(self._store.layout.leases, self.id, boot)
                self._watch = Watch(self._lease)
                report_mended(self._store)
                deaths = self._store.deaths(self._store.read(), boot, _now(), self._app_version)
                name = self._engine.version if self._engine else None
                state = self._ledger.apply_locked(
                    *deaths, commands.Begin(**self._facts(), session_id=self.id, engine=name)
                )
                self._bundle = self._open(state)
        except StorageError as error:
            self._end()
            self._bundle = self._open_unnoted(error)
        except BaseException:
            self._end()
            raise
        finally:
            self._ledger.tell()

    def _open_unnoted(self, error: StorageError) -> Bundle:
        """A proven release goes on working on a disk that cannot be written; one on trial needs its try noted."""
        current = self._store.read().current
        if current is None or not current.proven:
            raise error
        _LOG.warning("nothing is noted of this session: %s", error)
        self._release = current.release
        return self._store.blobs.install(current.release)

    def _open(self, state: State) -> Bundle:
        if state.current is None:
            raise IllegalEventError("nothing is installed yet")
        self._release = state.current.release
        missing = [a.name for a in state.current.release.artifacts if not self._store.blobs.has(a)]
        if missing:
            raise IntegrityError(
                f"{', '.join(missing)} of {state.current.release.version} is not in {self._store.layout.blobs}",
                hint=_REPAIR_HINT,
            )
        return self._store.blobs.install(state.current.release)

    def _load(self, engine: Engine) -> None:
        """Load, and once more if that fails: a disk that refuses once must not condemn a model."""
        limit = self._load_timeout_s
        late = functools.partial(self._strike, Cause.TIMEOUT, f"did not load within {limit or 0:g} s")
        _warn_of_memory(self._release)
        with self._watch.operation(limit, late) as self._loading:
            try:
                engine.load(self.bundle)
            except EngineMissingError:
                raise
            except EngineError as error:
                _LOG.info("trying once more: %s", error)
                engine.load(self.bundle)

    def _failed_to_load(self, error: EngineError) -> OverairError | None:
        """Report a failed load; what to raise, or None when there is another release to run now."""
        failed = self.bundle
        release, wrong = self._release, what_rotted(self._store, self._release)
        # The folder says nothing about the model, and may say who the user is.
        reason = f"does not load: {error.message.replace(str(failed.model.parent) + os.sep, '')}"
        fail = commands.Fail(
            **self._facts(),
            session_id=self.id,
            reason=f"{failed.version} has rotted: {wrong}" if wrong else reason,
            cause=Cause.DAMAGE if wrong else Cause.LOAD,
            strike=bool(wrong) or not self._store.read().on_trial,
            blameless=bool(wrong),
        )
        verdict = IntegrityError(f"{failed.version} does not load: {wrong}", hint=_REPAIR_HINT) if wrong else error
        has_paid = self._loading.late and fail.strike
        if not has_paid and not self._ledger.report(
            fail
        ):  # the lease says "busy" for good, and the next session counts that
            self._let_go(keep_note=True)
            return verdict
        self._end()
        now = self._store.read().current
        if now is None or now.id == failed.id:
            return verdict
        if wrong and release is not None:
            drop_rotten(self._store, release)
        _LOG.warning(
            "%s does not load%s; %s runs again", failed.version, f": {wrong}" if wrong else "", now.release.version
        )
        return None

    @contextlib.contextmanager
    def _generating(self) -> Iterator[Operation]:
        limit = self._generate_timeout_s
        late = functools.partial(self._strike, Cause.TIMEOUT, f"did not answer within {limit or 0:g} s")
        with self._watch.operation(limit, late) as operation:
            try:
                yield operation
            except EngineMissingError:  # says nothing about the model
                raise
            except EngineError as error:
                if not operation.late:
                    self._strike(Cause.ANSWER, f"does not answer: {error.message}")
                raise

    def _answered(self) -> None:
        if not self._settled:
            self._settled = self._ledger.report(commands.Confirm(**self._facts(), session_id=self.id))
            self._collect_garbage()

    def _strike(self, cause: Cause, reason: str) -> bool:
        """Take a try, durably. From the thread that notices, which may be another than the one that hangs."""
        _LOG.info("a strike: %s", cause)
        self._settled = self._clear = False  # the next answer clears the count again
        return self._ledger.report(
            commands.Fail(
                **self._facts(),
                session_id=self.id,
                reason=reason[:MAX_REASON_CHARACTERS],
                cause=cause,
                strike=True,
            )
        )

    def _is_on_trial(self) -> bool:
        try:
            return self._store.read().on_trial
        except OverairError:
            return False

    def _facts(self) -> _Facts:
        return {"at": _now(), "app_version": self._app_version}

    def _end(self) -> None:
        """Give the try back, unless it is lost. Where that cannot be noted, the lease goes on saying "idle"."""
        self._watch.rest()
        noted = self._ledger.report(commands.End(**self._facts(), session_id=self.id))
        self._let_go(keep_note=not noted)

    def _let_go(self, *, keep_note: bool) -> None:
        self._bundle = None
        self._watch.close()
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


def _warn_of_memory(release: Release | None) -> None:
    """Say that a load may fail for want of memory, which is no reason not to try: other programs may give some up."""
    if release is None or release.requires.ram_bytes is None:
        return
    free = memory()
    short = short_of_memory(release.requires, free.available_bytes if free else None)
    if short:
        _LOG.warning("%s %s free", release.version, short)


def _now() -> str:
    return clock.timestamp(clock.utc_now())
