"""What a device knows about itself: its slots, its trial, its open sessions, its quarantine."""

from typing import Annotated, Final

import msgspec

from overair.model.digest import Digest
from overair.model.events import Figures
from overair.model.manifest import Timestamp
from overair.model.release import Release

TRIES_ON_TRIAL: Final = 2
TRIES_PROVEN: Final = 3
MAX_QUARANTINE: Final = 256
FORMAT: Final = 1


class ProbeNote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A probe that a release passed on this device.

    Args:
        at: When.
        engine: The engine, with its version, that it passed with.
        figures: What was measured, by name: what the next release is compared with.
    """

    at: Timestamp
    engine: str
    figures: Figures = {}


class Slot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A release that lies on this disk, whole.

    Args:
        release: What lies there, with the addresses it came from, so that it can be repaired.
        proven: It was confirmed by a session on this device.
        withdrawn: The publisher took it back; it is not returned to.
        probe: The last probe that it passed here.
    """

    release: Release
    proven: bool = False
    withdrawn: bool = False
    probe: ProbeNote | None = None

    @property
    def id(self) -> Digest:
        """The release's name on this device."""
        return self.release.id


class OpenSession(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A session that began and has not ended.

    Args:
        id: The session's name, and that of its lease.
        release_id: The release that it runs.
        charged: It holds a try, which is given back when it does well.
        external: The engine is run by another program, so nobody holds a lease for it.
    """

    id: str
    release_id: Digest
    charged: bool = True
    external: bool = False


class Quarantined(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A release that this device will not try again, unless the app or the engine changes.

    Args:
        release_id: The release.
        tier: Its tier.
        version: Its version.
        reason: What was bad, in a line for people.
        at: Since when.
        app_version: The app's version; with another one it is free.
        engine: The engine that it failed with; with another version it is free.
        probed: It failed in a probe, and `engine` is the one that probed it, which sessions may never use.
    """

    release_id: Digest
    tier: str
    version: str
    reason: str
    at: Timestamp
    app_version: str | None = None
    engine: str | None = None
    probed: bool = False


class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that decides which model runs. Only `core/slots.py` makes a new one from an old one.

    Args:
        format: The version of this shape.
        generation: Rises with each write; of two copies the higher one counts.
        current: What a session runs.
        previous: What a rollback returns to.
        pending: What the next session swaps in.
        tries_left: How many more times the current release may be started before it has to do well.
        sessions: Sessions that began and have not ended.
        quarantine: What is not tried again.
        sequences: The highest manifest sequence that was acted on, by channel and repository.
        engine: The engine, with its version, that the last session used.
    """

    format: Annotated[int, msgspec.Meta(ge=FORMAT, le=FORMAT)] = FORMAT
    generation: Annotated[int, msgspec.Meta(ge=0)] = 0
    current: Slot | None = None
    previous: Slot | None = None
    pending: Slot | None = None
    tries_left: Annotated[int, msgspec.Meta(ge=0, le=TRIES_PROVEN)] = 0
    sessions: tuple[OpenSession, ...] = ()
    quarantine: tuple[Quarantined, ...] = ()
    sequences: dict[str, int] = {}
    engine: str | None = None

    @property
    def on_trial(self) -> bool:
        """Whether the current release still has to be confirmed."""
        return self.current is not None and not self.current.proven

    def session(self, session_id: str) -> OpenSession | None:
        """The open session of this name."""
        return next((s for s in self.sessions if s.id == session_id), None)

    def slots(self) -> tuple[Slot, ...]:
        """The slots that are filled: current, previous, pending."""
        return tuple(slot for slot in (self.current, self.previous, self.pending) if slot is not None)
