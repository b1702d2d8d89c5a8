"""Pauses a download when a condition stops holding, and lets it go on when all hold again.

The gate looks once a second, in a thread of its own: a look may take as long as the system bus is silent, and neither
the bytes nor somebody who cancels should wait for it.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Final

from overair.core import conditions as decisions
from overair.errors import CancelledError
from overair.host import clock, disk
from overair.host.activity import Load
from overair.host.facts import read_facts
from overair.model.conditions import Conditions
from overair.model.facts import Facts

Reasons = tuple[str, ...]

REPEAT_S: Final = 5.0
LOOKS_AFTER_A_PAUSE: Final = 2
_SLICE_S: Final = 0.1


class Gate:
    """Says whether a device may download now, and what it waits for; one for each download.

    Args:
        conditions: What must hold.
        url: Where the bytes come from.
        path: A folder on the disk that the bytes go to, to watch its free space. Bytes that a download has reserved
            are gone from it, so only the floor counts.
        facts: What the machine knows about itself, read anew by each call; by default the machine is asked.
        interval_s: The time between two looks, in seconds.
    """

    def __init__(
        self,
        conditions: Conditions,
        url: str,
        *,
        path: Path | None = None,
        facts: Callable[[], Facts] | None = None,
        interval_s: float = 1.0,
    ) -> None:
        self.waiting_for: Reasons = ()
        self._conditions = conditions
        self._url = url
        self._path = path
        self._load = Load()
        self._facts = facts or self._read_facts
        self._interval_s = interval_s
        self._looking = Lock()

    def unmet(self) -> Reasons:
        """Look: one line for each condition that does not hold now.

        Raises:
            StorageError: The disk does not say what is free.
        """
        with self._looking:  # a look that nobody waits for any more may still be under way
            reasons = decisions.unmet(self._conditions, self._facts())
            if self._path is None:
                return reasons
            return reasons + decisions.short_of_space(self._conditions, disk.free_bytes(self._path))

    @contextlib.contextmanager
    def watching(self, cancel: Event) -> Iterator[Event]:
        """Watch the conditions for the time of a block; `waiting_for` then says what stopped holding.

        Args:
            cancel: Set by the caller to stop.

        Yields:
            An event that is set soon after `cancel` is, and when a condition stops holding.
        """
        stop, ended = Event(), Event()
        _start(self._watch, stop, ended)
        _start(_relay, cancel, stop, ended)
        try:
            yield stop
        finally:
            ended.set()

    def wait(self, cancel: Event, on_wait: Callable[[Reasons], object]) -> None:
        """Return when all conditions hold; after a pause, when two looks in a row say so.

        Args:
            cancel: Set by the caller to stop.
            on_wait: Called with what is waited for when that changes, and at least every five seconds.

        Raises:
            CancelledError: The caller stopped.
            StorageError: The disk does not say what is free.
        """
        looks: SimpleQueue[Reasons | Exception] = SimpleQueue()
        ended = Event()
        _start(self._look_on, looks, ended)
        try:
            self._wait(cancel, _Speaker(on_wait), looks)
        finally:
            ended.set()
        self.waiting_for = ()

    def _wait(self, cancel: Event, speaker: "_Speaker", looks: "SimpleQueue[Reasons | Exception]") -> None:
        holding = 0
        while holding < (LOOKS_AFTER_A_PAUSE if self.waiting_for else 1):
            if cancel.is_set():
                raise CancelledError("stopped while waiting to download")
            with contextlib.suppress(Empty):
                look = looks.get(timeout=_SLICE_S)
                if isinstance(look, Exception):
                    raise look
                holding = 0 if look else holding + 1
                self.waiting_for = look or self.waiting_for
            speaker.say(self.waiting_for)

    def _look_on(self, looks: "SimpleQueue[Reasons | Exception]", ended: Event) -> None:
        """Put what each look says into a queue."""
        while not ended.is_set():
            try:
                looks.put(self.unmet())
            except Exception as error:  # noqa: BLE001 - it is raised again in the thread that waits
                looks.put(error)
                return
            ended.wait(self._interval_s)

    def _watch(self, stop: Event, ended: Event) -> None:
        while not ended.wait(self._interval_s):
            try:
                reasons = self.unmet()
            except Exception as error:  # noqa: BLE001 - who cannot look does not go on; wait() looks again and raises
                reasons = (str(error),)
            if reasons and not ended.is_set():
                self.waiting_for = reasons
                stop.set()
                return

    def _read_facts(self) -> Facts:
        return read_facts(self._url, now=clock.utc_now(), conditions=self._conditions, load=self._load)


class _Speaker:
    """Tells what is waited for when that is news, and again after a while."""

    def __init__(self, on_wait: Callable[[Reasons], object]) -> None:
        self._on_wait = on_wait
        self._said: Reasons = ()
        self._said_at = 0.0

    def say(self, reasons: Reasons) -> None:
        now = time.monotonic()
        if reasons and (reasons != self._said or now - self._said_at >= REPEAT_S):
            self._said, self._said_at = reasons, now
            self._on_wait(reasons)


def _relay(cancel: Event, stop: Event, ended: Event) -> None:
    while not ended.is_set():
        if cancel.wait(_SLICE_S):
            stop.set()
            return


def _start(task: Callable[..., None], *args: object) -> None:
    Thread(target=task, args=args, name="overair-gate", daemon=True).start()
