"""What a download will do, computed before any byte moves."""

from collections.abc import Mapping

import msgspec

from overair.model.conditions import Conditions
from overair.model.release import Artifact, Release


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact to bring to this disk: how many of its bytes are there already, and where the others come from."""

    artifact: Artifact
    bytes_present: int

    @property
    def bytes_to_fetch(self) -> int:
        """What still has to come over the network."""
        return self.artifact.size_bytes - self.bytes_present


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of a download, and what stands in its way.

    Args:
        release: What will be staged.
        steps: The artifacts, in the order in which they are fetched.
        bytes_to_fetch: What comes over the network.
        disk_bytes_needed: What must be free before the download starts, the floor included.
        disk_bytes_free: What is free.
        blocked_by: One line for each thing that stands in the way now; empty when nothing does.
    """

    release: Release
    steps: tuple[Step, ...]
    bytes_to_fetch: int
    disk_bytes_needed: int
    disk_bytes_free: int
    blocked_by: tuple[str, ...] = ()


def make_plan(
    release: Release,
    present: Mapping[str, int],
    free_bytes: int,
    conditions: Conditions,
    *,
    reserved: Mapping[str, int] | None = None,
) -> Plan:
    """Plan a download.

    Args:
        release: What to bring here.
        present: By digest, how many bytes of a blob are on this disk.
        free_bytes: What is free on the disk of the store.
        conditions: What must hold.
        reserved: By digest, how many bytes of the disk a download that was begun holds, where that is more than came:
            they are missing from `free_bytes` already.
    """
    held = {**present, **(reserved or {})}
    steps = tuple(
        Step(artifact=artifact, bytes_present=min(present.get(artifact.sha256, 0), artifact.size_bytes))
        for artifact in release.artifacts
    )
    fetch = sum(step.bytes_to_fetch for step in steps)
    room = sum(max(a.size_bytes - held.get(a.sha256, 0), 0) for a in release.artifacts)
    needed = room + conditions.min_free_bytes if fetch else 0
    shortage = (
        f"the disk has {free_bytes:,} bytes free, and {needed:,} are needed"
        f" ({room:,} for the download, {conditions.min_free_bytes:,} to stay free)"
    )
    return Plan(
        release=release,
        steps=steps,
        bytes_to_fetch=fetch,
        disk_bytes_needed=needed,
        disk_bytes_free=free_bytes,
        blocked_by=(shortage,) if free_bytes < needed else (),
    )
