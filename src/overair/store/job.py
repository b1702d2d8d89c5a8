"""The files that a background job shares with whoever watches it: `job/` in a store.

They are replaced whole and never synced: after a power cut there is no job that they could tell of. Nothing of the
device's state is decided by them, so what is damaged or too large counts as not there.
"""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from overair.errors import StorageError
from overair.model.job import Control, JobState, JobStatus, Want
from overair.store import durable
from overair.store.lock import exclusive, is_held

MAX_BYTES: Final = 64_000
# Whoever looks whether the lock is held has it for an instant: a job that begins then has to try again.
TAKE_LOCK_S: Final = 1.0

T = TypeVar("T")


class JobFiles:
    """The files of a store's background job.

    Args:
        store: The store's folder.
    """

    def __init__(self, store: Path) -> None:
        self.folder = store / "job"
        self.log = self.folder / "log"
        self._lock = self.folder / "lock"
        self._status = self.folder / "status.json"
        self._control = self.folder / "control.json"

    def create(self) -> None:
        """Make the folder.

        Raises:
            StorageError: The disk refused.
        """
        durable.make_directory(self.folder)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Be the store's only job.

        Raises:
            LockedError: Another job runs.
            StorageError: The disk refused.
        """
        with exclusive(self._lock, timeout_s=TAKE_LOCK_S):
            for left in self.folder.glob(f"*{durable.TEMPORARY_SUFFIX}"):
                with contextlib.suppress(StorageError):
                    durable.remove_file(left)
            yield

    def is_running(self) -> bool:
        """Whether a job's process lives.

        Raises:
            StorageError: The disk refused.
        """
        return self._lock.exists() and is_held(self._lock)

    def status(self) -> JobStatus | None:
        """What the last job says, or None when there was none.

        Raises:
            StorageError: The disk refused.
        """
        said = _read(self._status, JobStatus)
        if said is None or said.state.is_end or self.is_running():
            return said
        said = _read(self._status, JobStatus)  # it may have ended, and said so, between the two looks
        if said is None or said.state.is_end:
            return said
        return msgspec.structs.replace(
            said,
            state=JobState.DIED,
            message="its process died; what came is kept",
            hint="start it again: it continues where it stopped",
        )

    def say(self, status: JobStatus) -> None:
        """Let the watchers know. The job's lock must be held.

        Raises:
            StorageError: The disk refused, or on Windows somebody reads just now.
        """
        _replace(self._status, status)

    def want(self, control: Control) -> None:
        """Let the job know what is wanted of it.

        Raises:
            StorageError: The disk refused.
        """
        _replace(self._control, control)

    def wanted(self, job_id: str) -> Want:
        """What is wanted of a job."""
        control = _read(self._control, Control)
        return control.want if control is not None and control.id == job_id else Want.RUN


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        return msgspec.json.decode(data, type=kind) if len(data) <= MAX_BYTES else None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _replace(path: Path, value: msgspec.Struct) -> None:
    # Several may write at once, each to a file of its own; the last one wins.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}{durable.TEMPORARY_SUFFIX}")
    try:
        with durable.storage_errors("write", path):
            temporary.write_bytes(msgspec.json.encode(value))
        durable.exchange(temporary, path)
    except StorageError:
        with contextlib.suppress(StorageError):
            durable.remove_file(temporary)
        raise
