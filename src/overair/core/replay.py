"""Rebuild a state that was lost from what is left: the releases on the disk, and the history."""

from collections.abc import Iterable, Mapping
from functools import cmp_to_key
from typing import Final

from overair.model.digest import Digest
from overair.model.events import Event, Happening
from overair.model.release import Release
from overair.model.state import TRIES_ON_TRIAL, TRIES_PROVEN, ProbeNote, Quarantined, Slot, State
from overair.model.version import compare

_LONG_AGO: Final = "1970-01-01T00:00:00Z"


def replay(events: Iterable[Event], releases: Mapping[Digest, Release]) -> tuple[State, tuple[str, ...]]:
    """The state that the history led to, as far as the releases are still here; and what was lost, a line each.

    Where the history says nothing of what ran, the newest release that is here goes on trial, with the next one
    behind it: a device without a network needs a model.
    """
    told = _Told(events)
    lost = ["the highest manifest sequence that this device had seen", "how many tries were left"]
    current, previous, pending = (_slot(name, told, releases) for name in (told.current, told.previous, told.pending))
    for name, digest, slot in (("current", told.current, current), ("previous", told.previous, previous)):
        if digest is not None and slot is None:
            lost.append(f"the {name} release {digest[:16]}: its files are not here or damaged")
    if current is None:
        current, previous = previous, None
    if current is None:
        spare = [r for r in _newest_first(releases.values()) if r.id not in told.barred]
        current, previous = ([Slot(release=release) for release in spare] + [None, None])[:2]
        lost += ["which release was current: the newest one that is here is on trial"] if current else []
    tries = 0 if current is None else TRIES_PROVEN if current.proven else TRIES_ON_TRIAL
    state = State(
        generation=1,
        current=current,
        previous=previous,
        pending=pending if pending is None or current is None or pending.id != current.id else None,
        tries_left=tries,
        quarantine=tuple(told.quarantine.values()),
    )
    return state, tuple(lost)


class _Told:
    """What the history says, event by event."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.current: Digest | None = None
        self.previous: Digest | None = None
        self.pending: Digest | None = None
        self.proven: set[Digest] = set()
        self.probes: dict[Digest, ProbeNote] = {}
        self.quarantine: dict[tuple[Digest, str | None], Quarantined] = {}
        for event in events:
            self._take(event)

    @property
    def barred(self) -> frozenset[Digest]:
        return frozenset(entry.release_id for entry in self.quarantine.values())

    def _take(self, event: Event) -> None:
        match event.what:
            case Happening.STAGED:
                self.pending = event.release_id
                self._free(event.release_id)
            case Happening.PROBED:
                at, engine = event.at or _LONG_AGO, event.engine or ""
                self.probes[event.release_id] = ProbeNote(at=at, engine=engine, figures=event.figures)
            case Happening.REFUSED:
                self.pending = None if self.pending == event.release_id else self.pending
                self._bar(event, probed=True)
            case Happening.UNSTAGED:
                self.pending = None
            case Happening.SWAPPED:
                self.current, self.previous, self.pending = event.release_id, self.current, None
            case Happening.CONFIRMED:
                self.proven.add(event.release_id)
            case Happening.ROLLED_BACK:
                self.current, self.previous = event.release_id, None
                self._free(event.release_id)
            case Happening.QUARANTINED:
                self.current = None if self.current == event.release_id else self.current
                self._bar(event)
            case _:
                pass

    def _free(self, release_id: Digest) -> None:
        self.quarantine = {key: entry for key, entry in self.quarantine.items() if entry.release_id != release_id}

    def _bar(self, event: Event, *, probed: bool = False) -> None:
        key = (event.release_id, event.engine if probed else None)
        self.quarantine.pop(key, None)
        self.quarantine[key] = Quarantined(
            release_id=event.release_id,
            tier=event.tier,
            version=event.version,
            reason=event.reason,
            at=event.at or _LONG_AGO,
            app_version=event.app_version,
            engine=event.engine,
            probed=probed,
        )


def _slot(digest: Digest | None, told: _Told, releases: Mapping[Digest, Release]) -> Slot | None:
    # A release in quarantine may stand as previous, if a probe refused it after it had done well.
    release = None if digest is None or (digest in told.barred and digest != told.previous) else releases.get(digest)
    if release is None:
        return None
    return Slot(release=release, proven=release.id in told.proven, probe=told.probes.get(release.id))


def _newest_first(releases: Iterable[Release]) -> list[Release]:
    def order(left: Release, right: Release) -> int:
        return compare(right.version, left.version)

    return sorted(releases, key=cmp_to_key(order))
