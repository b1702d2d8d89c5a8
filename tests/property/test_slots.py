"""The state machine of a device under any order of commands."""

from datetime import UTC, datetime

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from overair.core import commands, slots
from overair.core.quarantine import is_quarantined
from overair.core.retention import blobs_to_keep, releases_to_keep
from overair.core.select import Device, select
from overair.errors import IllegalEventError
from overair.model.events import Event
from overair.model.manifest import Manifest, TierEntry
from overair.model.offer import Offer
from overair.model.state import TRIES_ON_TRIAL, TRIES_PROVEN, State
from support.states import AT, digest_of, release, slot

VERSIONS = st.sampled_from(["1.0.0", "2.0.0", "3.0.0", "4.0.0"])
ENGINES = st.sampled_from(["p 1", "p 2"])
CHANCE = st.integers(0, 3)
NOW = datetime(2026, 11, 23, tzinfo=UTC)


class DeviceMachine(RuleBasedStateMachine):
    """A device with several sessions at once; `running` is what really runs, known from outside of the state."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.running: dict[str, str] = {}
        self.confirmed: set[str] = set()
        self.names = 0

    def apply(self, command: commands.Command) -> tuple[Event, ...]:
        before = self.state
        try:
            self.state, events = slots.apply(before, command)
        except IllegalEventError:
            assert self.state is before
            raise
        self._check_tries(before, command)
        leads_to = slots.TRANSITIONS[slots.phase_of(before), type(command)][1]
        assert slots.phase_of(self.state) in leads_to, "the table does not say so"
        if before.previous is not None or (before.current is not None and before.current.proven):
            assert self.state.current is not None, "a device that had something to run has nothing"
        return events

    def _check_tries(self, before: State, command: commands.Command) -> None:
        """Tries, counting those that sessions hold, grow only by doing well, or when another release is current."""
        old, new = before.current, self.state.current
        if old is None or new is None or old.id != new.id or isinstance(command, commands.Complete | commands.Confirm):
            return
        # A proven release that failed and has nowhere to go back to stays, and starts over.
        # So does one whose files have rotted.
        alone = isinstance(command, commands.Fail | commands.Die) and before.previous is None
        excused = old.proven or (isinstance(command, commands.Fail) and command.blameless)
        if not (alone and excused):
            assert total(self.state) <= total(before)

    def pick(self, chance: int) -> str:
        names = sorted(self.running)
        return names[chance % len(names)]

    @rule(version=VERSIONS, engine=st.none() | ENGINES)
    def stage(self, version: str, engine: str | None) -> None:
        current = self.state.current
        proven = any(s.proven for s in self.state.slots() if s.id == digest_of(version))
        command = commands.Stage(at=AT, slot=slot(version, proven=proven), engine=engine)
        is_current = current is not None and current.release.version == version
        if is_current or is_quarantined(self.state, digest_of(version), None, engine):
            try:
                self.apply(command)
            except IllegalEventError:
                return
            raise AssertionError("the current release, or one in quarantine, was staged again")
        self.apply(command)

    @rule(version=VERSIONS, engine=ENGINES)
    def probed(self, version: str, engine: str) -> None:
        before = self.state
        self.apply(commands.Probed(at=AT, release_id=digest_of(version), engine=engine, figures={"x": 1.0}))
        notes = {s.probe.engine if s.probe else None for s in self.state.slots() if s.id == digest_of(version)}
        assert notes <= {engine}
        assert unprobed(self.state) == unprobed(before), "a probe that passed decides nothing"

    @rule(version=VERSIONS, engine=ENGINES)
    def refuse(self, version: str, engine: str) -> None:
        before = self.state
        self.apply(commands.Refuse(at=AT, slot=slot(version, proven=False), reason="r", engine=engine))
        kept = (self.state.current, self.state.previous, self.state.sessions, self.state.tries_left)
        assert kept == (before.current, before.previous, before.sessions, before.tries_left)
        if before.current is not None and before.current.id == digest_of(version):
            assert self.state == before, "a probe touched what is current"
            return
        assert self.state.pending is None or self.state.pending.id != digest_of(version)
        assert is_quarantined(self.state, digest_of(version), None, engine), "it would be fetched again"
        assert is_quarantined(self.state, digest_of(version), None), "it would be fetched again"

    @rule()
    def unstage(self) -> None:
        self.apply(commands.Unstage(at=AT, reason="r"))
        assert self.state.pending is None

    @rule(version=VERSIONS)
    def withdraw(self, version: str) -> None:
        current = self.state.current
        self.apply(commands.Withdraw(at=AT, release_ids=frozenset({digest_of(version)})))
        assert all(s.id != digest_of(version) for s in (self.state.previous, self.state.pending) if s is not None)
        assert (self.state.current is None) == (current is None), "a withdrawal takes no model away"

    @rule(external=st.booleans())
    @precondition(lambda self: self.state.current is not None or self.state.pending is not None)
    def begin(self, external: bool) -> None:
        self.names += 1
        name = f"s{self.names}"
        wanted = self.state.pending or self.state.current
        old = self.state.current
        self.apply(commands.Begin(at=AT, session_id=name, external=external))
        assert self.state.current is not None
        assert wanted is not None
        assert self.state.current.id == wanted.id
        assert self.state.pending is None
        if old is not None and old.proven and not old.withdrawn and old.id != wanted.id:
            assert self.state.previous == old, "a proven release that is replaced can be returned to"
        self.running[name] = self.state.current.id

    @rule(chance=CHANCE)
    @precondition(lambda self: self.running)
    def complete(self, chance: int) -> None:
        self.apply(commands.Complete(at=AT, session_id=self.pick(chance)))

    @rule(chance=CHANCE)
    @precondition(lambda self: self.running)
    def confirm(self, chance: int) -> None:
        name, before = self.pick(chance), self.state
        current = before.current
        try:
            self.apply(commands.Confirm(at=AT, session_id=name))
        except IllegalEventError:
            assert current is None or current.id != self.running[name]
            return
        assert current is not None
        assert current.id == self.running[name], "a confirm counted for another release"
        assert self.state.current is not None
        assert self.state.current.proven
        self.confirmed.add(current.id)

    @rule(chance=CHANCE, strike=st.booleans(), blameless=st.booleans())
    @precondition(lambda self: self.running)
    def fail(self, chance: int, strike: bool, blameless: bool) -> None:
        name, before = self.pick(chance), self.state
        self.apply(commands.Fail(at=AT, session_id=name, reason="r", strike=strike, blameless=strike and blameless))
        if strike and blameless:
            assert {q.release_id for q in self.state.quarantine} <= {q.release_id for q in before.quarantine}
        if before.current is None or before.current.id != self.running[name]:
            assert self.state == before, "a stale verdict changed something"

    @rule(chance=CHANCE)
    @precondition(lambda self: self.running)
    def end(self, chance: int) -> None:
        name, before = self.pick(chance), self.state
        events = self.apply(commands.End(at=AT, session_id=name))
        del self.running[name]
        assert events == ()
        assert self.state.slots() == before.slots(), "a clean end is no verdict"

    @rule(chance=CHANCE, busy=st.sampled_from([True, False, None]))
    @precondition(lambda self: self.running)
    def die(self, chance: int, busy: bool | None) -> None:
        name, before = self.pick(chance), self.state
        self.apply(commands.Die(at=AT, session_id=name, busy=busy))
        ran = self.running.pop(name)
        stale = before.current is None or before.current.id != ran
        if stale or busy is False:
            assert self.state.slots() == before.slots()
            assert self.state.quarantine == before.quarantine

    @rule()
    @precondition(lambda self: self.state.previous is not None)
    def roll_back(self) -> None:
        before = self.state
        self.apply(commands.RollBack(at=AT, reason="r"))
        assert before.previous is not None
        assert before.current is not None
        assert self.state.current == before.previous
        assert before.current.id in {q.release_id for q in self.state.quarantine}

    @invariant()
    def what_is_installed_runs_or_nothing_is(self) -> None:
        """An empty device says so; any other has a current release that blobs are kept for."""
        if self.state.current is None:
            assert self.state.previous is None
            assert self.state.tries_left == 0
            assert not self.state.on_trial

    @invariant()
    def no_slot_holds_what_is_quarantined(self) -> None:
        """But what a probe refused may stay to be returned to: it was good once, which is better than nothing."""
        slots_that_run = [s for s in (self.state.current, self.state.pending) if s is not None]
        assert not {s.id for s in slots_that_run} & {q.release_id for q in self.state.quarantine}
        by_sessions = {q.release_id for q in self.state.quarantine if not q.probed}
        assert not {s.id for s in self.state.slots()} & by_sessions

    @invariant()
    def no_other_slot_holds_the_current_release(self) -> None:
        others = [s.id for s in (self.state.previous, self.state.pending) if s is not None]
        assert self.state.current is None or self.state.current.id not in others

    @invariant()
    def only_the_current_release_may_be_withdrawn(self) -> None:
        assert not any(s.withdrawn for s in (self.state.previous, self.state.pending) if s is not None)

    @invariant()
    def only_a_confirm_proves(self) -> None:
        assert {s.id for s in self.state.slots() if s.proven} <= self.confirmed

    @invariant()
    def tries_are_in_bounds(self) -> None:
        most = TRIES_ON_TRIAL if self.state.on_trial else TRIES_PROVEN
        assert 0 <= total(self.state) <= most
        assert self.state.current is None or total(self.state) > 0, "a release without tries must be gone"

    @invariant()
    def garbage_collection_leaves_what_is_needed(self) -> None:
        kept = releases_to_keep(self.state, ())
        assert {s.id for s in self.state.slots()} <= kept
        assert set(self.running.values()) <= kept, "a running session's files would be collected"
        assert {a.sha256 for s in self.state.slots() for a in s.release.artifacts} <= blobs_to_keep(self.state)

    @invariant()
    def the_sessions_are_those_that_run(self) -> None:
        assert {s.id: s.release_id for s in self.state.sessions} == self.running

    @invariant()
    def the_state_can_be_written_and_read(self) -> None:
        assert msgspec.json.decode(msgspec.json.encode(self.state), type=State) == self.state

    @invariant()
    def a_check_offers_nothing_that_is_quarantined(self) -> None:
        for entry in self.state.quarantine:
            offered = release(entry.version)
            model = offered.model
            tier = TierEntry(url=model.url, size_bytes=10, sha256=model.sha256, version=entry.version)
            manifest = Manifest(schema=1, current_version=entry.version, models={"1b": tier})
            engines = {entry.engine, None} if entry.probed else {"p 1", "p 2", None}
            for engine in engines:
                device = Device(id="d", tier="1b", engine=engine)
                assert not isinstance(select(manifest, self.state, device, NOW), Offer)


def unprobed(state: State) -> State:
    """The state without what probes measured."""
    names = ("current", "previous", "pending")
    return replace(
        state, **{name: replace(held, probe=None) if (held := getattr(state, name)) else None for name in names}
    )


def total(state: State) -> int:
    """The tries that are left and those that sessions hold and may give back."""
    return state.tries_left + sum(s.charged for s in state.sessions)


DeviceMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestDevice = DeviceMachine.TestCase
