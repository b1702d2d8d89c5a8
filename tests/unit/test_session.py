"""Sessions: when a release becomes current, and what makes a device go back."""

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from overair.core import commands
from overair.device import external
from overair.device.download import stage
from overair.device.session import Session
from overair.device.updater import Updater
from overair.errors import (
    EngineError,
    EngineMissingError,
    IllegalEventError,
    IntegrityError,
    StateUnreadableError,
    StorageError,
)
from overair.model.events import Cause, Happening
from overair.model.release import Artifact, Bundle, Release, Requirements
from overair.model.state import TRIES_ON_TRIAL, TRIES_PROVEN
from overair.store import history
from overair.store.durable import remove_file
from overair.store.store import Store
from support.devices import bring, dies_in_session, finish, kill, new_store, staged, start, start_ready
from support.disks import fill, small_disk
from support.engines import ScriptedEngine
from support.models import smollm2
from support.states import AT


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path / "store")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as point:
        yield point


def session(store: Store) -> Session:
    return Session(store, ScriptedEngine(), app_version="3.0.0")


def use(store: Store, prompt: str = "hi") -> str:
    """A whole session with one answer, which confirms."""
    with session(store) as open_session:
        return open_session.generate(prompt)


def installed(store: Store, version: str = "1.0.0", script: str = "") -> None:
    staged(store, version, script)
    use(store)


def held(store: Store) -> tuple[str, ...]:
    state = store.read()
    return tuple(s.release.version if s else "-" for s in (state.current, state.previous, state.pending))


def bad(store: Store) -> list[str]:
    return [q.version for q in store.read().quarantine]


def happened(store: Store) -> list[tuple[Happening, str]]:
    return [(event.what, event.version) for event in history.read(store.layout.history)]


def total(store: Store) -> int:
    """The tries that are left and those that sessions hold and may give back."""
    state = store.read()
    return state.tries_left + sum(s.charged for s in state.sessions)


def staged_file(store: Store, version: str, path: Path) -> None:
    """A release of one file, which is linked into the store and not copied."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    store.layout.blob(digest).hardlink_to(path)
    model = Artifact(role="model", name=path.name, url="model", size_bytes=path.stat().st_size, sha256=digest)
    stage(store, Release(tier="1b", version=version, artifacts=(model,)))


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- swap -----------------------------------------------------------------------------------------------------------


def test_nothing_installed_is_said_clearly(store: Store) -> None:
    with pytest.raises(IllegalEventError, match="nothing is installed yet") as caught, session(store):
        pass
    assert "device update" in caught.value.hint
    assert list(store.layout.leases.iterdir()) == []


def test_a_swap_happens_at_the_start_of_a_session_and_only_there(store: Store) -> None:
    staged(store, "1.0.0")
    assert held(store) == ("-", "-", "1.0.0")
    with session(store) as first:
        assert held(store) == ("1.0.0", "-", "-")
        assert first.generate("hi") == "model 1.0.0: hi"
        staged(store, "2.0.0")
        assert first.generate("hi") == "model 1.0.0: hi"
        assert held(store) == ("1.0.0", "-", "2.0.0")
    assert held(store) == ("1.0.0", "-", "2.0.0")
    assert use(store) == "model 2.0.0: hi"
    assert held(store) == ("2.0.0", "1.0.0", "-")
    assert store.read().sessions == ()
    assert list(store.layout.leases.iterdir()) == []


def test_a_running_session_keeps_its_files_whatever_happens_beside_it(store: Store) -> None:
    staged(store, "1.0.0", adapter="lora")
    with session(store) as running:
        bundle = running.bundle
        content = bundle.model.read_bytes()
        for version in ("2.0.0", "3.0.0", "4.0.0"):
            installed(store, version)
            with store.download_lock(), store.lock():
                store.collect_garbage()
        assert held(store) == ("4.0.0", "3.0.0", "-")
        assert running.bundle == bundle
        assert bundle.model.read_bytes() == content
        assert bundle.adapters[0].read_text() == "lora"
        assert running.generate("hi") == "model 1.0.0: hi"
    with store.download_lock(), store.lock():
        store.collect_garbage()
    assert not bundle.model.exists()
    assert use(store) == "model 4.0.0: hi"


def test_a_session_of_another_process_keeps_its_files(store: Store) -> None:
    staged(store, "1.0.0")
    child = start_ready("session", str(store.layout.root), "hi")
    release_id = store.read().sessions[0].release_id
    for version in ("2.0.0", "3.0.0", "4.0.0"):
        installed(store, version)
    assert (store.layout.release(release_id) / "model.gguf").exists()
    assert len(store.read().sessions) == 1
    finish(child)
    assert store.read().sessions == ()
    assert held(store) == ("4.0.0", "3.0.0", "-")


def test_the_first_answer_confirms_and_makes_room(store: Store) -> None:
    installed(store, "1.0.0")
    installed(store, "2.0.0")
    oldest = [slot.release.model.sha256 for slot in store.read().slots()][1]
    staged(store, "3.0.0")
    with session(store) as third:
        assert store.read().on_trial
        assert store.layout.blob(oldest).exists()
        third.generate("hi")
        assert not store.read().on_trial
        assert not store.layout.blob(oldest).exists()


def test_a_blank_answer_confirms_nothing_and_costs_nothing(store: Store) -> None:
    staged(store, "1.0.0", "generate blank")
    assert use(store) == " \n"
    assert store.read().on_trial
    assert store.read().tries_left == TRIES_ON_TRIAL


# --- a release that does not load -----------------------------------------------------------------------------------


def test_on_trial_the_previous_release_runs_in_the_same_session(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0", "load fail")
    engine = ScriptedEngine()
    with Session(store, engine, app_version="3.0.0") as saved:
        assert saved.bundle.version == "1.0.0"
        assert saved.generate("hi") == "model 1.0.0: hi"
        assert len(store.read().sessions) == 1
    assert engine.loads == ["2.0.0", "2.0.0", "1.0.0"]
    assert (held(store), bad(store)) == (("1.0.0", "-", "-"), ["2.0.0"])
    entry = store.read().quarantine[0]
    assert "load failed on purpose" in entry.reason
    assert (entry.app_version, entry.engine) == ("3.0.0", "scripted 1")
    assert store.read().tries_left == TRIES_PROVEN


def test_a_first_install_that_does_not_load_leaves_nothing(store: Store) -> None:
    staged(store, "1.0.0", "load fail")
    with pytest.raises(EngineError, match="load failed on purpose") as caught, session(store):
        pass
    assert caught.value.exit_code == 25
    assert (held(store), bad(store)) == (("-", "-", "-"), ["1.0.0"])
    assert store.read().sessions == ()
    assert list(store.layout.leases.iterdir()) == []


class Refuses(ScriptedEngine):
    """Does not load one version."""

    def __init__(self, version: str) -> None:
        super().__init__()
        self._version = version

    def load(self, bundle: Bundle) -> None:
        super().load(bundle)
        if bundle.version == self._version:
            raise EngineError(f"does not know {bundle.model}")


def test_a_proven_release_stays_for_two_failed_loads(store: Store) -> None:
    installed(store, "1.0.0")
    installed(store, "2.0.0")
    for tries in (2, 1):
        with pytest.raises(EngineError), Session(store, Refuses("2.0.0")):
            pass
        assert (held(store)[0], store.read().tries_left) == ("2.0.0", tries)
    with Session(store, Refuses("2.0.0")) as saved:
        assert saved.bundle.version == "1.0.0"
    assert bad(store) == ["2.0.0"]
    assert "does not know model.gguf" in store.read().quarantine[0].reason, "a path says who the user is"


# --- files that rot ---------------------------------------------------------------------------------------------------


def rot(store: Store, version: str) -> None:
    """Change a file on the disk in place, so that its engine refuses it."""
    release = next(s.release for s in store.read().slots() if s.release.version == version)
    model = store.blobs.install(release).model
    model.chmod(0o644)
    length = model.stat().st_size
    model.write_bytes((b"x\nload fail\n" * length)[:length])


def test_a_file_that_rotted_condemns_nobody(store: Store) -> None:
    installed(store)
    second = staged(store, "2.0.0", "#" * 20)
    rot(store, "2.0.0")
    with (
        pytest.raises(IntegrityError, match=r"2\.0\.0 does not load: model\.gguf is damaged") as caught,
        session(store),
    ):
        pass
    assert "verify --repair" in caught.value.hint
    assert (held(store), bad(store)) == (("2.0.0", "1.0.0", "-"), [])
    assert use(store) == "model 1.0.0: hi", "the second start goes back, so that the app has a model"
    assert (held(store), bad(store)) == (("1.0.0", "-", "-"), [])
    assert not store.layout.blob(second.id).exists(), "the next download would take the rotten file for a good one"
    assert {event.cause for event in history.read(store.layout.history) if event.what is Happening.FAILED} == {
        Cause.DAMAGE
    }
    staged(store, "2.0.0", "#" * 20)
    assert use(store) == "model 2.0.0: hi"


@pytest.mark.parametrize("proven", [False, True])
def test_a_file_that_rotted_with_nothing_behind_it_stays_to_be_repaired(store: Store, proven: bool) -> None:
    staged(store, "1.0.0", "#" * 20)
    if proven:
        use(store)
    else:
        with session(store):
            pass
    rot(store, "1.0.0")
    for _ in range(5):
        with pytest.raises(IntegrityError), session(store):
            pass
    assert (held(store), bad(store)) == (("1.0.0", "-", "-"), [])


def test_an_engine_that_is_missing_says_nothing_about_the_model(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0", "load missing")
    for _ in range(4):
        with pytest.raises(EngineMissingError), session(store):
            pass
    assert (held(store), bad(store)) == (("2.0.0", "1.0.0", "-"), [])
    assert store.read().tries_left == TRIES_ON_TRIAL


def test_a_file_that_is_missing_is_said_before_anything_is_loaded(store: Store) -> None:
    installed(store)
    remove_file(store.layout.blob(store.read().slots()[0].id))
    engine = ScriptedEngine()
    with pytest.raises(IntegrityError, match=r"model\.gguf of 1\.0\.0") as caught, Session(store, engine):
        pass
    assert "verify --repair" in caught.value.hint
    assert engine.loads == []
    assert store.read().tries_left == TRIES_PROVEN
    assert store.read().sessions == ()


# --- a release that does not answer ---------------------------------------------------------------------------------


def test_failed_answers_on_trial_are_strikes(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0", "generate fail")
    with session(store) as failing:
        with pytest.raises(EngineError):
            failing.generate("hi")
        assert held(store)[0] == "2.0.0"
        with pytest.raises(EngineError):
            failing.generate("hi")
        assert held(store)[0] == "1.0.0"
        assert failing.bundle.version == "2.0.0", "a session does not change its model"
    assert bad(store) == ["2.0.0"]
    assert use(store) == "model 1.0.0: hi"


class Flaky(ScriptedEngine):
    """Fails at every other question."""

    asked = 0

    def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
        self.asked += 1
        if self.asked % 2 == 0:
            raise EngineError("not now")
        return super().generate(prompt, max_tokens=max_tokens)


def test_an_answer_clears_the_count_of_failures(store: Store) -> None:
    installed(store, "1.0.0")
    installed(store, "2.0.0")
    with Session(store, Flaky()) as flaky:
        for i in range(10):
            if i % 2:
                with pytest.raises(EngineError):
                    flaky.generate("hi")
            else:
                assert flaky.generate("hi") == "model 2.0.0: hi"
    assert (held(store), bad(store)) == (("2.0.0", "1.0.0", "-"), [])


# --- a release that takes the process down --------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["load kill", "generate kill"])
def test_two_crashes_on_trial_bring_the_previous_release_back(store: Store, script: str) -> None:
    installed(store)
    staged(store, "2.0.0", script)
    dies_in_session(store, "hi")
    assert held(store) == ("2.0.0", "1.0.0", "-")
    dies_in_session(store, "hi")
    assert held(store)[0] == "2.0.0", "nobody was there to notice yet"
    third = start_ready("session", str(store.layout.root), "hi")  # a process of its own: it may die as well
    assert happened(store)[-1] == (Happening.QUARANTINED, "2.0.0")
    finish(third)
    assert use(store) == "model 1.0.0: hi"
    assert (held(store), bad(store)) == (("1.0.0", "-", "-"), ["2.0.0"])
    assert happened(store).count((Happening.CRASHED, "2.0.0")) == 2
    assert store.read().sessions == ()


def test_the_try_is_taken_before_the_load(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0", "load kill")
    dies_in_session(store)
    state = store.read()
    assert state.tries_left == TRIES_ON_TRIAL - 1
    assert [s.charged for s in state.sessions] == [True]


def test_a_crash_after_a_confirm_leaves_the_release_proven(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0")
    kill(start_ready("session", str(store.layout.root), "hi"))
    assert use(store) == "model 2.0.0: hi"
    assert held(store) == ("2.0.0", "1.0.0", "-")


def test_crashes_while_idle_are_no_strikes(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0")
    for _ in range(3):
        kill(start_ready("session", str(store.layout.root)))
    with session(store):
        assert (held(store), bad(store)) == (("2.0.0", "1.0.0", "-"), [])
        assert store.read().tries_left == TRIES_ON_TRIAL - 1
    assert store.read().tries_left == TRIES_ON_TRIAL
    assert Happening.CRASHED not in {what for what, _ in happened(store)}


def test_an_error_of_the_app_is_no_verdict(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0")
    for error in (ValueError("the app's own"), KeyboardInterrupt(), SystemExit(1)):
        with pytest.raises(type(error)), session(store):
            raise error
    assert (held(store), bad(store)) == (("2.0.0", "1.0.0", "-"), [])
    assert store.read().tries_left == TRIES_ON_TRIAL
    assert store.read().sessions == ()


class Interrupted(ScriptedEngine):
    def load(self, bundle: Bundle) -> None:
        self.loads.append(bundle.version)
        raise KeyboardInterrupt


def test_an_impatient_user_is_no_verdict(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0")
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt), Session(store, Interrupted()):
            pass
    assert use(store) == "model 2.0.0: hi"


# --- a process that ends while the model works, for whatever reason ---------------------------------------------------


def begun(store: Store, *what: str) -> subprocess.Popen[str]:
    """A child that is where it says `ready`; it does not outlive its test."""
    _CHILDREN.append(start_ready(what[0], str(store.layout.root), *what[1:]))
    return _CHILDREN[-1]


_CHILDREN: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
    yield
    while _CHILDREN:
        child = _CHILDREN.pop()
        child.kill()
        child.communicate(timeout=30)


def ended_by(child: subprocess.Popen[str], number: signal.Signals, code: int) -> None:
    child.send_signal(number)
    child.communicate(timeout=30)
    assert child.returncode == code


def tries_after_next_start(store: Store) -> int:
    """What a start that notices the dead session finds, without its own."""
    with Session(store, None):
        return total(store)


@pytest.mark.skipif(os.name == "nt", reason="there are no such signals there")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["load", "generate"])
def test_a_user_who_quits_while_the_model_computes_is_no_strike(
    store: Store, number: signal.Signals, moment: str
) -> None:
    installed(store)
    staged(store, "2.0.0", f"{moment} hang")
    for _ in range(3):
        ended_by(begun(store, "session", "hi"), number, -number)
    assert tries_after_next_start(store) == TRIES_ON_TRIAL
    assert (held(store), bad(store)) == (("2.0.0", "1.0.0", "-"), [])
    with store.download_lock(), store.lock():
        store.collect_garbage()
    assert list(store.layout.leases.iterdir()) == [], "a note was left behind"


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there are no such signals there")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_user_who_quits_while_llama_cpp_generates(store: Store, number: signal.Signals) -> None:
    staged_file(store, "1.0.0", smollm2())
    child = begun(store, "real", "Tell me a long story about a dog.")
    (note,) = (path for path in store.layout.leases.iterdir() if not path.suffix)
    wait_until(lambda: note.read_bytes()[:1] == b"b")
    time.sleep(0.1)  # so that it is surely inside of llama.cpp
    ended_by(child, number, -number)
    assert tries_after_next_start(store) == (1 if number == signal.SIGKILL else TRIES_ON_TRIAL)


@pytest.mark.skipif(os.name == "nt", reason="there are no such signals there")
def test_a_user_who_interrupts_and_then_kills_is_no_strike(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0", "generate hang")
    child = begun(store, "session", "hi")
    child.send_signal(signal.SIGINT)  # Python's own handler waits for the computation
    note = next(store.layout.leases.glob("*.quit"))
    wait_until(lambda: note.stat().st_size > 0)
    ended_by(child, signal.SIGKILL, -signal.SIGKILL)
    assert tries_after_next_start(store) == TRIES_ON_TRIAL


@pytest.mark.skipif(os.name == "nt", reason="there are no such signals there")
def test_an_app_with_a_handler_of_its_own_that_is_killed_in_the_end_is_no_strike(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0", "generate hang")
    child = begun(store, "handler")
    child.send_signal(signal.SIGTERM)
    note = next(store.layout.leases.glob("*.quit"))
    wait_until(lambda: note.stat().st_size > 0)
    ended_by(child, signal.SIGKILL, -signal.SIGKILL)
    assert tries_after_next_start(store) == TRIES_ON_TRIAL


@pytest.mark.skipif(os.name == "nt", reason="there are no such signals there")
def test_a_signal_that_ends_nothing_excuses_nothing(store: Store) -> None:
    """Under `nohup` a hang-up is ignored, and the kill that comes later is a crash like any other."""
    installed(store)
    staged(store, "2.0.0", "generate hang")
    child = begun(store, "nohup")
    ended_by(child, signal.SIGKILL, -signal.SIGKILL)
    assert tries_after_next_start(store) == TRIES_ON_TRIAL - 1


@pytest.mark.skipif(os.name == "nt", reason="there are no such signals there")
def test_the_handlers_of_the_app_stay_and_are_called(store: Store) -> None:
    installed(store)
    called: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: called.append("first"))
    try:
        with session(store), session(store) as second:
            signal.raise_signal(signal.SIGTERM)
            assert [note.stat().st_size > 0 for note in store.layout.leases.glob("*.quit")] == [True, True]
            assert second.generate("hi") == "model 1.0.0: hi"
        signal.raise_signal(signal.SIGTERM)
        with session(store):
            signal.signal(signal.SIGTERM, lambda *_: called.append("second"))
        signal.raise_signal(signal.SIGTERM)
        with session(store):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert called == ["first", "first", "second", "second"]
    assert list(store.layout.leases.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="there are no such signals there")
def test_a_handler_that_the_app_sets_during_a_session_outlives_it(store: Store) -> None:
    installed(store)
    child = start("settles", str(store.layout.root))
    child.communicate(timeout=30)
    assert child.returncode == 5


@pytest.mark.skipif(os.name == "nt", reason="there are no such signals there")
def test_a_signal_that_the_process_outlives_is_forgotten(store: Store) -> None:
    installed(store)
    before = signal.signal(signal.SIGHUP, lambda *_: None)  # reads its settings again, as a service does
    try:
        with session(store) as open_session:
            signal.raise_signal(signal.SIGHUP)
            (note,) = store.layout.leases.glob("*.quit")
            open_session.generate("hi")
            assert note.stat().st_size > 0, "it may be ending just now"
            os.utime(note, (0, 0))
            open_session.generate("hi")
            assert note.stat().st_size == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_child_of_the_app_that_is_told_to_end_says_nothing_about_the_app(store: Store) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("nothing is forked there")
    installed(store)
    with session(store):
        (note,) = store.layout.leases.glob("*.quit")
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        assert note.stat().st_size == 0


@pytest.mark.parametrize("script", ["load segfault", "generate segfault", "generate@3 segfault"])
def test_a_model_that_takes_the_process_down_is_gone_after_its_strikes(store: Store, script: str) -> None:
    installed(store)
    staged(store, "2.0.0", script)
    prompts = ["hi"] * 3
    for _ in range(4):
        start("session", str(store.layout.root), *prompts).communicate("go on\n", timeout=30)
    proves_itself_first = "@3" in script
    assert held(store)[0] == ("2.0.0" if proves_itself_first else "1.0.0")
    assert bad(store) == ([] if proves_itself_first else ["2.0.0"])


def test_a_good_model_in_an_app_that_crashes_for_its_own_reasons_stays(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0")
    for _ in range(5):
        child = start("segfault", str(store.layout.root))
        child.communicate(timeout=30)
        assert child.returncode == -signal.SIGSEGV
    assert tries_after_next_start(store) == TRIES_ON_TRIAL
    assert (held(store), bad(store)) == (("2.0.0", "1.0.0", "-"), [])


@pytest.mark.parametrize("moment", ["load", "generate"])
def test_killed_while_it_computes_counts_in_every_phase(store: Store, moment: str) -> None:
    installed(store)
    staged(store, "2.0.0", f"{moment} hang")
    for left in (1, None):
        kill(begun(store, "session", "hi"))
        if left is not None:
            assert store.read().on_trial
    assert use(store) == "model 1.0.0: hi"
    assert bad(store) == ["2.0.0"]


def test_a_load_that_memory_may_not_suffice_for_is_announced_and_tried(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    release = bring(store, "1.0.0")
    stage(store, replace(release, requires=Requirements(ram_bytes=1 << 60)))
    assert use(store) == "model 1.0.0: hi"
    assert "1.0.0 needs 1152921504.6 GB of memory" in caplog.text


# --- operations that hang or come late --------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["load", "generate"])
def test_a_hang_is_a_strike_while_it_lasts_and_one_only(store: Store, moment: str) -> None:
    installed(store)
    staged(store, "2.0.0", f"{moment} hang")
    child = begun(store, "late")
    wait_until(lambda: total(store) == TRIES_ON_TRIAL - 1)
    kill(child)
    assert tries_after_next_start(store) == TRIES_ON_TRIAL - 1, "the hang and its end are one strike"
    child = begun(store, "late")
    wait_until(lambda: bad(store) == ["2.0.0"])
    kill(child)
    assert use(store) == "model 1.0.0: hi"
    assert f"did not {'load' if moment == 'load' else 'answer'} within 0.05 s" in store.read().quarantine[0].reason


class Slow(ScriptedEngine):
    """Takes its time for the answers to `slow`."""

    def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
        if prompt == "slow":
            time.sleep(0.1)
        return super().generate(prompt, max_tokens=max_tokens)


def test_an_answer_that_comes_too_late_gives_nothing_back_and_the_next_one_does(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0")
    with Session(store, Slow(), generate_timeout_s=0.02) as slow:
        assert slow.generate("slow") == "model 2.0.0: slow"
        assert (store.read().on_trial, store.read().tries_left) == (True, TRIES_ON_TRIAL - 1)
        assert slow.generate("hi") == "model 2.0.0: hi"
        assert (store.read().on_trial, store.read().tries_left) == (False, TRIES_PROVEN)


def test_a_model_that_is_always_late_goes(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0")
    with Session(store, Slow(), generate_timeout_s=0.02) as slow:
        assert [slow.generate("slow") for _ in range(3)] == ["model 2.0.0: slow"] * 3
    assert (held(store), bad(store)) == (("1.0.0", "-", "-"), ["2.0.0"])


def test_a_late_load_that_fails_as_well_is_one_strike(store: Store) -> None:
    installed(store, "1.0.0")
    installed(store, "2.0.0")

    class SlowToRefuse(Refuses):
        def load(self, bundle: Bundle) -> None:
            time.sleep(0.05)
            super().load(bundle)

    with pytest.raises(EngineError), Session(store, SlowToRefuse("2.0.0"), load_timeout_s=0.01):
        pass
    assert (held(store)[0], store.read().tries_left) == ("2.0.0", TRIES_PROVEN - 1)


# --- answers with nothing, and now and then a failure -----------------------------------------------------------------


def test_answers_with_nothing_on_trial_are_strikes(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0", "generate empty")
    with session(store) as open_session:
        assert open_session.generate("hi") == ""
        assert store.read().tries_left == TRIES_ON_TRIAL - 1
        assert open_session.generate("hi") == ""
    assert (held(store), bad(store)) == (("1.0.0", "-", "-"), ["2.0.0"])


def test_nothing_to_a_question_for_nothing_is_no_strike(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0", "generate empty")
    with session(store) as open_session:
        for _ in range(3):
            assert open_session.generate(" ") == ""
            assert open_session.generate("hi", max_tokens=1) == ""
    assert store.read().tries_left == TRIES_ON_TRIAL


def test_answers_with_nothing_of_a_proven_release_are_no_strikes(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0", "\n".join(f"generate@{n} empty" for n in range(2, 9)))
    with session(store) as open_session:
        assert [open_session.generate("hi") for _ in range(8)] == ["model 2.0.0: hi"] + [""] * 7
    assert (held(store), bad(store)) == (("2.0.0", "1.0.0", "-"), [])


def test_one_failure_in_fifty_never_takes_a_proven_release_down(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0", "\n".join(f"generate@{n} fail" for n in range(50, 501, 50)))
    failures = 0
    with session(store) as open_session:
        for _ in range(500):
            try:
                open_session.generate("hi")
            except EngineError:
                failures += 1
    assert failures == 10
    assert (held(store), bad(store)) == (("2.0.0", "1.0.0", "-"), [])
    assert store.read().tries_left == TRIES_PROVEN - 1, "the last one failed"


# --- verdicts of the caller -----------------------------------------------------------------------------------------


def test_callers_with_an_engine_of_their_own_give_the_verdict(store: Store) -> None:
    staged(store, "1.0.0")
    with Session(store, None) as own:
        assert own.bundle.model.read_text().startswith("model 1.0.0")
        with pytest.raises(IllegalEventError):
            own.generate("hi")
        assert store.read().on_trial
        own.confirm()
        assert not store.read().on_trial
    staged(store, "2.0.0")
    with Session(store, None) as own:
        own.fail("writes nonsense")
        own.fail("still does")
        assert own.bundle.model.read_text().startswith("model 2.0.0")
        with store.download_lock(), store.lock():
            store.collect_garbage()
        assert own.bundle.model.exists(), "a verdict took the files away from a session that runs"
        assert held(store)[0] == "1.0.0"
    assert store.read().quarantine[0].reason == "writes nonsense"
    assert use(store) == "model 1.0.0: hi"


def test_a_generation_of_the_callers_that_raises_is_a_strike(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0")
    with Session(store, None) as own:
        with pytest.raises(ValueError, match="mine"), own.observe():
            raise ValueError("mine")
        assert (store.read().on_trial, store.read().tries_left) == (True, TRIES_ON_TRIAL - 1)
        with own.observe():
            pass
        assert (store.read().on_trial, store.read().tries_left) == (True, TRIES_ON_TRIAL), "a good one clears the count"
        for error in (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError):
            with pytest.raises(error), own.observe():
                raise error
        assert store.read().tries_left == TRIES_ON_TRIAL
        for _ in range(2):
            with pytest.raises(RuntimeError), own.observe():
                raise RuntimeError("again")
    assert (held(store), bad(store)) == (("1.0.0", "-", "-"), ["2.0.0"])
    with pytest.raises(IllegalEventError), own.observe():
        pass


def test_a_process_that_dies_counts_only_while_the_caller_generates(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0")
    for _ in range(3):
        kill(begun(store, "observe", "answer"))
    assert tries_after_next_start(store) == TRIES_ON_TRIAL
    for _ in range(2):
        kill(begun(store, "observe", "hang"))
    assert use(store) == "model 1.0.0: hi"
    assert bad(store) == ["2.0.0"]


def test_a_process_that_dies_before_the_caller_observed_anything_may_have_died_in_the_load(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0")
    for _ in range(2):
        kill(begun(store, "observe"))
    assert use(store) == "model 1.0.0: hi"


def test_observed_generations_at_the_same_time_are_all_counted(store: Store) -> None:
    installed(store)
    with Session(store, None) as own:
        (note,) = (path for path in store.layout.leases.iterdir() if not path.suffix)
        with own.observe():
            with own.observe():
                pass
            assert note.read_bytes()[:1] == b"b", "one is still under way"
        assert note.read_bytes()[:1] == b"i"


def test_an_observed_generation_may_have_a_limit(store: Store) -> None:
    installed(store)
    staged(store, "2.0.0")
    with Session(store, None) as own, own.observe(timeout_s=0.02):
        wait_until(lambda: total(store) == TRIES_ON_TRIAL - 1)
    assert store.read().tries_left == TRIES_ON_TRIAL - 1, "an end that came too late gave the try back"


def test_a_session_that_was_overtaken_confirms_and_condemns_nothing(store: Store) -> None:
    installed(store)
    with session(store) as stale:
        staged(store, "2.0.0", "generate empty")
        use(store)
        assert store.read().on_trial
        assert stale.generate("hi") == "model 1.0.0: hi"
        assert store.read().on_trial, "an answer of the old model confirmed the new one"
        with pytest.raises(IllegalEventError, match="does not run the current release"):
            stale.confirm()
        stale.fail("nonsense")
    assert (held(store), bad(store)) == (("2.0.0", "1.0.0", "-"), [])
    assert store.read().on_trial


def test_a_session_that_is_over_has_no_files_and_no_say(store: Store) -> None:
    staged(store, "1.0.0")
    with session(store) as over:
        pass
    for call in (over.confirm, lambda: over.bundle, lambda: over.generate("hi")):
        with pytest.raises(IllegalEventError):
            call()
    assert store.read().on_trial


def test_a_rollback_by_hand(store: Store) -> None:
    updater = Updater(store.layout.root, url="https://cdn.example.com/m.json", tier="1b", insecure=True)
    installed(store, "1.0.0")
    with pytest.raises(IllegalEventError, match="no previous release"):
        updater.rollback()
    installed(store, "2.0.0")
    with session(store) as running:
        status = updater.rollback(reason="users complain")
        assert status.current is not None
        assert status.current.version == "1.0.0"
        assert running.generate("hi") == "model 2.0.0: hi"
    assert store.read().quarantine[0].reason == "users complain"
    assert use(store) == "model 1.0.0: hi"
    assert store.read().tries_left == TRIES_PROVEN


# --- engines that other programs run --------------------------------------------------------------------------------


def test_another_program_opens_what_a_swap_hands_out(store: Store) -> None:
    staged(store, "1.0.0")
    first = external.swap(store, app_version=None)
    assert first.swapped
    assert first.bundle.model.read_text().startswith("model 1.0.0")
    external.confirm(store)
    assert not store.read().on_trial
    second = external.swap(store, app_version=None)
    assert not second.swapped
    assert second.bundle == first.bundle
    assert len(store.read().sessions) == 1, "the older session is over"


def test_a_service_that_restarts_without_a_confirm_loses_tries(store: Store) -> None:
    staged(store, "1.0.0")
    external.swap(store, app_version=None)
    external.confirm(store)
    staged(store, "2.0.0")
    versions = [external.swap(store, app_version="3.0.0").bundle.version for _ in range(3)]
    assert versions == ["2.0.0", "2.0.0", "1.0.0"]
    assert bad(store) == ["2.0.0"]


def test_restarts_of_a_proven_service_are_no_strikes(store: Store) -> None:
    staged(store, "1.0.0")
    external.swap(store, app_version=None)
    external.confirm(store)
    staged(store, "2.0.0")
    external.swap(store, app_version=None)
    external.confirm(store)
    assert [external.swap(store, app_version=None).bundle.version for _ in range(6)] == ["2.0.0"] * 6
    assert store.read().tries_left == TRIES_PROVEN


def test_a_confirm_without_a_swap_or_for_another_release_is_refused(store: Store) -> None:
    with pytest.raises(IllegalEventError, match="nothing to confirm"):
        external.confirm(store)
    installed(store)
    staged(store, "2.0.0")
    external.swap(store, app_version=None)
    with store.lock():
        store.apply(commands.RollBack(at=AT, reason="r"))
    with pytest.raises(IllegalEventError, match="does not run the current release"):
        external.confirm(store)


def test_a_swap_that_cannot_hand_anything_out_costs_no_try(store: Store) -> None:
    installed(store)
    release = staged(store, "2.0.0")
    remove_file(store.layout.blob(release.id))
    shutil.rmtree(store.layout.release(release.id))
    for _ in range(3):
        with pytest.raises(StorageError):
            external.swap(store, app_version=None)
    assert (held(store)[0], bad(store)) == ("2.0.0", [])
    assert store.read().tries_left == TRIES_ON_TRIAL


# --- the disk refuses -----------------------------------------------------------------------------------------------


def test_on_a_full_disk_what_is_proven_goes_on_working(disk: Path) -> None:
    store = new_store(disk)
    installed(store)
    staged(store, "2.0.0")
    filler = fill(disk)
    before = store.read()
    assert use(store) == "model 1.0.0: hi"
    assert store.read() == before, "nothing can be written down, so nothing is swapped"
    filler.unlink()
    assert use(store) == "model 2.0.0: hi"


def test_on_a_full_disk_a_release_on_trial_is_not_started(disk: Path) -> None:
    """It could take the process down over and over, and nobody would count."""
    store = new_store(disk)
    staged(store, "1.0.0")
    with session(store):
        pass
    fill(disk)
    engine = ScriptedEngine()
    with pytest.raises(StorageError) as caught, Session(store, engine):
        pass
    assert caught.value.exit_code == 23
    assert engine.loads == []


def test_a_disk_that_fills_up_during_a_session_is_no_strike(disk: Path) -> None:
    store = new_store(disk)
    staged(store, "1.0.0")
    filler = disk / "filler"
    for _ in range(4):
        with session(store) as open_session:
            fill(disk)
            assert open_session.generate("hi") == "model 1.0.0: hi"
        filler.unlink()
    with session(store):
        assert (held(store), bad(store)) == (("1.0.0", "-", "-"), [])
    assert store.read().tries_left == TRIES_ON_TRIAL
    assert Happening.CRASHED not in {what for what, _ in happened(store)}


class FillsTheDisk(ScriptedEngine):
    """The disk is full by the time that the load fails."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def load(self, bundle: Bundle) -> None:
        self.loads.append(bundle.version)
        fill(self._folder)
        raise EngineError("does not load and the disk is full")


def test_a_failed_load_that_cannot_be_written_down_counts_at_the_next_start(disk: Path) -> None:
    store = new_store(disk)
    installed(store)
    staged(store, "2.0.0")
    for _ in range(TRIES_ON_TRIAL):
        with pytest.raises(EngineError, match="does not load"), Session(store, FillsTheDisk(disk)):
            pass
        (disk / "filler").unlink()
    assert use(store) == "model 1.0.0: hi"
    assert bad(store) == ["2.0.0"]


@pytest.mark.skipif(os.name == "nt", reason="a folder cannot be taken away like that there")
def test_a_store_that_cannot_be_made_is_an_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError) as caught:
        new_store(tmp_path / "file" / "store")
    assert caught.value.exit_code == 23
    assert str(tmp_path / "file") in caught.value.message


def test_a_state_that_cannot_be_read_starts_nothing_and_is_not_reset(store: Store) -> None:
    installed(store)
    for copy in store.layout.state_copies:
        copy.write_bytes(b"damaged")
    engine = ScriptedEngine()
    with pytest.raises(StateUnreadableError) as caught, Session(store, engine):
        pass
    assert caught.value.exit_code == 27
    assert engine.loads == []
    assert [copy.read_bytes() for copy in store.layout.state_copies] == [b"damaged"] * 2
    assert list(store.layout.leases.glob("*.lock")) == [], "a session that never began still holds its lease"


def test_a_state_that_breaks_during_a_session_does_not_stop_the_model(store: Store) -> None:
    staged(store, "1.0.0")
    with session(store) as open_session:
        for copy in store.layout.state_copies:
            copy.write_bytes(b"damaged")
        assert open_session.generate("hi") == "model 1.0.0: hi"


class FailsOnce(ScriptedEngine):
    """Cannot load at the first try, as on a disk that refuses once."""

    def load(self, bundle: Bundle) -> None:
        super().load(bundle)
        if len(self.loads) == 1:
            raise EngineError("input/output error")


def test_a_load_that_fails_once_condemns_no_model(store: Store) -> None:
    staged(store, "1.0.0")
    engine = FailsOnce()
    with Session(store, engine) as session:
        assert session.generate("hello").startswith("model 1.0.0")
    state = store.read()
    assert engine.loads == ["1.0.0", "1.0.0"]
    assert state.current is not None
    assert (state.current.proven, state.quarantine) == (True, ())
