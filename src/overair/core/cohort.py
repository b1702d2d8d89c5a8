"""Which devices a rollout reaches: a stable share of them, the same on every device without asking anybody."""

import hashlib
from datetime import datetime
from typing import Final

from overair.model.manifest import BASIS_POINTS, Rollout

_SEPARATOR: Final = b"\x1f"


def bucket(salt: str, device_id: str) -> int:
    """The place of a device in a rollout, from 0 to 9999 (DESIGN section 4)."""
    digest = hashlib.sha256(salt.encode() + _SEPARATOR + device_id.encode()).digest()
    return (int.from_bytes(digest[:8], "big") * BASIS_POINTS) >> 64


def reach(rollout: Rollout, now: datetime) -> int:
    """How many basis points of the devices the rollout reaches at a time (aware, UTC).

    It reaches nobody before `starts_at`, and its share grows evenly from none over `ramp_seconds`.
    """
    if rollout.starts_at is None:
        return rollout.basis_points
    elapsed = (now - datetime.fromisoformat(rollout.starts_at)).total_seconds()
    if elapsed < 0:
        return 0
    if elapsed >= rollout.ramp_seconds:
        return rollout.basis_points
    return int(rollout.basis_points * elapsed / rollout.ramp_seconds)


def in_cohort(rollout: Rollout, device_id: str, now: datetime) -> bool:
    """Whether a rollout reaches a device at a time."""
    return bucket(rollout.salt, device_id) < reach(rollout, now)
