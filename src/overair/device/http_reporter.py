"""Reports to a server, each transition at most once, from whatever process on this device made it.

What is sent is read from the store's own history, behind a mark that is kept beside it. The mark moves on, durably,
before anything is sent, and back only when the server surely has not taken it: a process that dies in between, and an
answer that is lost, cost a report and never double it. The history is bounded, and with it what waits for a server
that is away.
"""

import atexit
import contextlib
import hashlib
import logging
import random
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from overair._version import __version__
from overair.core.reports import reportable
from overair.core.retry import pause_s
from overair.errors import OverairError, UsageError
from overair.model.events import Event
from overair.store import history
from overair.store.durable import remove_file, write_file
from overair.store.layout import Layout
from overair.store.lock import exclusive
from overair.transport.post import Receipt, Taken, post

MAX_EVENTS: Final = 100
EXIT_S: Final = 2.0

_LOG: Final = logging.getLogger("overair")


class _Mark(msgspec.Struct, frozen=True):
    """The last event that was sent, or may have been."""

    id: str
    at: str | None


class HTTPReporter:
    """Sends each event to an HTTP endpoint, in batches, from a thread of its own.

    The body is `{"events": [...]}`, at most `MAX_EVENTS` of them, as `application/json`; each has an `id` that no other
    event has. Any status from 200 to 299 takes it. 429, 503, redirects and other errors of the client's are tried again
    with full jitter; other errors of the server's are not, since it may have taken the events before it failed.

    Args:
        url: Where to, http or https.
        store: The folder of the device's store.
        headers: More headers, as `Authorization`.
        ca_file: Certificate authorities to trust instead of the platform's, as PEM.

    Raises:
        UsageError: The URL is not one.
    """

    def __init__(
        self, url: str, store: str | Path, *, headers: Mapping[str, str] | None = None, ca_file: Path | None = None
    ) -> None:
        _check(url)
        self._url = url
        self._history = Layout(Path(store)).history
        self._mark = self._history.with_name(f"reported-{hashlib.sha256(url.encode()).hexdigest()[:16]}.json")
        own = {"Content-Type": "application/json", "User-Agent": f"overair/{__version__}"}
        self._headers = own | dict(headers or {})
        self._ca_file = ca_file
        self._guard = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def report(self, event: Event) -> None:  # noqa: ARG002 - the history has it, and those of other processes
        """Have the thread look at the history. See `Reporter.report`."""
        with self._guard:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._work, name="overair-reports", daemon=True)
                self._thread.start()
                atexit.register(self.close)
        self._wake.set()

    def close(self) -> None:
        """Send what waits, for `EXIT_S` seconds at most; the next process sends the rest."""
        self._closing.set()
        self._wake.set()
        atexit.unregister(self.close)
        if self._thread is not None:
            self._thread.join(EXIT_S)

    def _work(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            self._send_all()
            if self._closing.is_set() and not self._wake.is_set():
                return

    def _send_all(self) -> None:
        failures = 0
        while (receipt := self._send_some()) is not None:
            if receipt.taken is not Taken.NO:
                failures = 0
                continue
            failures += 1
            _LOG.info("not reported: %s", receipt.why)
            pause = pause_s(failures, random.random(), retry_after_s=receipt.retry_after_s)  # noqa: S311 - no secret
            if pause is None or self._closing.wait(pause):
                return

    def _send_some(self) -> Receipt | None:
        """Send the next events, or nothing if there are none."""
        try:
            with exclusive(self._mark.with_suffix(".lock"), timeout_s=0):
                before = self._read_mark()
                batch = _after(before, history.read(self._history))[:MAX_EVENTS]
                if not batch:
                    return None
                self._write_mark(_Mark(batch[-1].id, batch[-1].at))
                body = msgspec.json.encode({"events": [reportable(event) for event in batch]})
                receipt = post(self._url, body, headers=self._headers, ca_file=self._ca_file)
                if receipt.taken is Taken.NO:
                    self._write_mark(before)
                return receipt
        except OverairError as error:
            return Receipt(Taken.NO, error.message)

    def _read_mark(self) -> _Mark | None:
        try:
            return msgspec.json.decode(self._mark.read_bytes(), type=_Mark)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            # Nobody knows any more what was sent: what there is counts as sent.
            events = history.read(self._history)
            return _Mark(events[-1].id, events[-1].at) if events else None

    def _write_mark(self, mark: _Mark | None) -> None:
        if mark is None:
            remove_file(self._mark)
        else:
            write_file(self._mark, msgspec.json.encode(mark))


def _check(url: str) -> None:
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        plain = parts.hostname and parts.username is None and parts.port != 0  # a port that is no number raises
        if plain and parts.scheme in {"http", "https"}:
            return
    raise UsageError(
        f"not a URL to report to: {url[:200]!r}",
        hint="write it as https://example.com/reports; a password goes in headers",
    )


def _after(mark: _Mark | None, events: Sequence[Event]) -> list[Event]:
    """The events behind a mark. Where its own is gone, by age or by damage, those of a later second."""
    if mark is None:
        return [event for event in events if event.id]
    number = next((i for i in reversed(range(len(events))) if events[i].id == mark.id), None)
    if number is not None:
        return [event for event in events[number + 1 :] if event.id]
    return [event for event in events if event.id and (event.at or "") > (mark.at or "")]
