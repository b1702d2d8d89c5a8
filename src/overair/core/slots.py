"""The state machine of a device: which release runs, and what becomes of it.

Theory of operation
-------------------
A device has three slots. A download ends in *pending*. The next session swaps: pending becomes *current*, the release
that was current becomes *previous*, and a trial begins, all in one write of the state. Nothing else makes a release
current but a rollback, which makes previous current again.

A release on trial has two tries, a proven one three. A session takes a try **before** it loads the model, and the
state that says so is durable before the load: a model that takes the whole machine down has paid already. The try is
given back when the session ends cleanly or dies while the model was doing nothing; a completed generation gives all
tries back; a confirm makes the release proven. When a session dies in a load or a generation its try stays lost, and
when none is left the device rolls back and quarantines the release.

A verdict is bound to the session that gives it and to the release that the session runs. A session keeps running its
release whatever happens to the slots meanwhile, and what it reports about a release that is no longer current
changes nothing.

With nowhere to go back to, a release on trial leaves the device empty, and a proven one stays: a model that worked
once is better than none.

`apply` looks the rule up by phase and event in `TRANSITIONS`; an event that the table does not allow raises
`IllegalEventError` and changes nothing.
"""

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final

from msgspec.structs import replace

from overair.core.commands import (
    Begin,
    Command,
    Complete,
    Confirm,
    Die,
    End,
    Fail,
    RollBack,
    See,
    Stage,
    Unstage,
    Withdraw,
)
from overair.errors import IllegalEventError
from overair.model.digest import Digest
from overair.model.events import Event, Happening
from overair.model.state import MAX_QUARANTINE, TRIES_ON_TRIAL, TRIES_PROVEN, OpenSession, Quarantined, Slot, State


class Phase(Enum):
    """What the current slot holds."""

    EMPTY = "empty"
    TRIAL = "trial"
    PROVEN = "proven"


Step = tuple[State, tuple[Event, ...]]


def phase_of(state: State) -> Phase:
    """The phase that the table is looked up by."""
    if state.current is None:
        return Phase.EMPTY
    return Phase.PROVEN if state.current.proven else Phase.TRIAL


def apply(state: State, command: Command) -> Step:
    """The state after a command, and what happened on the way.

    Raises:
        IllegalEventError: The state does not allow the command.
    """
    transition = TRANSITIONS.get((phase_of(state), type(command)))
    if transition is None:
        raise IllegalEventError(
            f"{type(command).__name__.lower()} is not possible: nothing is installed yet",
            hint="install a release with: overair device update",
        )
    return transition[0](state, command)


def is_quarantined(state: State, release_id: Digest, app_version: str | None) -> bool:
    """Whether a release failed here, and neither the app nor the engine has changed since."""
    return any(
        q.release_id == release_id and (q.app_version, q.engine) == (app_version, state.engine)
        for q in state.quarantine
    )


def would_change(state: State, commands: Iterable[Command]) -> bool:
    """Whether commands, one after the other, lead to another state.

    Raises:
        IllegalEventError: The state does not allow one of them.
    """
    after = state
    for command in commands:
        after, _ = apply(after, command)
    return after != state


def _event(what: Happening, slot: Slot, at: str, *, reason: str = "", replaced: Slot | None = None) -> Event:
    release = slot.release
    return Event(
        what=what,
        tier=release.tier,
        version=release.version,
        release_id=release.id,
        replaced=replaced.release.version if replaced else None,
        reason=reason,
        at=at,
    )


def _stage(state: State, c: Stage) -> Step:
    if state.current is not None and state.current.id == c.slot.id:
        raise IllegalEventError(f"{c.slot.release.version} is current already: there is nothing to stage")
    # The offer may be older than the quarantine: another process staged it too, and it failed meanwhile.
    if is_quarantined(state, c.slot.id, c.app_version):
        raise IllegalEventError(f"{c.slot.release.version} is in quarantine: it is not staged again")
    kept = tuple(q for q in state.quarantine if q.release_id != c.slot.id)
    return replace(state, pending=c.slot, quarantine=kept), (_event(Happening.STAGED, c.slot, c.at),)


def _unstage(state: State, c: Unstage) -> Step:
    if state.pending is None:
        return state, ()
    return replace(state, pending=None), (_event(Happening.UNSTAGED, state.pending, c.at, reason=c.reason),)


def _withdraw(state: State, c: Withdraw) -> Step:
    events: tuple[Event, ...] = ()
    if state.pending is not None and state.pending.id in c.release_ids:
        state, events = _unstage(state, Unstage(at=c.at, reason="withdrawn by the publisher"))
    if state.previous is not None and state.previous.id in c.release_ids:
        state = replace(state, previous=None)
    if state.current is not None and state.current.id in c.release_ids:
        state = replace(state, current=replace(state.current, withdrawn=True))
    return state, events


def _see(state: State, c: See) -> Step:
    seen = state.sequences.get(c.channel, 0)
    if c.sequence <= seen:
        return state, ()
    return replace(state, sequences=state.sequences | {c.channel: c.sequence}), ()


def _begin(state: State, c: Begin) -> Step:
    """Swap if there is something to swap in, then take a try for the session."""
    if state.session(c.session_id) is not None:
        raise IllegalEventError(f"session {c.session_id} has begun already")
    state, events = _swap(state, state.pending, c.at) if state.pending is not None else (state, ())
    if state.current is None:
        raise IllegalEventError("nothing is installed yet", hint="install a release first with: overair device update")
    # A proven release that another program runs cannot be watched: reboots would add up to strikes.
    charged = state.tries_left > 0 and not (c.external and state.current.proven)
    session = OpenSession(id=c.session_id, release_id=state.current.id, charged=charged, external=c.external)
    state = replace(
        state,
        tries_left=state.tries_left - charged,
        sessions=(*state.sessions, session),
        engine=c.engine or state.engine,
    )
    return state, events


def _swap(state: State, new: Slot, at: str) -> Step:
    """Make pending current; the newest release that is worth returning to becomes previous."""
    old = state.current
    keep = [s for s in (old, state.previous) if s is not None and not s.withdrawn and s.id != new.id]
    previous = next((s for s in keep if s.proven), keep[0] if keep else None)
    state = _count_anew(replace(state, current=new, previous=previous, pending=None))
    return state, (_event(Happening.SWAPPED, new, at, replaced=old),)


def _full_tries(state: State) -> int:
    return {Phase.EMPTY: 0, Phase.TRIAL: TRIES_ON_TRIAL, Phase.PROVEN: TRIES_PROVEN}[phase_of(state)]


def _count_anew(state: State) -> State:
    """Give the current release all its tries; what open sessions hold of an older count is void.

    Otherwise a session that outlives a swap and a rollback would give back a try that nobody misses.
    """
    sessions = tuple(replace(s, charged=False) for s in state.sessions)
    return replace(state, sessions=sessions, tries_left=_full_tries(state))


def _of_current(state: State, session_id: str) -> OpenSession | None:
    """The session, if it runs what is current."""
    session = state.session(session_id)
    return session if session and state.current and session.release_id == state.current.id else None


def _without(state: State, session_id: str) -> State:
    return replace(state, sessions=tuple(s for s in state.sessions if s.id != session_id))


def _settle(state: State, session_id: str) -> State:
    """Note that the session owes no try any more."""
    sessions = tuple(replace(s, charged=False) if s.id == session_id else s for s in state.sessions)
    return replace(state, sessions=sessions)


def _pay(state: State, session: OpenSession) -> State:
    """Take a try for a session that did badly, unless it holds one already."""
    return state if session.charged else replace(state, tries_left=max(state.tries_left - 1, 0))


def _complete(state: State, c: Complete) -> Step:
    if _of_current(state, c.session_id) is None:
        return state, ()
    settled = _settle(state, c.session_id)
    held = sum(s.charged for s in settled.sessions)
    return replace(settled, tries_left=max(_full_tries(state) - held, 0)), ()


def _confirm(state: State, c: Confirm) -> Step:
    if _of_current(state, c.session_id) is None or state.current is None:
        raise IllegalEventError(
            f"session {c.session_id} cannot confirm: it does not run the current release",
            hint="a verdict counts only for the release that the session started with",
        )
    if state.current.proven:
        return _complete(state, Complete(at=c.at, session_id=c.session_id))
    proven = replace(state, current=replace(state.current, proven=True))
    state, _ = _complete(proven, Complete(at=c.at, session_id=c.session_id))
    return state, (_event(Happening.CONFIRMED, proven.current or state.slots()[0], c.at),)


def _fail(state: State, c: Fail) -> Step:
    session = _of_current(state, c.session_id)
    if session is None or state.current is None:
        return state, ()
    events = (_event(Happening.FAILED, state.current, c.at, reason=c.reason),)
    if c.strike:
        return _strike_out(_settle(_pay(state, session), c.session_id), events, c.at, c.reason, c.app_version)
    # The session stays open, and with it its files, until it ends.
    state, more = _go_back(state, c.at, c.reason, c.app_version)
    return state, (*events, *more)


def _end(state: State, c: End) -> Step:
    session = state.session(c.session_id)
    if session is not None and session.charged and _of_current(state, c.session_id):
        state = replace(state, tries_left=state.tries_left + 1)
    return _without(state, c.session_id), ()


def _die(state: State, c: Die) -> Step:
    session = _of_current(state, c.session_id)
    if session is None or state.current is None or c.busy is False:
        return _end(state, End(at=c.at, session_id=c.session_id))
    if c.busy is None and not session.charged:
        return _without(state, c.session_id), ()
    paid = _pay(state, session)
    reason = "the process ended while the model was loading or generating"
    if c.busy is None:
        reason = "the session ended without a verdict"
    events = (_event(Happening.CRASHED, state.current, c.at, reason=reason),)
    return _strike_out(_without(paid, c.session_id), events, c.at, reason, c.app_version)


def _strike_out(state: State, events: tuple[Event, ...], at: str, reason: str, app_version: str | None) -> Step:
    """Roll back when no try is left and no running session may still give one back."""
    if state.tries_left or any(s.charged and _of_current(state, s.id) for s in state.sessions):
        return state, events
    state, more = _go_back(state, at, f"no tries left: {reason}", app_version)
    return state, (*events, *more)


def _roll_back(state: State, c: RollBack) -> Step:
    if state.previous is None:
        raise IllegalEventError("there is no previous release to return to")
    return _go_back(state, c.at, c.reason, c.app_version)


def _go_back(state: State, at: str, reason: str, app_version: str | None) -> Step:
    """Make previous current and quarantine what was current."""
    bad, good = state.current, state.previous
    if bad is None:
        return state, ()
    if good is None and bad.proven:
        return _count_anew(state), ()
    entry = Quarantined(
        release_id=bad.id,
        tier=bad.release.tier,
        version=bad.release.version,
        reason=reason,
        at=at,
        app_version=app_version,
        engine=state.engine,
    )
    kept = tuple(q for q in state.quarantine if q.release_id != bad.id)
    # What was staged to replace the bad release may be the very one that is current again now.
    pending = None if good is not None and state.pending is not None and state.pending.id == good.id else state.pending
    quarantine = (*kept, entry)[-MAX_QUARANTINE:]
    state = _count_anew(replace(state, current=good, previous=None, pending=pending, quarantine=quarantine))
    # Whom the quarantine binds goes into the history too: a state that is lost is rebuilt from there.
    barred = _event(Happening.QUARANTINED, bad, at, reason=reason)
    events: tuple[Event, ...] = (replace(barred, app_version=app_version, engine=state.engine),)
    if good is not None:
        events = (_event(Happening.ROLLED_BACK, good, at, reason=reason, replaced=bad), *events)
    return state, events


Rule = Callable[[State, Any], Step]
EMPTY, TRIAL, PROVEN = Phase.EMPTY, Phase.TRIAL, Phase.PROVEN

# What is not here is not allowed. The phases behind a rule are those that it can lead to; `docs/reference/states.md` is
# drawn from this table.
TRANSITIONS: Final[dict[tuple[Phase, type[Command]], tuple[Rule, frozenset[Phase]]]] = {
    (EMPTY, Stage): (_stage, frozenset({EMPTY})),
    (EMPTY, Unstage): (_unstage, frozenset({EMPTY})),
    (EMPTY, Withdraw): (_withdraw, frozenset({EMPTY})),
    (EMPTY, See): (_see, frozenset({EMPTY})),
    (EMPTY, Begin): (_begin, frozenset({TRIAL, PROVEN})),
    (EMPTY, Complete): (_complete, frozenset({EMPTY})),
    (EMPTY, Fail): (_fail, frozenset({EMPTY})),
    (EMPTY, End): (_end, frozenset({EMPTY})),
    (EMPTY, Die): (_die, frozenset({EMPTY})),
    (TRIAL, Stage): (_stage, frozenset({TRIAL})),
    (TRIAL, Unstage): (_unstage, frozenset({TRIAL})),
    (TRIAL, Withdraw): (_withdraw, frozenset({TRIAL})),
    (TRIAL, See): (_see, frozenset({TRIAL})),
    (TRIAL, Begin): (_begin, frozenset({TRIAL, PROVEN})),
    (TRIAL, Complete): (_complete, frozenset({TRIAL})),
    (TRIAL, Confirm): (_confirm, frozenset({PROVEN})),
    (TRIAL, Fail): (_fail, frozenset({EMPTY, TRIAL, PROVEN})),
    (TRIAL, End): (_end, frozenset({TRIAL})),
    (TRIAL, Die): (_die, frozenset({EMPTY, TRIAL, PROVEN})),
    (TRIAL, RollBack): (_roll_back, frozenset({TRIAL, PROVEN})),
    (PROVEN, Stage): (_stage, frozenset({PROVEN})),
    (PROVEN, Unstage): (_unstage, frozenset({PROVEN})),
    (PROVEN, Withdraw): (_withdraw, frozenset({PROVEN})),
    (PROVEN, See): (_see, frozenset({PROVEN})),
    (PROVEN, Begin): (_begin, frozenset({TRIAL, PROVEN})),
    (PROVEN, Complete): (_complete, frozenset({PROVEN})),
    (PROVEN, Confirm): (_confirm, frozenset({PROVEN})),
    (PROVEN, Fail): (_fail, frozenset({TRIAL, PROVEN})),
    (PROVEN, End): (_end, frozenset({PROVEN})),
    (PROVEN, Die): (_die, frozenset({TRIAL, PROVEN})),
    (PROVEN, RollBack): (_roll_back, frozenset({TRIAL, PROVEN})),
}
