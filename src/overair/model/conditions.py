"""What must hold before and while a device downloads."""

from typing import Final

import msgspec

KB: Final = 1_000
MB: Final = 1_000_000
GB: Final = 1_000_000_000


DEFAULT_MIN_FREE_BYTES: Final = 2 * GB


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What must hold before and while a device downloads.

    Args:
        min_free_bytes: What must stay free on the disk after the update, in bytes.
        max_bytes_per_second: The most that a download may take of the network, or None for all of it.
    """

    min_free_bytes: int = DEFAULT_MIN_FREE_BYTES
    max_bytes_per_second: int | None = None
