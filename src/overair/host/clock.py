"""What time it is, and since when the machine runs."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

# A clock that shows an earlier time is wrong; each release moves this on.
BUILT_AT: Final = datetime(2026, 11, 23, tzinfo=UTC)
_LINUX_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def utc_now() -> datetime:
    """The time, aware, in UTC."""
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """A moment as manifests and events spell it, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def boot_id() -> str:
    """A text that stays the same from one start of the machine to the next."""
    try:
        return _LINUX_BOOT_ID.read_text().strip()
    except OSError:
        import psutil

        return f"boot-{psutil.boot_time():.0f}"
