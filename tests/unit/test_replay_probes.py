"""What probes and rotten files left in the history is rebuilt as well."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from overair.core import slots
from overair.core.commands import Begin, Command, Confirm, End, Fail, Probed, Refuse, RollBack, Stage
from overair.core.replay import replay
from overair.errors import IllegalEventError
from overair.model.events import Event
from overair.model.state import ProbeNote, State
from support.states import AT, digest_of, slot

VERSIONS = ("1.0.0", "1.1.0", "1.2.0")
RELEASES = {digest_of(version): slot(version).release for version in VERSIONS}


def turn(number: int, what: str, version: str, engine: str) -> tuple[Command, ...]:
    name = str(number)
    begin, end = Begin(at=AT, session_id=name, engine="e 1"), End(at=AT, session_id=name)
    note = ProbeNote(at=AT, engine=engine, figures={"x": 2.5})
    rotten = Fail(at=AT, session_id=name, reason="rotten", strike=True, blameless=True)
    return {
        "stage": (Stage(at=AT, slot=slot(version, proven=False), engine=engine),),
        "stage probed": (Stage(at=AT, slot=replace(slot(version, proven=False), probe=note), engine=engine),),
        "probed": (Probed(at=AT, release_id=digest_of(version), engine=engine, figures={"x": 1.5}),),
        "refuse": (Refuse(at=AT, slot=slot(version, proven=False), reason="slow", engine=engine),),
        "good": (begin, Confirm(at=AT, session_id=name), end),
        "bad": (begin, Fail(at=AT, session_id=name, reason="x"), end),
        "rotten": (begin, *[rotten] * 3, end),
        "by hand": (RollBack(at=AT, reason="x"),),
    }[what]


TURNS = st.tuples(
    st.sampled_from(["stage", "stage probed", "probed", "refuse", "good", "good", "bad", "rotten", "by hand"]),
    st.sampled_from(VERSIONS),
    st.sampled_from(["p 1", "p 2"]),
)


@given(st.lists(TURNS, max_size=12))
def test_any_life_with_probes_is_rebuilt(turns: list[tuple[str, str, str]]) -> None:
    state, events = State(), list[Event]()
    for number, (what, version, engine) in enumerate(turns):
        for command in turn(number, what, version, engine):
            with contextlib.suppress(IllegalEventError):
                state, more = slots.apply(state, command)
                events += more
    rebuilt, _ = replay(events, RELEASES)
    assert rebuilt.quarantine == state.quarantine
    if state.current is None:
        return  # then whatever is left goes on trial
    assert rebuilt.current is not None
    assert (rebuilt.current.id, rebuilt.current.proven) == (state.current.id, state.current.proven)
    assert rebuilt.current.probe == (state.current.probe or rebuilt.current.probe)
    assert (rebuilt.pending and rebuilt.pending.id) == (state.pending and state.pending.id)
