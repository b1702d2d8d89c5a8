"""A published repository, a device that follows it, and the processes that bring its updates."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import psutil

from overair import Conditions, Repository, Updater
from overair.device import background
from overair.device.background import Job
from overair.model.job import JobState, JobStatus
from support.command import COMMAND
from support.misbehaving import Fault, MisbehavingServer, Trickle
from support.published import model_file

LIMIT_S = 30.0
SLOW = Trickle(piece=8_000, seconds=0.02)  # five seconds for the model of a scene: time to do something to it
STEADY = Trickle(piece=20_000, seconds=0.02)
FLOATS = 500_000


class Scene:
    """A context manager; it ends the background job that it finds at the end.

    Args:
        folder: Where all of it is.
    """

    def __init__(self, folder: Path) -> None:
        self.site = folder / "site"
        self.store = folder / "device"
        self.folder = folder
        self.site.mkdir()
        self.server = MisbehavingServer(self.site)

    def __enter__(self) -> Self:
        self.server.__enter__()
        self.repository = Repository.init(self.site, base_url=self.server.url, dev=True)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.end_the_job()
        finally:
            self.server.__exit__(None, None, None)

    def publish(self, version: str = "1.0.0", *, seed: int = 1, fault: Fault | None = None) -> int:
        """Publish a model of two megabytes; returns its length."""
        model = model_file(self.folder / "model.gguf", seed, floats=FLOATS)
        published = self.repository.publish([model], tier="1b", version=version, probe=False)
        self.blob = f"/blobs/sha256/{published.sha256[:2]}/{published.sha256}"
        if fault is not None:
            self.server.faults[self.blob] = fault
        return model.stat().st_size

    def set_up(self) -> Updater:
        root = self.site / "metadata" / "1.root.json"
        return Updater(self.store, url=self.server.url, tier="1b", root=root)

    def start(self, conditions: Conditions | None = None) -> Job:
        self.set_up().close()
        return background.start(self.store, conditions=conditions)

    def served(self) -> int:
        """How many bytes of the model have left the server."""
        return self.server.bytes_served(self.blob)

    def end_the_job(self) -> None:
        job = background.find(self.store) if self.store.exists() else None
        status = job.progress() if job else None
        if job is not None and status is not None and not status.state.is_end:
            assert job.cancel().state.is_end, "the job does not end"
        if status is not None:
            until(lambda: not is_there(status.pid), "the process of the job is gone")


def until(holds: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
    """Wait until something holds; fail when it does not in time."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        time.sleep(0.01)


def until_state(job: Job, *states: JobState, limit_s: float = LIMIT_S) -> JobStatus:
    """Wait until a job is in one of these states."""
    until(lambda: job.progress().state in states, f"{states}, it is {job.progress()}", limit_s)
    return job.progress()


def until_bytes_flow(job: Job) -> JobStatus:
    """Wait until some of the model has come."""

    def flow() -> bool:
        progress = job.progress().progress
        return progress is not None and 250_000 < progress.bytes_done < progress.bytes_total // 2

    until(flow, "bytes flow")
    return job.progress()


def is_there(pid: int) -> bool:
    """Whether a process runs, or is a zombie."""
    return bool(psutil.pid_exists(pid))


def python(code: str, *words: str) -> "subprocess.Popen[str]":
    """Another process, in a session of its own as a terminal gives it."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def said_by(code: str, *words: str) -> str:
    """What another process prints."""
    out, errors = python(code, *words).communicate(timeout=LIMIT_S)
    assert errors == "", errors
    return out.strip()


@contextlib.contextmanager
def command(*words: str, env: dict[str, str] | None = None) -> Iterator["subprocess.Popen[str]"]:
    """`overair WORDS` for the time of a block; it is killed at the end if it still runs."""
    process = subprocess.Popen(
        [COMMAND, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def ran(words: Sequence[str], *, code: int = 0) -> str:
    """What `overair WORDS` prints."""
    with command(*words) as process:
        out, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == code, errors
    return out


def seconds_to_end(process: "subprocess.Popen[str]", number: int = signal.SIGTERM) -> float:
    """How long a process takes to end after a signal."""
    started = time.monotonic()
    process.send_signal(number)
    process.communicate(timeout=LIMIT_S)
    return time.monotonic() - started
