"""The state machine of a device, one row a rule."""

import msgspec
import pytest
from msgspec.structs import replace

from overair.core import commands, slots
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
)
from overair.core.quarantine import is_quarantined
from overair.core.slots import Phase
from overair.errors import IllegalEventError
from overair.model.events import MAX_FIGURES, Cause, Event, Happening
from overair.model.state import MAX_QUARANTINE, TRIES_ON_TRIAL, TRIES_PROVEN, ProbeNote, State
from support.states import AT, digest_of, slot

FAILED, CRASHED, PROBED, REFUSED = Happening.FAILED, Happening.CRASHED, Happening.PROBED, Happening.REFUSED
SWAPPED, BACK, QUARANTINED = Happening.SWAPPED, Happening.ROLLED_BACK, Happening.QUARANTINED


def stage(version: str, *, proven: bool = False) -> Stage:
    return Stage(at=AT, slot=slot(version, proven=proven))


def begin(session: str = "s", *, external: bool = False) -> Begin:
    return Begin(at=AT, session_id=session, engine="e 1", external=external)


def confirm(session: str = "s") -> Confirm:
    return Confirm(at=AT, session_id=session)


def complete(session: str = "s") -> Complete:
    return Complete(at=AT, session_id=session)


def end(session: str = "s") -> End:
    return End(at=AT, session_id=session)


def fail(session: str = "s", *, strike: bool = False) -> Fail:
    return Fail(at=AT, session_id=session, reason="why", strike=strike, app_version="3.0.0")


def die(session: str = "s", *, busy: bool | None = True) -> Die:
    return Die(at=AT, session_id=session, busy=busy, app_version="3.0.0")


def roll_back() -> RollBack:
    return RollBack(at=AT, reason="by hand", app_version="3.0.0")


def probed(version: str, *, engine: str = "p 1", **figures: float) -> Probed:
    return Probed(at=AT, release_id=digest_of(version), engine=engine, figures=figures)


def refuse(version: str, *, engine: str = "p 1", app_version: str | None = None) -> Refuse:
    return Refuse(at=AT, slot=slot(version, proven=False), reason="too slow", engine=engine, app_version=app_version)


def rotten(session: str = "s") -> Fail:
    return Fail(at=AT, session_id=session, reason="rotten", cause=Cause.DAMAGE, strike=True, blameless=True)


def withdraw(*versions: str) -> commands.Withdraw:
    return commands.Withdraw(at=AT, release_ids=frozenset(digest_of(v) for v in versions))


def run(*commands: Command, state: State | None = None) -> tuple[State, list[Event]]:
    state = state or State()
    events: list[Event] = []
    for command in commands:
        state, more = slots.apply(state, command)
        events += more
    return state, events


def held(state: State) -> tuple[str, ...]:
    """The versions in current, previous and pending."""
    return tuple(s.release.version if s else "-" for s in (state.current, state.previous, state.pending))


def bad(state: State) -> list[str]:
    return [q.version for q in state.quarantine]


PROVEN_A = (stage("1.0.0"), begin("a"), confirm("a"), end("a"))
TRIAL_B = (*PROVEN_A, stage("2.0.0"), begin("b"))
PROVEN_B = (*TRIAL_B, confirm("b"), end("b"))


# name, commands, slots after, quarantine after, tries left, what happened since the last command
Row = tuple[str, tuple[Command, ...], tuple[str, str, str], list[str], int, list[Happening] | None]
ROWS: list[Row] = [
    ("a new device is empty", (), ("-", "-", "-"), [], 0, []),
    ("staging swaps nothing", (stage("1.0.0"),), ("-", "-", "1.0.0"), [], 0, [Happening.STAGED]),
    ("a session swaps", (stage("1.0.0"), begin()), ("1.0.0", "-", "-"), [], 1, [SWAPPED]),
    ("a confirm proves", PROVEN_A[:3], ("1.0.0", "-", "-"), [], TRIES_PROVEN, [Happening.CONFIRMED]),
    ("an end gives the try back", (stage("1.0.0"), begin(), end()), ("1.0.0", "-", "-"), [], TRIES_ON_TRIAL, []),
    ("staging again replaces", (*PROVEN_A, stage("2.0.0"), stage("3.0.0")), ("1.0.0", "-", "3.0.0"), [], 3, None),
    ("unstaging", (*PROVEN_A, stage("2.0.0"), Unstage(at=AT, reason="r")), ("1.0.0", "-", "-"), [], 3, None),
    ("a swap keeps the previous", TRIAL_B, ("2.0.0", "1.0.0", "-"), [], 1, [SWAPPED]),
    ("a proven one stays previous", (*PROVEN_B, stage("3.0.0"), begin()), ("3.0.0", "2.0.0", "-"), [], 1, [SWAPPED]),
    (
        "an unproven one does not push out a proven one",
        (*TRIAL_B, end("b"), stage("3.0.0"), begin()),
        ("3.0.0", "1.0.0", "-"),
        [],
        1,
        [SWAPPED],
    ),
    (
        "an unproven one is better than none",
        (stage("1.0.0"), begin("a"), stage("2.0.0"), begin("b")),
        ("2.0.0", "1.0.0", "-"),
        [],
        1,
        [SWAPPED],
    ),
    (
        "a failure on trial goes back",
        (*TRIAL_B, fail("b")),
        ("1.0.0", "-", "-"),
        ["2.0.0"],
        3,
        [FAILED, BACK, QUARANTINED],
    ),
    (
        "a failure of the first install leaves nothing",
        (stage("1.0.0"), begin(), fail()),
        ("-", "-", "-"),
        ["1.0.0"],
        0,
        None,
    ),
    ("a proven one with nowhere to go stays", (*PROVEN_A, begin(), fail()), ("1.0.0", "-", "-"), [], 3, [FAILED]),
    ("a proven one goes back too", (*PROVEN_B, begin(), fail()), ("1.0.0", "-", "-"), ["2.0.0"], 3, None),
    ("one strike on trial", (*TRIAL_B, fail("b", strike=True)), ("2.0.0", "1.0.0", "-"), [], 1, [FAILED]),
    ("two strikes on trial", (*TRIAL_B, *[fail("b", strike=True)] * 2), ("1.0.0", "-", "-"), ["2.0.0"], 3, None),
    ("two strikes, proven", (*PROVEN_B, begin(), *[fail(strike=True)] * 2), ("2.0.0", "1.0.0", "-"), [], 1, [FAILED]),
    ("three strikes, proven", (*PROVEN_B, begin(), *[fail(strike=True)] * 3), ("1.0.0", "-", "-"), ["2.0.0"], 3, None),
    (
        "an answer between strikes clears the count",
        (*PROVEN_B, begin(), fail(strike=True), fail(strike=True), complete(), fail(strike=True)),
        ("2.0.0", "1.0.0", "-"),
        [],
        2,
        [FAILED],
    ),
    ("one crash on trial", (*TRIAL_B, die("b")), ("2.0.0", "1.0.0", "-"), [], 1, [CRASHED]),
    (
        "two crashes on trial",
        (*TRIAL_B, die("b"), begin("c"), die("c")),
        ("1.0.0", "-", "-"),
        ["2.0.0"],
        3,
        [CRASHED, BACK, QUARANTINED],
    ),
    ("a crash while idle is no strike", (*TRIAL_B, die("b", busy=False)), ("2.0.0", "1.0.0", "-"), [], 2, []),
    (
        "many crashes while idle are none either",
        (*TRIAL_B, *[die("b", busy=False), begin("b")] * 5),
        ("2.0.0", "1.0.0", "-"),
        [],
        1,
        [],
    ),
    (
        "two power cuts during a load on trial",
        (*TRIAL_B, die("b", busy=None), begin("c"), die("c", busy=None)),
        ("1.0.0", "-", "-"),
        ["2.0.0"],
        3,
        [CRASHED, BACK, QUARANTINED],
    ),
    ("a power cut after an answer", (*TRIAL_B, complete("b"), die("b", busy=None)), ("2.0.0", "1.0.0", "-"), [], 2, []),
    ("a crash after an answer", (*TRIAL_B, complete("b"), die("b")), ("2.0.0", "1.0.0", "-"), [], 1, [CRASHED]),
    (
        "no verdict while another session may still do well",
        (*TRIAL_B, begin("c"), die("b")),
        ("2.0.0", "1.0.0", "-"),
        [],
        0,
        [CRASHED],
    ),
    ("and then it does well", (*TRIAL_B, begin("c"), die("b"), confirm("c")), ("2.0.0", "1.0.0", "-"), [], 3, None),
    ("or it does not", (*TRIAL_B, begin("c"), die("b"), die("c")), ("1.0.0", "-", "-"), ["2.0.0"], 3, None),
    ("a rollback by hand", (*PROVEN_B, roll_back()), ("1.0.0", "-", "-"), ["2.0.0"], 3, [BACK, QUARANTINED]),
    (
        "a rollback keeps what is pending",
        (*PROVEN_B, stage("3.0.0"), roll_back()),
        ("1.0.0", "-", "3.0.0"),
        ["2.0.0"],
        3,
        None,
    ),
    (
        "a rollback to what is pending anyway leaves nothing pending",
        (*TRIAL_B, stage("1.0.0"), roll_back()),
        ("1.0.0", "-", "-"),
        ["2.0.0"],
        3,
        [BACK, QUARANTINED],
    ),
    ("withdrawn while pending", (*PROVEN_A, stage("2.0.0"), withdraw("2.0.0")), ("1.0.0", "-", "-"), [], 3, None),
    ("withdrawn while previous", (*PROVEN_B, withdraw("1.0.0")), ("2.0.0", "-", "-"), [], 3, []),
    ("withdrawn while current stays until a swap", (*PROVEN_B, withdraw("2.0.0")), ("2.0.0", "1.0.0", "-"), [], 3, []),
    (
        "what was withdrawn is not returned to",
        (*PROVEN_B, withdraw("2.0.0"), stage("1.0.0", proven=True), begin()),
        ("1.0.0", "-", "-"),
        [],
        2,
        [SWAPPED],
    ),
    ("staging lifts the quarantine", (*TRIAL_B, fail("b"), stage("2.0.0")), ("1.0.0", "-", "2.0.0"), [], 3, None),
    ("another program on trial takes a try", (stage("1.0.0"), begin(external=True)), ("1.0.0", "-", "-"), [], 1, None),
    ("another program on a proven one takes none", (*PROVEN_A, begin(external=True)), ("1.0.0", "-", "-"), [], 3, []),
    (
        "a stale failure changes nothing",
        (*TRIAL_B, begin("c"), fail("b"), fail("c")),
        ("1.0.0", "-", "-"),
        ["2.0.0"],
        3,
        [],
    ),
    (
        "a stale crash changes nothing",
        (*PROVEN_A, begin("o"), stage("2.0.0"), begin("n"), die("o")),
        ("2.0.0", "1.0.0", "-"),
        [],
        1,
        [],
    ),
    ("a probe swaps nothing", (*PROVEN_A, stage("2.0.0"), probed("2.0.0")), ("1.0.0", "-", "2.0.0"), [], 3, [PROBED]),
    ("a probe of what is in no slot is not noted", (*PROVEN_A, probed("9.0.0")), ("1.0.0", "-", "-"), [], 3, []),
    (
        "what a probe refuses is not pending",
        (*PROVEN_A, stage("2.0.0"), refuse("2.0.0")),
        ("1.0.0", "-", "-"),
        ["2.0.0"],
        3,
        [REFUSED],
    ),
    ("refused before it was staged", (*PROVEN_A, refuse("2.0.0")), ("1.0.0", "-", "-"), ["2.0.0"], 3, [REFUSED]),
    ("refused on an empty device", (refuse("2.0.0"),), ("-", "-", "-"), ["2.0.0"], 0, [REFUSED]),
    (
        "refused, and another is pending",
        (*PROVEN_A, stage("2.0.0"), refuse("3.0.0")),
        ("1.0.0", "-", "2.0.0"),
        ["3.0.0"],
        3,
        None,
    ),
    ("no probe takes away what runs on trial", (*TRIAL_B, refuse("2.0.0")), ("2.0.0", "1.0.0", "-"), [], 1, []),
    ("nor what is proven", (*PROVEN_A, refuse("1.0.0")), ("1.0.0", "-", "-"), [], 3, []),
    ("nor what one would return to", (*PROVEN_B, refuse("1.0.0")), ("2.0.0", "1.0.0", "-"), ["1.0.0"], 3, [REFUSED]),
    (
        "and who has returned to it runs it",
        (*PROVEN_B, refuse("1.0.0"), roll_back()),
        ("1.0.0", "-", "-"),
        ["2.0.0"],
        3,
        [BACK, QUARANTINED],
    ),
    ("files that rotted are a strike", (*TRIAL_B, rotten("b")), ("2.0.0", "1.0.0", "-"), [], 1, [FAILED]),
    (
        "and in the end nobody is condemned",
        (*TRIAL_B, rotten("b"), begin("c"), rotten("c")),
        ("1.0.0", "-", "-"),
        [],
        3,
        [FAILED, BACK],
    ),
    (
        "with nothing behind it what rotted stays",
        (stage("1.0.0"), begin("a"), rotten("a"), begin("b"), rotten("b")),
        ("1.0.0", "-", "-"),
        [],
        2,
        [FAILED],
    ),
    (
        "a stale answer changes nothing",
        (*PROVEN_A, begin("o"), stage("2.0.0"), begin("n"), complete("o")),
        ("2.0.0", "1.0.0", "-"),
        [],
        1,
        [],
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_rules(
    row: tuple[str, tuple[Command, ...], tuple[str, str, str], list[str], int, list[Happening] | None],
) -> None:
    _, commands, where, quarantined, tries, happened = row
    before, _ = run(*commands[:-1])
    state, events = run(*commands[-1:], state=before)
    assert (held(state), bad(state), state.tries_left) == (where, quarantined, tries)
    if happened is not None:
        assert [event.what for event in events] == happened


TRIAL_STATE, _ = run(*TRIAL_B)
PROVEN_STATE, _ = run(*PROVEN_A)


@pytest.mark.parametrize(
    ("state", "command"),
    [
        (State(), begin()),
        (State(), confirm()),
        (State(), roll_back()),
        (PROVEN_STATE, roll_back()),
        (PROVEN_STATE, stage("1.0.0")),
        (PROVEN_STATE, confirm("never began")),
        (TRIAL_STATE, begin("b")),
        (TRIAL_STATE, confirm("a")),
    ],
)
def test_what_the_state_does_not_allow_raises(state: State, command: Command) -> None:
    before = replace(state)
    with pytest.raises(IllegalEventError) as caught:
        slots.apply(state, command)
    assert caught.value.exit_code == 1
    assert state == before


def test_a_confirm_never_counts_for_another_release() -> None:
    state, _ = run(*PROVEN_A, begin("old"), stage("2.0.0"), begin("new"))
    with pytest.raises(IllegalEventError, match="does not run the current release"):
        slots.apply(state, confirm("old"))


def test_a_confirm_twice_says_so_once() -> None:
    _, events = run(*TRIAL_B, confirm("b"), confirm("b"))
    assert [e.version for e in events if e.what is Happening.CONFIRMED] == ["1.0.0", "2.0.0"]


def test_a_session_that_outlives_a_swap_and_a_rollback_gives_no_try_back() -> None:
    """It began when another count of tries was under way; the state would not even be readable with four."""
    state, _ = run(*PROVEN_A, begin("old"), stage("2.0.0"), begin("new"), roll_back(), end("old"), end("new"))
    assert held(state) == ("1.0.0", "-", "-")
    assert state.tries_left == TRIES_PROVEN


def test_a_session_of_an_older_release_does_not_hold_tries_of_the_new_one() -> None:
    state, _ = run(*PROVEN_A, begin("old"), stage("2.0.0"), begin("new"), complete("new"))
    assert state.tries_left == TRIES_ON_TRIAL


@pytest.mark.parametrize("verdict", [fail("b"), fail("b", strike=True), confirm("b"), complete("b"), roll_back()])
def test_a_verdict_does_not_end_the_session(verdict: Command) -> None:
    """Its files must stay until it ends."""
    state, _ = run(*TRIAL_B, verdict)
    session = state.session("b")
    assert session is not None
    assert session.release_id == digest_of("2.0.0")
    assert run(end("b"), state=state)[0].session("b") is None


def test_a_stale_failure_leaves_the_session_open() -> None:
    state, events = run(*PROVEN_A, begin("old"), stage("2.0.0"), begin("new"), fail("old"))
    assert held(state) == ("2.0.0", "1.0.0", "-")
    assert events[-1].what is SWAPPED
    assert state.session("old") is not None


def test_a_quarantine_says_what_was_bad_and_under_what() -> None:
    state, _ = run(*TRIAL_B, fail("b"))
    (entry,) = state.quarantine
    assert (entry.release_id, entry.reason, entry.at) == (digest_of("2.0.0"), "why", AT)
    assert (entry.app_version, entry.engine) == ("3.0.0", "e 1")


def staged_with(version: str, engine: str | None, *, app_version: str | None = None) -> Stage:
    return Stage(at=AT, slot=slot(version, proven=False), engine=engine, app_version=app_version)


@pytest.mark.parametrize("sessions_use", [None, "p 1", "p 2", "another 7"])
def test_what_a_probe_refused_stays_refused_until_the_engine_that_probes_changes(sessions_use: str | None) -> None:
    """Whatever engine sessions use, and before the first one: else it would be fetched and refused for ever."""
    state, _ = run(*PROVEN_A, refuse("2.0.0", app_version="3.0.0"))
    state = replace(state, engine=sessions_use)
    bad_id = digest_of("2.0.0")
    assert is_quarantined(state, bad_id, "3.0.0", "p 1")
    assert is_quarantined(state, bad_id, "3.0.0", None), "nobody can tell whether the engine changed"
    assert not is_quarantined(state, bad_id, "3.0.0", "p 2")
    assert not is_quarantined(state, bad_id, "3.1.0", "p 1")
    for engine in ("p 1", None):
        with pytest.raises(IllegalEventError, match="in quarantine"):
            run(staged_with("2.0.0", engine, app_version="3.0.0"), state=state)
    after, _ = run(staged_with("2.0.0", "p 2", app_version="3.0.0"), state=state)
    assert (held(after), bad(after)) == (("1.0.0", "-", "2.0.0"), [])


def test_two_engines_that_probe_in_turn_refuse_each_for_itself() -> None:
    state, _ = run(
        *PROVEN_A, refuse("2.0.0", engine="p 1"), refuse("2.0.0", engine="q 1"), refuse("2.0.0", engine="p 1")
    )
    assert [(q.version, q.engine) for q in state.quarantine] == [("2.0.0", "q 1"), ("2.0.0", "p 1")]
    assert all(is_quarantined(state, digest_of("2.0.0"), None, engine) for engine in ("p 1", "q 1", None))


def test_a_verdict_of_sessions_is_not_lifted_by_the_engine_that_probes() -> None:
    state, _ = run(*TRIAL_B, fail("b"))
    assert all(is_quarantined(state, digest_of("2.0.0"), "3.0.0", engine) for engine in ("e 1", "p 1", "e 2", None))


def test_what_a_probe_measured_stays_with_the_release_and_is_what_the_next_is_compared_with() -> None:
    state, _ = run(stage("1.0.0"), probed("1.0.0", tokens_per_second=20.0, peak_bytes=1e9), begin("a"), confirm("a"))
    state, _ = run(stage("2.0.0"), begin("b"), fail("b"), state=state)
    assert state.current is not None
    assert state.current.probe is not None
    assert state.current.probe.figures == {"tokens_per_second": 20.0, "peak_bytes": 1e9}
    assert (state.current.probe.at, state.current.probe.engine) == (AT, "p 1")
    state, events = run(probed("1.0.0", engine="p 2", tokens_per_second=30.0), state=state)
    assert state.current is not None
    assert state.current.probe is not None
    assert state.current.probe.engine == "p 2", "the release that runs can be measured again"
    assert (events[0].engine, events[0].figures) == ("p 2", {"tokens_per_second": 30.0})


def test_a_release_that_was_probed_before_it_is_staged_brings_its_probe() -> None:
    note = ProbeNote(at=AT, engine="p 1", figures={"tokens_per_second": 9.0, "nan": float("nan")})
    state, events = run(*PROVEN_A, Stage(at=AT, slot=replace(slot("2.0.0", proven=False), probe=note), engine="p 1"))
    assert state.pending is not None
    assert state.pending.probe == replace(note, figures={"tokens_per_second": 9.0})
    assert [(e.what, e.engine) for e in events[-2:]] == [(PROBED, "p 1"), (Happening.STAGED, "e 1")]


def test_staging_a_release_again_keeps_its_probe() -> None:
    state, _ = run(*PROVEN_A, stage("2.0.0"), probed("2.0.0", x=1.0), stage("2.0.0"))
    assert state.pending is not None
    assert state.pending.probe is not None
    state, _ = run(stage("3.0.0"), state=state)
    assert state.pending is not None
    assert state.pending.probe is None


def test_figures_that_cannot_be_written_down_are_left_out() -> None:
    """A state with `NaN` in it could not be read again."""
    figures = {"nan": float("nan"), "inf": float("inf"), "fine": 1.0} | {f"f{i}": 1.0 for i in range(100)}
    state, events = run(*PROVEN_A, replace(probed("1.0.0"), figures=figures))
    assert state.current is not None
    assert state.current.probe is not None
    assert len(state.current.probe.figures) == MAX_FIGURES
    assert next(iter(state.current.probe.figures)) == "fine"
    assert msgspec.json.decode(msgspec.json.encode(state), type=State) == state
    assert events[-1].figures == state.current.probe.figures


def test_events_say_under_which_versions_and_from_what_cause() -> None:
    _, events = run(*TRIAL_B, Fail(at=AT, session_id="b", reason="why", cause=Cause.LOAD, app_version="3.0.0"))
    assert [(e.what, e.cause) for e in events[-3:]] == [
        (FAILED, Cause.LOAD),
        (BACK, Cause.LOAD),
        (QUARANTINED, Cause.LOAD),
    ]
    assert {(e.at, e.app_version, e.engine) for e in events[-3:]} == {(AT, "3.0.0", "e 1")}
    assert [e.sha256 for e in events[-3:]] == [digest_of("2.0.0"), digest_of("1.0.0"), digest_of("2.0.0")]


def test_a_state_from_before_there_were_probes_is_read() -> None:
    state, _ = run(*TRIAL_B, end("b"))
    old = msgspec.json.decode(msgspec.json.encode(state))
    assert "probe" not in old["current"]
    assert msgspec.convert(old, State) == state
    line = b'{"what":"quarantined","tier":"1b","version":"2.0.0","release_id":"%s"}' % digest_of("2.0.0").encode()
    assert msgspec.json.decode(line, type=Event) == Event(
        what=QUARANTINED, tier="1b", version="2.0.0", release_id=digest_of("2.0.0")
    )


def test_the_quarantine_is_bounded_and_forgets_the_oldest() -> None:
    state, _ = run(*PROVEN_A)
    for i in range(MAX_QUARANTINE + 5):
        state, _ = run(stage(f"2.0.{i}"), begin("x"), fail("x"), end("x"), state=state)
    assert bad(state) == [f"2.0.{i}" for i in range(5, MAX_QUARANTINE + 5)]


def test_the_highest_sequence_is_remembered_by_channel() -> None:
    def see(channel: str, sequence: int) -> See:
        return See(at=AT, channel=channel, sequence=sequence)

    state, _ = run(see("stable", 5), see("beta", 2), see("stable", 3))
    assert state.sequences == {"stable": 5, "beta": 2}


def test_would_change() -> None:
    assert slots.would_change(PROVEN_STATE, [stage("2.0.0")])
    assert not slots.would_change(PROVEN_STATE, [withdraw("9.9.9"), See(at=AT, channel="stable", sequence=0)])


def test_events_name_what_was_replaced() -> None:
    _, events = run(*TRIAL_B, fail("b"))
    swapped, back = events[-4], events[-2]
    assert (swapped.what, swapped.version, swapped.replaced) == (SWAPPED, "2.0.0", "1.0.0")
    assert (back.what, back.version, back.replaced) == (BACK, "1.0.0", "2.0.0")


def test_the_table_has_a_rule_for_every_command_on_a_device_with_a_model() -> None:
    kinds = set(Command.__subclasses__())
    for phase in (Phase.TRIAL, Phase.PROVEN):
        assert {kind for where, kind in slots.TRANSITIONS if where is phase} == kinds
    missing = kinds - {kind for where, kind in slots.TRANSITIONS if where is Phase.EMPTY}
    assert {kind.__name__ for kind in missing} == {"Confirm", "RollBack"}
