"""An update in a thread of its own, so that the process around it stays able to obey."""

import threading
import time
from pathlib import Path
from typing import Final

from overair.device.updater import Updater
from overair.errors import CancelledError, DeferredError, LockedError, OverairError
from overair.model.conditions import Conditions
from overair.model.offer import Deferred, Offer, UpToDate
from overair.model.progress import Activity, Progress
from overair.model.report import Staged

CONDITIONS_POLL_S: Final = 30.0
LOCK_POLL_S: Final = 2.0
# A check, a probe, and reading the largest model from a slow disk take less.
SILENCE_LIMIT_S: Final = 1800.0

Outcome = Staged | UpToDate | Deferred


class Attempt:
    """One update. It waits for conditions that do not hold, and for another process that downloads, unless told not to.

    Args:
        updater: The device.
        conditions: What must hold before and while it downloads.
        folder: A copy of the repository to update from, or None for the network.
        recheck_s: After waiting so long, in seconds, it asks again whether the offer still stands; None: do not wait.
    """

    def __init__(
        self, updater: Updater, conditions: Conditions, *, folder: Path | None, recheck_s: float | None
    ) -> None:
        self.offer: Offer | None = None
        self.progress: Progress | None = None
        self.waiting_for = ""
        self._updater = updater
        self._conditions = conditions
        self._folder = folder
        self._recheck_s = recheck_s
        self._cancel = threading.Event()
        self._sign_of_life = time.monotonic()
        self._outcome: Outcome | BaseException | None = None
        # A daemon, so that a server that does not answer cannot keep the process: all that it does survives a kill.
        self._thread = threading.Thread(target=self._run, name="overair-update", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Tell it to stop and to keep what came; it ends within a second, or when an answer comes that it waits for."""
        self._cancel.set()

    @property
    def was_stopped(self) -> bool:
        """Whether somebody told it to stop."""
        return self._cancel.is_set()

    @property
    def activity(self) -> Activity:
        """What it is doing; a download that a condition stopped waits, and only people pause."""
        activity = Activity.CHECKING if self.progress is None else self.progress.activity
        return Activity.WAITING if self.waiting_for or activity is Activity.PAUSED else activity

    @property
    def is_stuck(self) -> bool:
        """Whether it has done nothing for longer than anything may take, and does not wait for a condition."""
        quiet = time.monotonic() - self._sign_of_life
        return quiet > SILENCE_LIMIT_S and self.activity is not Activity.WAITING

    def outcome(self) -> Outcome:
        """How it ended.

        Raises:
            OverairError: See `Updater.update`; `CancelledError` after `stop`.
        """
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        if self._outcome is None:
            raise CancelledError("the update has not ended")
        return self._outcome

    def _run(self) -> None:
        try:
            self._outcome = self._bring()
        except BaseException as error:  # noqa: BLE001 - whoever asks for the outcome gets it
            self._outcome = error

    def _bring(self) -> Outcome:
        while True:
            checked = time.monotonic()
            self._sign_of_life, self.progress = checked, None
            answer = self._updater.check(folder=self._folder)
            if not isinstance(answer, Offer):
                return answer
            self.offer = answer
            staged = self._download(answer, checked)
            if staged is not None:
                return staged

    def _download(self, offer: Offer, checked: float) -> Staged | None:
        """Download, as soon as that may be; None when it is time to ask again."""
        while True:
            try:
                return self._updater.download(
                    offer,
                    conditions=self._conditions,
                    on_progress=self._note,
                    cancel=self._cancel,
                    folder=self._folder,
                )
            except (DeferredError, LockedError) as error:
                if self._recheck_s is None:
                    raise
                self._pause(error)
                if isinstance(error, LockedError) or time.monotonic() - checked > self._recheck_s:
                    return None  # what the other process brought is not fetched again

    def _note(self, progress: Progress) -> None:
        self.progress, self.waiting_for = progress, "; ".join(progress.waiting_for)
        self._sign_of_life = time.monotonic()

    def _pause(self, error: OverairError) -> None:
        self.waiting_for = error.message
        if self._cancel.wait(LOCK_POLL_S if isinstance(error, LockedError) else CONDITIONS_POLL_S):
            raise CancelledError("the update was stopped while it waited")
        self.waiting_for = ""
        self._sign_of_life = time.monotonic()
