"""Sessions: when a release becomes current, and what makes a device go back."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from overair.core import commands
from overair.device import external
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
from overair.model.events import Happening
from overair.model.release import Bundle
from overair.model.state import TRIES_ON_TRIAL, TRIES_PROVEN
from overair.store import history
from overair.store.durable import remove_file
from overair.store.store import Store
from support.devices import dies_in_session, finish, kill, new_store, staged, start_ready
from support.disks import fill, small_disk
from support.engines import ScriptedEngine
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


def test_an_empty_answer_confirms_nothing(store: Store) -> None:
    staged(store, "1.0.0", "generate empty")
    assert use(store) == ""
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


def test_a_proven_release_stays_for_two_failed_loads(store: Store) -> None:
    installed(store, "1.0.0")
    installed(store, "2.0.0")
    model = store.blobs.install(store.read().slots()[0].release).model
    model.chmod(0o644)
    length = model.stat().st_size
    model.write_bytes((b"x\nload fail\n" * length)[:length])
    for tries in (2, 1):
        with pytest.raises(EngineError), session(store):
            pass
        assert (held(store)[0], store.read().tries_left) == ("2.0.0", tries)
    with session(store) as saved:
        assert saved.bundle.version == "1.0.0"
    assert bad(store) == ["2.0.0"]


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
