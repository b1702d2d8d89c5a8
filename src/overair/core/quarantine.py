"""What a device will not try again, and until when.

An entry binds a release to the versions of the app and of the engine that it failed under. One that a session made
counts as long as sessions use that engine. One that a probe made counts as long as probes would: the two may use
different engines, and each engine that probes bars a release for itself.
"""

from msgspec.structs import replace

from overair.core.commands import Command
from overair.model.digest import Digest
from overair.model.state import MAX_QUARANTINE, Quarantined, Slot, State


def is_quarantined(state: State, release_id: Digest, app_version: str | None, engine: str | None = None) -> bool:
    """Whether a release failed here, and neither the app nor the engine has changed since.

    Args:
        state: The device.
        release_id: The release.
        app_version: The app's version now.
        engine: The engine that would probe the release now, with its version; None where nobody can tell, and then
            what a probe refused stays refused.
    """
    return any(
        q.release_id == release_id
        and q.app_version == app_version
        and (engine in {None, q.engine} if q.probed else q.engine == state.engine)
        for q in state.quarantine
    )


def entry(slot: Slot, c: Command, reason: str, *, engine: str | None, probed: bool = False) -> Quarantined:
    """The entry for a release that failed, by a command, with an engine."""
    return Quarantined(
        release_id=slot.id,
        tier=slot.release.tier,
        version=slot.release.version,
        reason=reason,
        at=c.at,
        app_version=c.app_version,
        engine=engine,
        probed=probed,
    )


def bar(state: State, entry: Quarantined) -> State:
    """Add an entry, in the place of the one that it repeats. Engines that probe bar a release each for themselves."""

    def repeats(q: Quarantined) -> bool:
        same = (q.release_id, q.probed) == (entry.release_id, entry.probed)
        return same and (not entry.probed or q.engine == entry.engine)

    kept = tuple(q for q in state.quarantine if not repeats(q))
    return replace(state, quarantine=(*kept, entry)[-MAX_QUARANTINE:])


def free(state: State, release_id: Digest) -> State:
    """Take a release out of quarantine."""
    return replace(state, quarantine=tuple(q for q in state.quarantine if q.release_id != release_id))
