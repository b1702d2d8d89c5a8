"""What ends a wait for a server: the caller, silence, or a deadline.

A socket's own timeout starts anew with every byte, starts anew with every address of a name, and does not apply to
the name service at all. So the steps before the first byte run in a thread that can be left behind, and every read
after that comes in slices, between which the watch is asked whether to go on.
"""

import contextlib
import contextvars
import math
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError, wait
from typing import Final, Protocol, TypeVar

from overair.errors import CancelledError, NetworkError

T = TypeVar("T")

SLICE_S: Final = 0.1


class Answer(Protocol):
    """What comes from a server, below urllib3."""

    def receive_into(self, buffer: memoryview) -> int:
        """Wait for bytes of the body; returns their number, 0 at the end."""

    def isclosed(self) -> bool:
        """Whether the body was read to its end."""

    def close(self) -> None:
        """Let go of the connection."""


class Watch:
    """Decides whether to go on waiting for a server.

    Args:
        place: What is fetched, for messages.
        silence_s: The longest time without a byte, in seconds.
        total_s: The longest time for all of it, in seconds from now.
        cancel: Set by the caller to stop; any of them will do.
        buffer_bytes: The most that the kernel takes in advance over a new connection, or None for what it likes.
    """

    def __init__(
        self,
        place: str,
        *,
        silence_s: float,
        total_s: float = math.inf,
        cancel: Iterable[threading.Event | None] = (),
        buffer_bytes: int | None = None,
    ) -> None:
        self._place = place
        self._silence_s = silence_s
        self._total_s = total_s
        self._started = time.monotonic()
        self._cancel = [event for event in cancel if event is not None]
        self.buffer_bytes = buffer_bytes
        self.answer: Answer | None = None  # to be closed if nothing comes of it

    def no_deadline(self) -> None:
        """The answer has begun: from here on only silence counts."""
        self._total_s = math.inf

    def check(self, waiting_since: float) -> None:
        """Return if it is worth waiting on for a byte that has been awaited since then (`time.monotonic`).

        Raises:
            CancelledError: The caller stopped.
            NetworkError: The server took too long.
        """
        if any(event.is_set() for event in self._cancel):
            raise CancelledError(f"stopped fetching {self._place}")
        now = time.monotonic()
        if now - self._started > self._total_s:
            raise NetworkError(f"cannot fetch {self._place}: no whole answer within {self._total_s:g} s")
        if now - waiting_since > self._silence_s:
            raise NetworkError(f"cannot fetch {self._place}: the server sent nothing for {self._silence_s:g} s")


watching: Final[contextvars.ContextVar[Watch]] = contextvars.ContextVar("watching")


def abandonable(task: Callable[[], T], watch: Watch, discard: Callable[[T], object]) -> T:
    """Run a call that may block for ever in a thread of its own, and leave it behind when the watch says so.

    Args:
        task: The call; `watching` is set to `watch` inside it.
        watch: Says how long to wait; its silence does not count here.
        discard: Called with the result of a task that was left behind and returned after all.

    Raises:
        CancelledError: The caller stopped.
        NetworkError: The server took too long.
        Exception: Whatever the task raised.
    """
    future: Future[T] = Future()

    def run() -> None:
        watching.set(watch)
        try:
            result = task()
        except Exception as error:  # noqa: BLE001 - it is raised again in the thread that waits
            with contextlib.suppress(InvalidStateError):
                future.set_exception(error)
            return
        try:
            future.set_result(result)
        except InvalidStateError:
            discard(result)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), name="overair-open", daemon=True).start()
    while not wait([future], timeout=SLICE_S).done:
        try:
            watch.check(math.inf)
        except NetworkError:
            if future.cancel():
                raise
    return future.result()
