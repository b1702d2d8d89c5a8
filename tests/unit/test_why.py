"""Answers to "why didn't it update?" and "why did it go back?"."""

from pathlib import Path

import pytest

from overair.core import slots
from overair.core.commands import Begin, Command, Confirm, Die, End, Fail, RollBack, Stage
from overair.core.why import why_it_went_back, why_no_update
from overair.model.cache import cache_key
from overair.model.events import Cause, Event
from overair.model.release import Bundle
from overair.model.report import LastCheck, Status, slot_status
from overair.model.state import State
from support.states import AT, digest_of, slot


def lived(*commands: Command) -> list[Event]:
    state, events = State(), list[Event]()
    for command in commands:
        state, more = slots.apply(state, command)
        events += more
    return events


PROVEN: tuple[Command, ...] = (
    Stage(at=AT, slot=slot("1.0.0", proven=False)),
    Begin(at=AT, session_id="a"),
    Confirm(at=AT, session_id="a"),
    End(at=AT, session_id="a"),
)
TRIAL: tuple[Command, ...] = (*PROVEN, Stage(at=AT, slot=slot("2.0.0", proven=False)), Begin(at=AT, session_id="b"))


def test_a_device_that_never_went_back_says_nothing() -> None:
    assert why_it_went_back([]) is None
    assert why_it_went_back(lived(*TRIAL)) is None


def test_crashes_are_told_one_by_one() -> None:
    events = lived(
        *TRIAL,
        Die(at=AT, session_id="b", busy=True),
        Begin(at=AT, session_id="c"),
        Die(at=AT, session_id="c", busy=True),
    )
    answer = why_it_went_back(events)
    assert answer is not None
    first, *strikes, last = answer.splitlines()
    assert first.startswith(f"{AT}: 2.0.0 gave way to 1.0.0: no tries left: the process ended while")
    assert len(strikes) == 2
    assert all("crashed" in line for line in strikes)
    assert last.startswith("2.0.0 is in quarantine until")


def test_a_first_install_that_failed_gave_way_to_nothing() -> None:
    first: tuple[Command, ...] = (*PROVEN[:2], Fail(at=AT, session_id="a", reason="does not load", cause=Cause.LOAD))
    answer = why_it_went_back(lived(*first))
    assert answer is not None
    assert "1.0.0 gave way to nothing: does not load" in answer


def test_a_rollback_by_hand_says_so() -> None:
    events = lived(*TRIAL, Confirm(at=AT, session_id="b"), RollBack(at=AT, reason="users complain"))
    answer = why_it_went_back(events)
    assert answer is not None
    assert answer.splitlines()[0].endswith("2.0.0 gave way to 1.0.0: users complain")


def test_files_that_rotted_are_in_no_quarantine() -> None:
    rotten = [
        Fail(at=AT, session_id=name, reason="rotten", cause=Cause.DAMAGE, strike=True, blameless=True) for name in "bc"
    ]
    answer = why_it_went_back(lived(*TRIAL, rotten[0], Begin(at=AT, session_id="c"), rotten[1]))
    assert answer is not None
    assert "not in quarantine" in answer


def status(*, pending: str | None = None, check: LastCheck | None = None) -> Status:
    return Status(
        tier="1b",
        channel="stable",
        app_version=None,
        current=slot_status(slot("1.0.0")),
        previous=None,
        pending=slot_status(slot(pending)) if pending else None,
        trial=None,
        quarantine=(),
        sequence=1,
        sessions=0,
        last_check=check,
    )


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("up-to-date", f"1.0.0 is installed (checked at {AT})"),
        ("deferred", f"1.0.0 is installed (checked at {AT})"),
        ("failed", f"1.0.0 is installed (checked at {AT})"),
        ("offer", f"1.0.0 is installed, and it has not been downloaded (checked at {AT})"),
    ],
)
def test_the_last_check_says_why_there_is_no_update(outcome: str, expected: str) -> None:
    check = LastCheck(at=AT, outcome=outcome, reason="r", explanation="1.0.0 is installed", hint="wait")  # type: ignore[arg-type]  # one of its names
    assert why_no_update(status(check=check)) == f"{expected}\nhint: wait"


def test_what_waits_for_a_session_and_what_was_never_asked_is_said() -> None:
    assert why_no_update(status(pending="2.0.0")) == "2.0.0 is downloaded: the next session starts it"
    assert "has not checked yet" in why_no_update(status())


# --- caches -----------------------------------------------------------------------------------------------------------


def bundle(content: str) -> Bundle:
    return bundle_with(digest_of(content))


def bundle_with(digest: str) -> Bundle:
    return Bundle(id=digest, version="1.0.0", sha256=digest, model=Path("m.gguf"))


def test_no_two_models_and_no_two_settings_share_a_cache() -> None:
    keys = [
        cache_key(bundle("a")),
        cache_key(bundle("b")),
        cache_key(bundle("a"), "kv"),
        cache_key(bundle("a"), "kv", 4096),
        cache_key(bundle("a"), "kv", "4096"),
        cache_key(bundle("a"), "kv4096"),
        cache_key(bundle("a"), "k", "v4096"),
        cache_key(bundle("a"), "kv", 4096, "xllamacpp 1"),
    ]
    assert len(set(keys)) == len(keys)
    twins = [bundle_with(digest_of("a")[:16] + rest * 48) for rest in "01"]
    assert cache_key(twins[0]) != cache_key(twins[1]), "what tells two models apart is all of their digest"
    assert cache_key(bundle("a"), "kv", 4096) == keys[3]
    assert all(len(key) == 49 and key.replace("-", "").isalnum() for key in keys)
    assert keys[0][:16] == digest_of("a")[:16]
