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

A generation costs one try at most. When it takes too long the try is lost there and then, while it still hangs, and
neither an answer that comes too late nor the end of the process changes that; the next answer in time does.

A probe comes before all this. A release that fails it is quarantined without ever being current, and the current one
stays as it is. Such a quarantine is bound to the engine that probed, not to the one that sessions use: those may
differ, and a device may probe before its first session.

Files that have rotted condemn nobody: the start costs a try, but the release that is left for it is not quarantined.

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
    Probed,
    Refuse,
    RollBack,
    See,
    Stage,
    Unstage,
    Withdraw,
)
from overair.core.quarantine import bar, entry, free, is_quarantined
from overair.core.told import event_of, stamped
from overair.errors import IllegalEventError
from overair.model.events import Cause, Event, Happening, bounded_figures
from overair.model.state import (
    TRIES_ON_TRIAL,
    TRIES_PROVEN,
    OpenSession,
    ProbeNote,
    Slot,
    State,
)


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
    after, events = transition[0](state, command)
    return after, tuple(stamped(event, after, command) for event in events)


def would_change(state: State, commands: Iterable[Command]) -> bool:
    """Whether commands, one after the other, lead to another state.

    Raises:
        IllegalEventError: The state does not allow one of them.
    """
    after = state
    for command in commands:
        after, _ = apply(after, command)
    return after != state


def _probed(state: State, c: Probed) -> Step:
    note = ProbeNote(at=c.at, engine=c.engine, figures=bounded_figures(c.figures))
    named = [slot for slot in state.slots() if slot.id == c.release_id]
    if not named:
        return state, ()

    def noted(slot: Slot | None) -> Slot | None:
        return replace(slot, probe=note) if slot is not None and slot.id == c.release_id else slot

    after = replace(state, **{name: noted(getattr(state, name)) for name in ("current", "previous", "pending")})
    return after, (replace(event_of(Happening.PROBED, named[0]), engine=c.engine, figures=note.figures),)


def _refuse(state: State, c: Refuse) -> Step:
    """Bar a release that failed a probe. What is current already is judged by its sessions."""
    if state.current is not None and state.current.id == c.slot.id:
        return state, ()
    event = event_of(Happening.REFUSED, c.slot, reason=c.reason, cause=Cause.PROBE)
    barred = entry(c.slot, c, c.reason, engine=c.engine, probed=True)
    pending = None if state.pending is not None and state.pending.id == c.slot.id else state.pending
    after = bar(replace(state, pending=pending), barred)
    return after, (replace(event, engine=c.engine, figures=bounded_figures(c.figures)),)


def _stage(state: State, c: Stage) -> Step:
    if state.current is not None and state.current.id == c.slot.id:
        raise IllegalEventError(f"{c.slot.release.version} is current already: there is nothing to stage")
    # The offer may be older than the quarantine: another process staged it too, and it failed meanwhile.
    if is_quarantined(state, c.slot.id, c.app_version, c.engine):
        raise IllegalEventError(f"{c.slot.release.version} is in quarantine: it is not staged again")
    known = next((slot.probe for slot in state.slots() if slot.id == c.slot.id and slot.probe is not None), None)
    state = replace(free(state, c.slot.id), pending=replace(c.slot, probe=known))
    events: tuple[Event, ...] = (event_of(Happening.STAGED, c.slot),)
    if c.slot.probe is not None:
        note = c.slot.probe
        state, probed = _probed(
            state, Probed(at=note.at, release_id=c.slot.id, engine=note.engine, figures=note.figures)
        )
        events = (*probed, *events)
    return state, events


def _unstage(state: State, c: Unstage) -> Step:
    if state.pending is None:
        return state, ()
    event = event_of(Happening.UNSTAGED, state.pending, reason=c.reason, cause=Cause.PUBLISHER)
    return replace(state, pending=None), (event,)


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
    state, events = _swap(state, state.pending) if state.pending is not None else (state, ())
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


def _swap(state: State, new: Slot) -> Step:
    """Make pending current; the newest release that is worth returning to becomes previous."""
    old = state.current
    keep = [s for s in (old, state.previous) if s is not None and not s.withdrawn and s.id != new.id]
    previous = next((s for s in keep if s.proven), keep[0] if keep else None)
    state = _count_anew(replace(state, current=new, previous=previous, pending=None))
    return state, (event_of(Happening.SWAPPED, new, replaced=old),)


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
    return state, (event_of(Happening.CONFIRMED, proven.current or state.slots()[0]),)


def _fail(state: State, c: Fail) -> Step:
    session = _of_current(state, c.session_id)
    if session is None or state.current is None:
        return state, ()
    events = (event_of(Happening.FAILED, state.current, reason=c.reason, cause=c.cause),)
    if c.strike:
        paid = _settle(_pay(state, session), c.session_id)
        return _strike_out(paid, events, c, c.reason, c.cause, blameless=c.blameless)
    # The session stays open, and with it its files, until it ends.
    state, more = _go_back(state, c, c.reason, c.cause)
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
    reason, cause = "the process ended while the model was loading or generating", Cause.CRASH
    if c.busy is None:
        reason, cause = "the session ended without a verdict", Cause.NO_VERDICT
    events = (event_of(Happening.CRASHED, state.current, reason=reason, cause=cause),)
    return _strike_out(_without(paid, c.session_id), events, c, reason, cause)


def _strike_out(
    state: State, events: tuple[Event, ...], c: Command, reason: str, cause: Cause, *, blameless: bool = False
) -> Step:
    """Roll back when no try is left and no running session may still give one back."""
    if state.tries_left or any(s.charged and _of_current(state, s.id) for s in state.sessions):
        return state, events
    state, more = _go_back(state, c, f"no tries left: {reason}", cause, blameless=blameless)
    return state, (*events, *more)


def _roll_back(state: State, c: RollBack) -> Step:
    if state.previous is None:
        raise IllegalEventError("there is no previous release to return to")
    return _go_back(state, c, c.reason, Cause.BY_HAND)


def _go_back(state: State, c: Command, reason: str, cause: Cause, *, blameless: bool = False) -> Step:
    """Make previous current, and quarantine what was current unless it is not to blame."""
    bad, good = state.current, state.previous
    if bad is None:
        return state, ()
    if good is None and (bad.proven or blameless):
        return _count_anew(state), ()
    # What was staged to replace the bad release may be the very one that is current again now.
    pending = None if good is not None and state.pending is not None and state.pending.id == good.id else state.pending
    state = _count_anew(replace(state, current=good, previous=None, pending=pending))
    events: tuple[Event, ...] = ()
    if good is not None:
        state = free(state, good.id)  # a probe may have refused it since: what is current is judged by its sessions
        events = (event_of(Happening.ROLLED_BACK, good, reason=reason, cause=cause, replaced=bad),)
    if not blameless:
        state = bar(state, entry(bad, c, reason, engine=state.engine))
        events = (*events, event_of(Happening.QUARANTINED, bad, reason=reason, cause=cause))
    return state, events


Rule = Callable[[State, Any], Step]
EMPTY, TRIAL, PROVEN = Phase.EMPTY, Phase.TRIAL, Phase.PROVEN

# What is not here is not allowed. The phases behind a rule are those that it can lead to; `docs/reference/states.md` is
# drawn from this table.
TRANSITIONS: Final[dict[tuple[Phase, type[Command]], tuple[Rule, frozenset[Phase]]]] = {
    (EMPTY, Probed): (_probed, frozenset({EMPTY})),
    (EMPTY, Refuse): (_refuse, frozenset({EMPTY})),
    (EMPTY, Stage): (_stage, frozenset({EMPTY})),
    (EMPTY, Unstage): (_unstage, frozenset({EMPTY})),
    (EMPTY, Withdraw): (_withdraw, frozenset({EMPTY})),
    (EMPTY, See): (_see, frozenset({EMPTY})),
    (EMPTY, Begin): (_begin, frozenset({TRIAL, PROVEN})),
    (EMPTY, Complete): (_complete, frozenset({EMPTY})),
    (EMPTY, Fail): (_fail, frozenset({EMPTY})),
    (EMPTY, End): (_end, frozenset({EMPTY})),
    (EMPTY, Die): (_die, frozenset({EMPTY})),
    (TRIAL, Probed): (_probed, frozenset({TRIAL})),
    (TRIAL, Refuse): (_refuse, frozenset({TRIAL})),
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
    (PROVEN, Probed): (_probed, frozenset({PROVEN})),
    (PROVEN, Refuse): (_refuse, frozenset({PROVEN})),
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
