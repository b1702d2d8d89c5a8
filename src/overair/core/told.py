"""How the state machine words what happened."""

from msgspec.structs import replace

from overair.core.commands import Command
from overair.model.events import Cause, Event, Happening
from overair.model.state import Slot, State


def stamped(event: Event, state: State, command: Command) -> Event:
    """The event with the versions under which it happened."""
    return replace(
        event,
        at=command.at,
        app_version=event.app_version or command.app_version,
        engine=event.engine or state.engine,
    )


def event_of(
    what: Happening, slot: Slot, *, reason: str = "", cause: Cause | None = None, replaced: Slot | None = None
) -> Event:
    """What happened to the release in a slot; `stamped` adds when, and under which versions."""
    release = slot.release
    return Event(
        what=what,
        tier=release.tier,
        version=release.version,
        release_id=release.id,
        sha256=release.model.sha256,
        replaced=replaced.release.version if replaced else None,
        reason=reason,
        cause=cause,
    )
