"""An update in another process, as the files that it shares with its watchers spell it."""

from enum import StrEnum
from typing import Annotated

import msgspec

from overair.model.conditions import Conditions
from overair.model.manifest import Timestamp
from overair.model.progress import Progress

JobId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$", max_length=32, description="a random name")]


class JobState(StrEnum):
    """What a background job is doing, or how it ended; the last six are ends."""

    STARTING = "starting"
    CHECKING = "checking"
    WAITING = "waiting"
    PAUSED = "paused"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    PROBING = "probing"

    STAGED = "staged"
    UP_TO_DATE = "up-to-date"
    DEFERRED = "deferred"
    CANCELLED = "cancelled"
    FAILED = "failed"
    DIED = "died"

    @property
    def is_end(self) -> bool:
        """Whether nothing comes after it."""
        return self in _ENDS


_ENDS = frozenset(
    {
        JobState.STAGED,
        JobState.UP_TO_DATE,
        JobState.DEFERRED,
        JobState.CANCELLED,
        JobState.FAILED,
        JobState.DIED,
    }
)


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a background job last said of itself.

    Args:
        id: The job.
        state: What it is doing, or how it ended. `died` is what its watchers find: it said nothing of an end.
        pid: Its process.
        started_at: When it began.
        updated_at: When it said this.
        progress: How far it is, once it downloads.
        version: The version that it brings, once that is known.
        message: What it waits for, or how it ended, in a line for people.
        hint: What to do about it.
        exit_code: That of the command `overair device update`, once it has ended.
    """

    id: JobId
    state: JobState
    pid: int
    started_at: Timestamp
    updated_at: Timestamp
    progress: Progress | None = None
    version: str | None = None
    message: str = ""
    hint: str = ""
    exit_code: int | None = None


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a job is started with.

    Args:
        id: The job.
        store: The store's folder.
        conditions: What must hold before and while it downloads.
        folder: A copy of the repository to update from, or None for the network.
    """

    id: JobId
    store: str
    conditions: Conditions = Conditions()
    folder: str | None = None


class Want(StrEnum):
    """What somebody wants of a running job."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of which job; one that was meant for an earlier job says nothing to the next."""

    id: JobId
    want: Want
