"""Turns the bytes of a download into one bar for people: never backwards, at most ten times a second."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from overair.model.progress import Activity, Progress
from overair.model.release import Artifact, Release

OnProgress = Callable[[Progress], None]

INTERVAL_S: Final = 0.1
WINDOW_S: Final = 5.0


class Meter:
    """How far a release is. Bytes may be reported from any thread; the callback is never called twice at once.

    Args:
        release: What is brought here.
        on_progress: Called with how far it is.
    """

    def __init__(self, release: Release, on_progress: OnProgress | None) -> None:
        self._on_progress = on_progress
        self._total = release.size_bytes
        self._finished = 0
        self._shown = 0
        self._name = release.model.name
        self._said_at = 0.0
        self._samples: deque[tuple[float, int]] = deque()
        self._speaking = threading.Lock()

    def report(self, artifact: Artifact, done: int) -> None:
        """So many bytes of an artifact are here."""
        if self._on_progress is None or time.monotonic() - self._said_at < INTERVAL_S:
            return
        with self._speaking:
            self._say(artifact.name, self._finished + done, Activity.DOWNLOADING)

    def finish(self, artifact: Artifact) -> None:
        """All of an artifact is here, and verified."""
        with self._speaking:
            self._finished += artifact.size_bytes
            self._say(artifact.name, self._finished, Activity.DOWNLOADING, at_once=self._finished >= self._total)

    def wait(self, reasons: tuple[str, ...]) -> None:
        """No byte moves, for these reasons."""
        with self._speaking:
            self._samples.clear()  # the rate of before says nothing about after
            self._say(self._name, self._shown, Activity.WAITING, reasons, at_once=True)

    def turn_to(self, activity: Activity) -> None:
        """Something else is done now."""
        with self._speaking:
            self._say(self._name, self._shown, activity, at_once=True)

    def _say(
        self, name: str, done: int, activity: Activity, waiting_for: tuple[str, ...] = (), *, at_once: bool = False
    ) -> None:
        now = time.monotonic()
        if self._on_progress is None or (not at_once and now - self._said_at < INTERVAL_S):
            return
        self._name, self._said_at = name, now
        rate = self._rate(now, done) if activity is Activity.DOWNLOADING else None
        # A chunk that arrived damaged is fetched again; people see a bar that stands still meanwhile.
        self._shown = min(max(self._shown, done), self._total)
        self._on_progress(
            Progress(
                name=name,
                bytes_done=self._shown,
                bytes_total=self._total,
                bytes_per_second=rate,
                seconds_left=(self._total - self._shown) / rate if rate else None,
                activity=activity,
                waiting_for=waiting_for,
            )
        )

    def _rate(self, now: float, done: int) -> float | None:
        """Bytes a second over the last seconds."""
        self._samples.append((now, done))
        while now - self._samples[0][0] > WINDOW_S:
            self._samples.popleft()
        first_at, first = self._samples[0]
        return (done - first) / (now - first_at) if now > first_at and done > first else None
