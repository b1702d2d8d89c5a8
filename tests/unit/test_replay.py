"""A lost state is rebuilt from the history and the releases that are here, and says what is lost."""

import contextlib
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from overair.core import slots
from overair.core.commands import Begin, Command, Confirm, End, Fail, Stage
from overair.core.replay import replay
from overair.errors import IllegalEventError
from overair.model.events import Event
from overair.model.release import Release
from overair.model.state import State
from support.states import AT, digest_of, slot

RELEASES = {digest_of(version): slot(version).release for version in ("1.0.0", "1.1.0", "1.2.0", "1.10.0")}


def fresh(version: str) -> Stage:
    return Stage(at=AT, slot=slot(version, proven=False))


def lived(commands: Iterable[Command]) -> tuple[State, tuple[Event, ...]]:
    state, events = State(), tuple[Event, ...]()
    for command in commands:
        state, more = slots.apply(state, command)
        events += more
    return state, events


def installed(version: str, session: str) -> list[Command]:
    return [
        fresh(version),
        Begin(at=AT, session_id=session),
        Confirm(at=AT, session_id=session),
        End(at=AT, session_id=session),
    ]


def essence(state: State) -> tuple[object, ...]:
    named = [s and (s.id, s.proven) for s in (state.current, state.previous, state.pending)]
    return (*named, state.quarantine)


def test_what_was_lived_is_rebuilt() -> None:
    commands = [*installed("1.0.0", "a"), *installed("1.1.0", "b"), fresh("1.2.0")]
    state, events = lived(commands)
    rebuilt, lost = replay(events, RELEASES)
    assert essence(rebuilt) == essence(state)
    assert rebuilt.tries_left == state.tries_left
    assert len(lost) == 2


def test_a_quarantine_is_rebuilt_with_what_it_binds() -> None:
    bad: list[Command] = [
        fresh("1.1.0"),
        Begin(at=AT, session_id="b", engine="engine 1"),
        Fail(at=AT, session_id="b", reason="does not load", app_version="3.0.0"),
        End(at=AT, session_id="b"),
    ]
    state, events = lived([*installed("1.0.0", "a"), *bad])
    rebuilt, _ = replay(events, RELEASES)
    assert essence(rebuilt) == essence(state)
    assert (rebuilt.quarantine[0].app_version, rebuilt.quarantine[0].engine) == ("3.0.0", "engine 1")


@given(st.lists(st.tuples(st.sampled_from(["1.0.0", "1.1.0", "1.2.0", "1.10.0"]), st.booleans()), max_size=8))
def test_any_life_is_rebuilt_as_far_as_the_history_tells(turns: list[tuple[str, bool]]) -> None:
    state, events = State(), tuple[Event, ...]()
    for number, (version, good) in enumerate(turns):
        name = str(number)
        verdict = Confirm(at=AT, session_id=name) if good else Fail(at=AT, session_id=name, reason="x")
        for command in (fresh(version), Begin(at=AT, session_id=name), verdict, End(at=AT, session_id=name)):
            with contextlib.suppress(IllegalEventError):
                state, more = slots.apply(state, command)
                events += more
    rebuilt, _ = replay(events, RELEASES)
    if state.current is not None:
        assert rebuilt.current is not None
        assert rebuilt.current.id == state.current.id
    barred = {entry.release_id for entry in rebuilt.quarantine}
    assert barred == {entry.release_id for entry in state.quarantine}
    assert not barred.intersection(slot.id for slot in rebuilt.slots())


def test_a_current_release_whose_files_are_gone_is_said_to_be_lost() -> None:
    _, events = lived([*installed("1.0.0", "a"), *installed("1.1.0", "b")])
    here: dict[str, Release] = {digest_of("1.0.0"): RELEASES[digest_of("1.0.0")]}
    rebuilt, lost = replay(events, here)
    assert rebuilt.current is not None
    assert rebuilt.current.release.version == "1.0.0"
    assert any("current" in line for line in lost)


def test_without_a_history_the_newest_release_goes_on_trial() -> None:
    rebuilt, lost = replay([], RELEASES)
    assert rebuilt.current is not None
    assert rebuilt.previous is not None
    assert (rebuilt.current.release.version, rebuilt.previous.release.version) == ("1.10.0", "1.2.0")
    assert rebuilt.on_trial
    assert any("which release was current" in line for line in lost)


def test_with_nothing_at_all_nothing_is_installed() -> None:
    rebuilt, _ = replay([], {})
    assert rebuilt.slots() == ()
