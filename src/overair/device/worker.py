"""The process of a background job: `python -m overair.device.worker`, with its order on standard input."""

import contextlib
import logging
import logging.handlers
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from overair.errors import CancelledError, DeferredError, OverairError, UsageError
from overair.host import clock
from overair.model.job import JobState, JobStatus, Order, Want
from overair.store.job import JobFiles

if TYPE_CHECKING:
    from overair.device.attempt import Attempt, Outcome

MAX_ORDER_BYTES: Final = 64_000
TICK_S: Final = 0.2
SAY_EVERY_S: Final = 0.25
END_LIMIT_S: Final = 0.9
RECHECK_S: Final = 86_400.0
NICE: Final = 10
LOG_BYTES: Final = 200_000

_LOG: Final = logging.getLogger("overair")


class Worker:
    """Brings one update, tells the watchers, and does what they want.

    Args:
        order: What to do.
        files: Where to tell of it; the lock is held.
    """

    def __init__(self, order: Order, files: JobFiles) -> None:
        now = clock.timestamp(clock.utc_now())
        self._order = order
        self._files = files
        self._told_to_stop = False
        self._said_at = 0.0
        self._status = JobStatus(id=order.id, state=JobState.STARTING, pid=os.getpid(), started_at=now, updated_at=now)

    def run(self) -> int:
        """Work until the end; returns the exit code.

        Raises:
            StorageError: Nobody can be told that it begins.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._obey)
        self._files.say(self._status)
        _leave_the_app(self._files.log)
        lower_priority()
        try:
            end = self._update()
        except OverairError as error:
            end = _failed(error)
        except Exception as error:  # noqa: BLE001 - nobody sees a traceback; the watchers must not see "died"
            _LOG.exception("a bug ended the job")
            end = {"state": JobState.FAILED, "exit_code": 1, "message": f"{type(error).__name__}: {error}"}
        self._end(end)
        return int(end["exit_code"])

    def _obey(self, _number: int, _frame: object) -> None:
        # Only a flag: the main thread may hold the lock of anything that could be set here.
        self._told_to_stop = True

    def _wanted(self) -> Want:
        return Want.CANCEL if self._told_to_stop else self._files.wanted(self._order.id)

    def _update(self) -> dict[str, Any]:
        from overair.device.attempt import Attempt
        from overair.device.updater import Updater

        with Updater(self._order.store) as updater:
            folder = Path(self._order.folder) if self._order.folder else None
            while True:
                attempt = Attempt(updater, self._order.conditions, folder=folder, recheck_s=RECHECK_S)
                if self._attend(attempt):
                    return {**_ended(attempt.outcome()), "progress": attempt.progress or self._status.progress}
                self._rest(attempt)

    def _attend(self, attempt: "Attempt") -> bool:
        """Watch an attempt to its end; False when it was paused.

        Raises:
            CancelledError: The job is to end.
        """
        give_up_at: float | None = None
        while not attempt.wait(TICK_S):
            wanted = self._wanted()
            if wanted is not Want.RUN:
                attempt.stop()
            if wanted is Want.CANCEL:
                give_up_at = give_up_at or time.monotonic() + END_LIMIT_S
                if time.monotonic() > give_up_at:
                    raise _cancelled()
            self._tell_of(attempt)
        try:
            attempt.outcome()
        except OverairError as error:
            if not attempt.was_stopped or not error.retryable:
                raise
            if self._wanted() is Want.CANCEL:
                raise _cancelled() from None
            return False
        return True  # one that was told to stop may have been done already

    def _rest(self, attempt: "Attempt") -> None:
        """Wait until the job may go on.

        Raises:
            CancelledError: It is to end.
        """
        progress = attempt.progress
        if progress is not None:
            progress = msgspec.structs.replace(progress, bytes_per_second=None, seconds_left=None)
        while (wanted := self._wanted()) is Want.PAUSE:
            self._say(state=JobState.PAUSED, progress=progress, message="paused")
            time.sleep(TICK_S)
        if wanted is Want.CANCEL:
            raise _cancelled()
        self._say(state=JobState.CHECKING, progress=progress, message="")

    def _tell_of(self, attempt: "Attempt") -> None:
        self._say(
            state=JobState(attempt.activity.value),
            progress=attempt.progress or self._status.progress,
            version=attempt.offer.release.version if attempt.offer else None,
            message=attempt.waiting_for,
        )

    def _say(self, **changes: Any) -> None:
        """Let the watchers know what is new, but not too often."""
        status = msgspec.structs.replace(self._status, **changes)
        now = time.monotonic()
        is_urgent = status.state is not self._status.state
        if status == self._status or (now - self._said_at < SAY_EVERY_S and not is_urgent):
            return
        self._status = msgspec.structs.replace(status, updated_at=clock.timestamp(clock.utc_now()))
        self._said_at = now
        with contextlib.suppress(OverairError):  # a full disk, or on Windows somebody reads: the next one will do
            self._files.say(self._status)

    def _end(self, changes: dict[str, Any]) -> None:
        """Say how it ended; nobody will say it again, so this is tried for a while."""
        self._status = msgspec.structs.replace(
            self._status, **{"message": "", **changes}, updated_at=clock.timestamp(clock.utc_now())
        )
        for _ in range(5):
            with contextlib.suppress(OverairError):
                self._files.say(self._status)
                return
            time.sleep(0.05)


def lower_priority() -> None:
    """Let every other program go first, as far as the system lets us."""
    import psutil

    process = psutil.Process()
    with contextlib.suppress(OSError, psutil.Error):
        if sys.platform == "win32":
            process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
            process.ionice(psutil.IOPRIO_LOW)
        else:
            os.nice(NICE)
    with contextlib.suppress(OSError, psutil.Error):
        if sys.platform == "linux":
            # Not "idle": on a busy disk that never gets its turn, and an app may wait for the store's lock.
            process.ionice(psutil.IOPRIO_CLASS_BE, 7)


def _leave_the_app(log: Path) -> None:
    """Write to the log from now on: the pipe to the app breaks when it ends."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 2)
    os.close(null)
    handler = logging.handlers.RotatingFileHandler(log, maxBytes=LOG_BYTES, backupCount=1, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.raiseExceptions = False  # a full disk must not stop the work


def _cancelled() -> CancelledError:
    return CancelledError("the job was told to end; what came is kept")


def _ended(outcome: "Outcome") -> dict[str, Any]:
    from overair.model.offer import Deferred
    from overair.model.report import Staged

    if isinstance(outcome, Staged):
        version = outcome.release.version
        message = f"{version} is staged; the next session starts it"
        return {"state": JobState.STAGED, "exit_code": 0, "version": version, "message": message}
    if isinstance(outcome, Deferred):
        code = DeferredError.exit_code
        return {"state": JobState.DEFERRED, "exit_code": code, "message": outcome.explanation, "hint": outcome.hint}
    return {"state": JobState.UP_TO_DATE, "exit_code": 0, "message": outcome.explanation}


def _failed(error: OverairError) -> dict[str, Any]:
    state = JobState.CANCELLED if isinstance(error, CancelledError) else JobState.FAILED
    return {"state": state, "exit_code": error.exit_code, "message": error.message, "hint": error.hint}


def main() -> int:
    """Take the order, and be the only job of its store."""
    try:
        order = _order(sys.stdin.buffer.read(MAX_ORDER_BYTES + 1))
        files = JobFiles(Path(order.store))
        with files.alone():
            return Worker(order, files).run()
    except OverairError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code


def _order(data: bytes) -> Order:
    if len(data) > MAX_ORDER_BYTES:
        raise UsageError("the order is too long")
    try:
        return msgspec.json.decode(data, type=Order)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the order is not one: {error}") from error


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # A thread that waits for a server would keep the process; all that it does survives a kill.
    os._exit(code)
