"""Every error that Overair raises on purpose, in one tree.

    OverairError                     1   other failure
    +-- IllegalEventError            1   the state of the device does not allow that
    +-- UsageError                   2   the call itself is wrong
    +-- TrustError                  20   metadata is not signed by whom it should be
    |   `-- ExpiredError            20   metadata is too old to act on
    |       `-- SuspectClockError   20   or the clock of this machine is wrong
    +-- IntegrityError              21   bytes are not what was promised
    |   +-- GGUFError               21   a file is not a whole GGUF
    |   `-- ManifestError           21   a manifest is not one
    +-- DeferredError               22   a condition says: not now
    +-- StorageError                23   the disk refused
    |   `-- NoSpaceError            23   the disk is full, or would be
    +-- NetworkError                24   no answer, or a wrong one
    |   +-- HTTPStatusError         24   an answer with another status than expected
    |   `-- CancelledError          24   the caller stopped a download
    +-- EngineError                 25   a model does not load or does not answer
    |   +-- EngineMissingError      25   the engine is not installed
    |   `-- ProbeError              25   a release failed its probe, and does not become current
    +-- LockedError                 26   another process holds the lock
    `-- StateUnreadableError        27   the device's state cannot be read

Each class owns its exit code (DESIGN section 8) and whether trying the same thing again later can help.
A message says what, where and why in one line; the hint says what to do. Foreign exceptions are mapped to
these at the boundary where they arise; whatever else escapes is a bug.
"""

from typing import ClassVar


class OverairError(Exception):
    """The root of the tree.

    Args:
        message: One line that says what went wrong, where and why.
        hint: One line that says what to do about it.
    """

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint


class IllegalEventError(OverairError):
    """The state of the device does not allow what was asked; nothing has changed."""

    default_hint = "see what is here with: overair device status"


class UsageError(OverairError):
    """The call itself is wrong: an unknown option, a missing value, a name that is not one."""

    exit_code = 2


class TrustError(OverairError):
    """Metadata is not signed by whom it should be."""

    exit_code = 20


class ExpiredError(TrustError):
    """Metadata is authentic but too old to act on."""

    retryable = True


class SuspectClockError(ExpiredError):
    """Metadata has expired by a clock that is more likely to be wrong."""


class IntegrityError(OverairError):
    """Bytes are not what was promised: another length, another digest, another format."""

    exit_code = 21
    retryable = True
    default_hint = "try again; if it stays so, the file on the server is damaged: publish it again"


class GGUFError(IntegrityError):
    """A file is not a whole GGUF."""

    retryable = False
    default_hint = "export the model again and look at it with: overair inspect FILE"


class ManifestError(IntegrityError):
    """A manifest is not one."""

    default_hint = "check the URL of the manifest, and the manifest with: overair repo check"


class DeferredError(OverairError):
    """A condition says: not now."""

    exit_code = 22
    retryable = True


class StorageError(OverairError):
    """The disk refused to read or to write."""

    exit_code = 23
    default_hint = "is the folder there, on a disk that works, and may this user write to it?"


class NoSpaceError(StorageError):
    """The disk is full, or would be."""

    retryable = True
    default_hint = "free some space, or run: overair device gc"


class NetworkError(OverairError):
    """No answer from the server, or a wrong one."""

    exit_code = 24
    retryable = True
    default_hint = "check the network and the URL, then run the same command again: it continues where it stopped"


class HTTPStatusError(NetworkError):
    """The server answered with another status than expected.

    Args:
        message: See `OverairError`.
        status: The HTTP status code (RFC 9110 section 15).
        hint: See `OverairError`.
    """

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class CancelledError(NetworkError):
    """The caller stopped a download; the bytes that came are kept."""

    default_hint = "run the same command again: it continues where it stopped"


class EngineError(OverairError):
    """A model does not load or does not answer."""

    exit_code = 25


class EngineMissingError(EngineError):
    """The engine that was asked for is not installed."""


class ProbeError(EngineError):
    """A release failed its probe: it does not become current, and on a device it is in quarantine."""


class LockedError(OverairError):
    """Another process holds the lock."""

    exit_code = 26
    retryable = True
    default_hint = "wait for the other process to finish, then run the same command again"


class StateUnreadableError(OverairError):
    """The device's state cannot be read, so nothing is decided on it."""

    exit_code = 27
