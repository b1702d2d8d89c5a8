"""Overair for apps on an event loop: the calls of `Updater` that take time, as coroutines.

    async with await AsyncUpdater.open("models", url=…, tier="1b", root="root.json") as updater:
        await updater.update(on_progress=show)
        async with updater.session("xllamacpp") as session:
            print(await session.generate("Hello"))

The work is done in threads; the loop is never blocked. Cancelling the task of a download stops the download, waits
until it has stopped, and keeps what came.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from overair.core.plan import Plan
from overair.device.reporters import Reporter
from overair.device.session import Session
from overair.device.updater import Updater
from overair.engines.base import Engine
from overair.model.conditions import Conditions
from overair.model.events import Event
from overair.model.offer import Answer, Deferred, Offer, UpToDate
from overair.model.progress import Progress
from overair.model.release import Bundle
from overair.model.report import Staged, Status, Verified

__all__ = ["AsyncSession", "AsyncUpdater"]

T = TypeVar("T")
OnProgress = Callable[[Progress], object]


class AsyncUpdater:
    """Keeps one model on one device current, from an event loop; an asynchronous context manager.

    Args:
        updater: What does the work. It may be used directly as well.
    """

    def __init__(self, updater: Updater) -> None:
        self.updater = updater

    @classmethod
    async def open(
        cls,
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
    ) -> Self:
        """Open a store, as `Updater` does.

        Raises:
            OverairError: See `Updater`.
        """
        return cls(
            await asyncio.to_thread(
                Updater,
                store,
                url=url,
                tier=tier,
                channel=channel,
                app_version=app_version,
                root=root,
                insecure=insecure,
                engine=engine,
                ca_file=ca_file,
                reporters=reporters,
            )
        )

    async def check(self, *, folder: str | Path | None = None) -> Answer:
        """See `Updater.check`. A cancelled task goes on at once; the answer is dropped when it comes."""
        return await asyncio.to_thread(self.updater.check, folder=folder)

    async def plan(self, offer: Offer, *, conditions: Conditions | None = None) -> Plan:
        """See `Updater.plan`."""
        return await asyncio.to_thread(self.updater.plan, offer, conditions=conditions)

    async def download(
        self,
        offer: Offer,
        *,
        conditions: Conditions | None = None,
        on_progress: OnProgress | None = None,
        folder: str | Path | None = None,
    ) -> Staged:
        """See `Updater.download`; `on_progress` is called on the loop's thread.

        Raises:
            OverairError: See `Updater.download`.
            asyncio.CancelledError: The task was cancelled; the download has stopped, and what came is kept.
        """
        report = _on_loop(on_progress)
        return await _stoppable(
            lambda cancel: self.updater.download(
                offer, conditions=conditions, on_progress=report, cancel=cancel, folder=folder
            )
        )

    async def update(
        self,
        *,
        conditions: Conditions | None = None,
        on_progress: OnProgress | None = None,
        folder: str | Path | None = None,
    ) -> Staged | UpToDate | Deferred:
        """See `Updater.update`, and `download` here.

        Raises:
            OverairError: See `Updater.update`.
            asyncio.CancelledError: The task was cancelled; the download has stopped, and what came is kept.
        """
        report = _on_loop(on_progress)
        return await _stoppable(
            lambda cancel: self.updater.update(conditions=conditions, on_progress=report, cancel=cancel, folder=folder)
        )

    async def verify(self, *, repair: bool = False, folder: str | Path | None = None) -> Verified:
        """See `Updater.verify`."""
        return await asyncio.to_thread(self.updater.verify, repair=repair, folder=folder)

    async def rollback(self, *, reason: str = "rolled back by hand") -> Status:
        """See `Updater.rollback`."""
        return await asyncio.to_thread(self.updater.rollback, reason=reason)

    async def status(self) -> Status:
        """See `Updater.status`."""
        return await asyncio.to_thread(self.updater.status)

    async def history(self) -> list[Event]:
        """See `Updater.history`."""
        return await asyncio.to_thread(self.updater.history)

    async def collect_garbage(self) -> int:
        """See `Updater.collect_garbage`."""
        return await asyncio.to_thread(self.updater.collect_garbage)

    def session(self, engine: Engine | str | None = None) -> "AsyncSession":
        """See `Updater.session`; an asynchronous context manager."""
        return AsyncSession(self.updater.session(engine))

    async def __aenter__(self) -> Self:
        """Use it as a context manager to close the connections at the end."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.updater.close()


class AsyncSession:
    """A session on an event loop. All calls of the engine are made by one thread of its own, one after the other.

    Args:
        session: What does the work.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._is_open = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="overair-session")

    @property
    def bundle(self) -> Bundle:
        """The files that this session runs.

        Raises:
            IllegalEventError: The session has not started, or has ended.
        """
        return self._session.bundle

    @property
    def happened(self) -> tuple[Event, ...]:
        """What this session did to the device's state."""
        return self._session.happened

    async def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
        """See `Session.generate`. A cancelled task goes on at once; the engine finishes before it is asked again."""
        return await self._call(lambda: self._session.generate(prompt, max_tokens=max_tokens))

    @contextlib.asynccontextmanager
    async def observe(self, *, timeout_s: float | None = None) -> AsyncIterator[None]:
        """See `Session.observe`; a task that is cancelled in the block costs no try."""
        observed = self._session.observe(timeout_s=timeout_s)
        await self._call(observed.__enter__)
        try:
            yield
        except BaseException as error:
            kind, failure, trace = type(error), error, error.__traceback__
            await _to_the_end(lambda: _pass_on(observed, kind, failure, trace), self._thread)
            raise
        await _to_the_end(lambda: observed.__exit__(None, None, None), self._thread)

    async def confirm(self) -> None:
        """See `Session.confirm`."""
        await self._call(self._session.confirm)

    async def fail(self, reason: str) -> None:
        """See `Session.fail`."""
        await self._call(lambda: self._session.fail(reason))

    def _enter(self) -> None:
        self._session.__enter__()
        self._is_open = True

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def __aenter__(self) -> Self:
        """Swap if there is something to swap in, and load. A task that is cancelled meanwhile leaves no session open.

        Raises:
            OverairError: See `Session.__enter__`.
        """
        try:
            await _to_the_end(self._enter, self._thread)
        except BaseException:
            if self._is_open:  # the task was cancelled while the model was loading
                await self.__aexit__(None, None, None)
            self._thread.shutdown(wait=False)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Unload and end, after the answer that is under way."""
        try:
            await _to_the_end(lambda: self._session.__exit__(kind, error, traceback), self._thread)
        finally:
            self._thread.shutdown(wait=False)


async def _stoppable(work: Callable[[threading.Event], T]) -> T:
    """Do work in a thread that stops when the task is cancelled."""
    cancel = threading.Event()
    return await _to_the_end(lambda: work(cancel), None, cancel.set)


async def _to_the_end(
    work: Callable[[], T], thread: ThreadPoolExecutor | None, stop: Callable[[], None] | None = None
) -> T:
    """Do work in a thread, and do not leave before it has ended, however often the task is cancelled."""
    doing = asyncio.get_running_loop().run_in_executor(thread, work)
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        while not doing.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([doing])
        doing.exception()  # looked at, so that nobody warns of it
        raise


def _pass_on(
    block: contextlib.AbstractContextManager[None],
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    """Let a block end with an error, which the caller raises again."""
    with contextlib.suppress(kind):
        block.__exit__(kind, error, trace)


def _on_loop(on_progress: OnProgress | None) -> Callable[[Progress], None] | None:
    """A callback that any thread may call, and that calls `on_progress` on the loop's thread."""
    if on_progress is None:
        return None
    loop = asyncio.get_running_loop()

    def report(progress: Progress) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody looks any more
            loop.call_soon_threadsafe(on_progress, progress)

    return report
