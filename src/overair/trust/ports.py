"""What trust needs from outside, passed in by the device's journey."""

from typing import Protocol


class Files(Protocol):
    """Where a device keeps its metadata. A name is a role's file name, or one below `root_history/`."""

    def read(self, name: str) -> bytes | None:
        """The content of a file, or None where there is none.

        Raises:
            StorageError: The disk refused.
        """
        ...

    def write(self, name: str, data: bytes) -> None:
        """Replace a file's content durably: after a power cut the old or the new one is there, whole.

        Raises:
            StorageError: The disk refused.
        """
        ...


class Fetch(Protocol):
    """Gets a URL, with time limits of its own: for each read, and for all of one refresh."""

    def __call__(self, url: str, max_bytes: int, /) -> bytes:
        """The whole body.

        Raises:
            HTTPStatusError: The server answered with another status than 200.
            IntegrityError: The body is longer than `max_bytes`.
            NetworkError: No whole answer came.
        """
        ...
