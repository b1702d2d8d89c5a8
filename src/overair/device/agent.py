"""Keep a device current for as long as it runs: check, wait for the conditions, download, and check again."""

import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from overair.core import schedule
from overair.device import systemd
from overair.device.attempt import Attempt, Outcome
from overair.device.updater import Updater
from overair.errors import CancelledError, LockedError, OverairError
from overair.model.conditions import Conditions
from overair.model.report import Staged
from overair.store.last_check import load_last_check
from overair.store.layout import Layout
from overair.store.lock import exclusive
from overair.transport.failures import AnswerError

# Waits are cut to this, so that a machine that slept notices what time has passed.
LONGEST_WAIT_S: Final = 60.0
TICK_S: Final = 0.25
STATUS_EVERY_S: Final = 5.0
END_LIMIT_S: Final = 0.9

_LOG: Final = logging.getLogger("overair")


class Agent:
    """Checks now and then, and brings what is offered when the conditions allow it. One for each store.

    Args:
        updater: The device.
        conditions: What must hold before and while it downloads.
        interval_s: How often to check, in seconds; None: as the publisher's manifest says, or else once a day.
        folder: A copy of the repository to update from instead of the network.
        chance: A random number from 0 to 1, so that the devices of a fleet do not come together.
    """

    def __init__(
        self,
        updater: Updater,
        *,
        conditions: Conditions | None = None,
        interval_s: float | None = None,
        folder: Path | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._updater = updater
        self._conditions = conditions or Conditions()
        self._interval_s = interval_s
        self._folder = folder
        self._chance = chance
        self._herald = _Herald()

    def run(self, stop: threading.Event) -> None:
        """Go on until `stop` is set; then end within two seconds. What came of a download is kept.

        Errors of a check or a download are logged, and tried again later.

        Raises:
            LockedError: Another agent runs for this store.
            StateUnreadableError: The state cannot be read.
        """
        with self._alone():
            installed = self._updater.status().current is not None
            systemd.notify("READY=1")
            try:
                self._keep_current(stop, installed=installed)
            finally:
                systemd.notify("STOPPING=1", "STATUS=stopping")

    def once(self, stop: threading.Event) -> Outcome:
        """Check once, and bring what is offered if the conditions hold now: for a timer.

        Raises:
            LockedError: Another agent runs for this store.
            OverairError: See `Updater.update`; `CancelledError` when `stop` was set.
        """
        with self._alone():
            return self._update(stop, recheck_s=None)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            with exclusive(self._updater.path / "agent.lock", timeout_s=0):
                yield
        except LockedError as error:
            raise LockedError(
                f"an agent runs for this store already: {error.message}", hint="one is enough: leave it, or end it"
            ) from error

    def _keep_current(self, stop: threading.Event, *, installed: bool) -> None:
        failures = 0
        pause_s = schedule.first_check_s(self._chance(), installed=installed)
        said = "started"
        while self._sleep(pause_s, stop, said):
            retry_after_s = None
            try:
                said = _summary(self._update(stop, recheck_s=self._interval()))
                failures = 0
                _LOG.info("%s", said)
            except CancelledError:
                return
            except OverairError as error:
                failures += 1
                said = error.message
                retry_after_s = error.retry_after_s if isinstance(error, AnswerError) else None
                _LOG.warning("%s%s", error.message, f" ({error.hint})" if error.hint else "")
            pause_s = schedule.next_check_s(self._interval(), failures, self._chance(), retry_after_s=retry_after_s)

    def _interval(self) -> float:
        if self._interval_s is not None:
            return self._interval_s
        last = load_last_check(Layout(self._updater.path).last_check)
        return schedule.interval_s(last.poll_seconds if last else None)

    def _sleep(self, pause_s: float, stop: threading.Event, said: str) -> bool:
        """Wait; False when the agent is to stop."""
        until = _now_s() + pause_s
        while not stop.is_set() and (left := until - _now_s()) > 0:
            self._herald.beat(f"{said}; next check in {_about(left)}")
            stop.wait(min(left, LONGEST_WAIT_S, self._herald.every_s))
        return not stop.is_set()

    def _update(self, stop: threading.Event, *, recheck_s: float | None) -> Outcome:
        """One update, in a thread that this one watches.

        Raises:
            OverairError: See `Updater.update`; `CancelledError` when `stop` was set.
        """
        attempt = Attempt(self._updater, self._conditions, folder=self._folder, recheck_s=recheck_s)
        while not attempt.wait(TICK_S):
            if stop.is_set():
                attempt.stop()
                if not attempt.wait(END_LIMIT_S):
                    raise CancelledError("stopped while a server was asked")
            # A thread that hangs must not live for ever behind a main thread that is well.
            elif not attempt.is_stuck:
                self._herald.beat(_doing(attempt))
        return attempt.outcome()


class _Herald:
    """Tells systemd that the agent is alive, and what it does, but not too often."""

    def __init__(self) -> None:
        watchdog_s = systemd.watchdog_s()
        self.every_s = LONGEST_WAIT_S if watchdog_s is None else watchdog_s / 3
        self.status_every_s = min(STATUS_EVERY_S, self.every_s)
        self._said_at = -self.every_s
        self._said = ""

    def beat(self, doing: str) -> None:
        now = time.monotonic()
        # A wait that ends a little early must not miss its turn.
        if now - self._said_at < (self.every_s * 0.9 if doing == self._said else self.status_every_s):
            return
        self._said_at, self._said = now, doing
        systemd.notify("WATCHDOG=1", f"STATUS={doing}")


def _summary(outcome: Outcome) -> str:
    if isinstance(outcome, Staged):
        return f"{outcome.release.version} is staged; the next session starts it"
    return outcome.explanation


def _doing(attempt: Attempt) -> str:
    version = f" {attempt.offer.release.version}" if attempt.offer else ""
    if attempt.waiting_for:
        return f"waiting with{version}: {attempt.waiting_for}"
    progress = attempt.progress
    share = f": {progress.bytes_done / progress.bytes_total:.0%}" if progress and progress.bytes_total else ""
    return f"{attempt.activity}{version}{share}"


def _about(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _now_s() -> float:
    """A clock that nobody sets, and that goes on while the machine sleeps: a laptop is rarely awake for a day."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":
        return time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.monotonic()
