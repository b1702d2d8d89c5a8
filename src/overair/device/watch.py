"""What a session's engine is doing now, written where others find it when the process is gone, and for how long."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Final

from overair.host.quit import QuitNote
from overair.store.leases import Lease

# Longer than the store's lock is waited for, so that a strike is noted before what came of the operation is.
_NOTING_S: Final = 30.0


class Operation:
    """A load or a generation that is under way."""

    def __init__(self) -> None:
        self.late = False
        self.over = False
        self.noted = threading.Event()
        self.guard = threading.Lock()


class Watch:
    """Keeps the lease's byte, and tells when an operation takes too long.

    Args:
        lease: The session's, or None when nothing can be noted. It counts as busy until the first operation has ended
            well, or `rest` says so: before the first one the model is being loaded, by whomever.
    """

    def __init__(self, lease: Lease | None) -> None:
        self._lease = lease
        self._quit = QuitNote(lease.quit_note) if lease is not None else None
        self._guard = threading.Lock()
        self._running = 0
        self._loaded = False

    @contextlib.contextmanager
    def operation(self, timeout_s: float | None, on_late: Callable[[], bool]) -> Iterator[Operation]:
        """Count as busy for the block; `on_late` is called once, from another thread, when it takes too long.

        It says whether it could note the strike.

        What runs inside this process cannot be stopped from outside. So its strike is noted while it still hangs, and
        whoever ends the process then ends an idle one, which is no second strike.
        """
        operation = Operation()
        self._count(+1)
        timer = _start_timer(timeout_s, lambda: self._note_late(operation, on_late))
        try:
            yield operation
            self._loaded = True
        finally:
            if timer is not None:
                timer.cancel()
            with operation.guard:
                operation.over = True
            if operation.late:
                operation.noted.wait(_NOTING_S)
            self._count(-1)

    def rest(self) -> None:
        """Nothing is under way but what is told from now on."""
        with self._guard:
            self._loaded = True
            self._mark()

    def close(self) -> None:
        """Leave the signals alone again."""
        if self._quit is not None:
            self._quit.close()

    def _count(self, change: int) -> None:
        with self._guard:
            self._running += change
            if change > 0 and self._quit is not None:
                self._quit.forget_if_old()
            self._mark()

    def _mark(self) -> None:
        if self._lease is not None:
            self._lease.set_busy(not self._loaded or self._running > 0)

    def _note_late(self, operation: Operation, on_late: Callable[[], bool]) -> None:
        with operation.guard:
            if operation.over:
                return
            operation.late = True
        try:
            # Before the strike, not after it: a process that is ended in between must not pay twice.
            if self._lease is not None and self._running == 1:
                self._lease.set_busy(False)
            if not on_late():
                with self._guard:
                    self._mark()  # then its end is what counts
        finally:
            operation.noted.set()


def _start_timer(timeout_s: float | None, on_late: Callable[[], None]) -> threading.Timer | None:
    if timeout_s is None:
        return None
    timer = threading.Timer(timeout_s, on_late)
    timer.daemon = True
    with contextlib.suppress(RuntimeError):  # no more threads: the operation goes on without a limit
        timer.start()
        return timer
    return None
