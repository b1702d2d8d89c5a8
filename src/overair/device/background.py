"""An update in another process, which goes on when the app ends.

The process shares nothing with the one that starts it but the files in the store (`overair.store.job`): any process
may watch it, pause it or cancel it. There is one at a time; a second start finds the first.
"""

import contextlib
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from overair.errors import IllegalEventError, LockedError, OverairError, UsageError
from overair.model.conditions import Conditions
from overair.model.job import Control, JobState, JobStatus, Order, Want
from overair.store.job import JobFiles

START_LIMIT_S: Final = 30.0
OBEY_LIMIT_S: Final = 5.0
_POLL_S: Final = 0.1
_START_POLL_S: Final = 0.01
# Another process that looks at the lock has it for an instant, which is not a job.
_LOOKS: Final = 3
_MAX_WORDS: Final = 64_000


class Job:
    """The store's background job; any process may have one of these for the same job.

    Args:
        store: The store's folder.
    """

    def __init__(self, store: Path) -> None:
        self._files = JobFiles(store)

    def progress(self) -> JobStatus:
        """What it is doing and how far it is, or how it ended.

        Raises:
            IllegalEventError: There was never a job in this store.
            StorageError: The disk refused.
        """
        status = self._files.status()
        if status is None:
            raise IllegalEventError(
                "there is no background job", hint="start one with: overair device update --background"
            )
        return status

    def wait(self, timeout_s: float | None = None) -> JobStatus:
        """Wait for its end, or for so many seconds; returns what it says then.

        Raises:
            StorageError: The disk refused.
        """
        return self._until(lambda status: status.state.is_end, timeout_s)

    def pause(self) -> JobStatus:
        """Stop using the network and keep what came; returns when it has obeyed, or after five seconds.

        Raises:
            IllegalEventError: It does not run.
            StorageError: The disk refused.
        """
        return self._want(Want.PAUSE, lambda status: status.state is JobState.PAUSED)

    def resume(self) -> JobStatus:
        """Go on after a pause; returns when it has obeyed, or after five seconds.

        Raises:
            IllegalEventError: It does not run.
            StorageError: The disk refused.
        """
        return self._want(Want.RUN, lambda status: status.state is not JobState.PAUSED)

    def cancel(self) -> JobStatus:
        """End it and keep what came; returns when it has ended, or after five seconds.

        Raises:
            IllegalEventError: It does not run.
            StorageError: The disk refused.
        """
        return self._want(Want.CANCEL, lambda _: False)

    def _want(self, want: Want, obeyed: Callable[[JobStatus], bool]) -> JobStatus:
        status = self.progress()
        if status.state.is_end:
            raise IllegalEventError(
                f"the background job has ended: {status.state}", hint="see: overair device progress"
            )
        self._files.want(Control(id=status.id, want=want))
        return self._until(lambda now: now.state.is_end or obeyed(now), OBEY_LIMIT_S)

    def _until(self, enough: Callable[[JobStatus], bool], timeout_s: float | None) -> JobStatus:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not enough(status := self.progress()) and (deadline is None or time.monotonic() < deadline):
            time.sleep(_POLL_S)
        return status


def find(store: Path) -> Job | None:
    """The job that runs in a store, or the last that ran; None when there was never one."""
    return Job(store) if JobFiles(store).status() is not None else None


def start(store: Path, *, conditions: Conditions | None = None, folder: Path | None = None) -> Job:
    """Update a device that is set up, in another process; returns once it has begun, or finds the one that runs.

    Args:
        store: The store's folder.
        conditions: What must hold before and while it downloads; the job waits until it does.
        folder: A copy of the repository to update from instead of the network.

    Raises:
        UsageError: This program has no Python that could run it.
        StorageError: The disk refused.
        OverairError: It did not begin.
    """
    _require_python()
    files = JobFiles(store)
    files.create()
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if files.is_running():
            if _runs(files):
                break
            time.sleep(_START_POLL_S)  # it is just ending
            continue
        order = Order(
            id=uuid.uuid4().hex,
            store=str(store.absolute()),
            conditions=conditions or Conditions(),
            folder=str(folder.absolute()) if folder else None,
        )
        if _begins(_spawn(order), files, order.id, deadline):
            break
    else:
        raise LockedError(f"no background job could be started in {store} within {START_LIMIT_S:.0f} s")
    return Job(store)


def _require_python() -> None:
    if getattr(sys, "frozen", False) or not sys.executable:
        raise UsageError(
            "this program has no Python of its own that could run an update in the background",
            hint="call update() in a thread, or install the agent: overair device agent --print-unit",
        )


def _runs(files: JobFiles) -> bool:
    for _ in range(_LOOKS):
        status = files.status()
        if status is None or status.state.is_end:
            return False
        time.sleep(_START_POLL_S)
    return True


def _spawn(order: Order) -> "subprocess.Popen[bytes]":
    """Start the process. The order goes by a pipe: what stands in its arguments, every user of the machine can read."""
    # -P: the folder that it runs in holds downloads, and must not be where Python looks for modules.
    command = [sys.executable, "-P", "-m", "overair.device.worker"]
    process = subprocess.Popen(
        command,
        cwd=order.store,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        **_detached(),
    )
    if process.stdin is not None:
        with contextlib.suppress(OSError), process.stdin:  # one that died at once says why on the other pipe
            process.stdin.write(msgspec.json.encode(order))
    return process


def _detached() -> dict[str, Any]:
    """What keeps a closing terminal or app from ending it."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _begins(process: "subprocess.Popen[bytes]", files: JobFiles, job_id: str, deadline: float) -> bool:
    """Whether it has begun; False when another job was faster."""
    while not ((status := files.status()) is not None and status.id == job_id):
        if process.poll() is not None:
            said = _last_words(process)
            if process.returncode == LockedError.exit_code:
                return False
            raise OverairError(
                f"the background job did not begin: {said or f'exit code {process.returncode}'}",
                hint="does this Python have overair installed? see it fail with: python -m overair.device.worker",
            )
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            _last_words(process)
            raise OverairError(f"the background job did not begin within {START_LIMIT_S:.0f} s")
        time.sleep(_START_POLL_S)
    if process.stderr is not None:
        process.stderr.close()
    # Somebody has to fetch its exit code, or it stays as a zombie for as long as the app runs.
    threading.Thread(target=process.wait, name="overair-job", daemon=True).start()
    return True


def _last_words(process: "subprocess.Popen[bytes]") -> str:
    """The last line that a process wrote which has ended."""
    if process.stderr is None:
        return ""
    with process.stderr:
        lines = process.stderr.read(_MAX_WORDS).decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
