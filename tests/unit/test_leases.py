"""Who is alive, and what those who are not were doing."""

import signal
from pathlib import Path

import pytest

from overair.errors import LockedError
from overair.host.quit import QuitNote
from overair.store.leases import Lease, forget, is_alive, was_busy
from support.devices import finish, kill, start_ready


@pytest.mark.parametrize("doing", ["busy", "idle"])
def test_a_killed_process_is_dead_and_what_it_did_is_known(tmp_path: Path, doing: str) -> None:
    child = start_ready("lease", str(tmp_path), "s", "boot-1", doing)
    assert is_alive(tmp_path, "s")
    kill(child)
    assert not is_alive(tmp_path, "s")
    assert was_busy(tmp_path, "s", "boot-1") is (doing == "busy")


def test_after_another_start_of_the_machine_it_is_not_known(tmp_path: Path) -> None:
    kill(start_ready("lease", str(tmp_path), "s", "boot-1", "busy"))
    assert was_busy(tmp_path, "s", "boot-2") is None
    assert was_busy(tmp_path, "s", "boot-") is None
    assert was_busy(tmp_path, "s", "boot-11") is None


def test_of_a_session_without_a_note_nothing_is_known(tmp_path: Path) -> None:
    assert not is_alive(tmp_path, "s")
    assert was_busy(tmp_path, "s", "boot-1") is None


@pytest.mark.parametrize("note", [b"", b"b", b"\xff\xfe", b"x" * 1000])
def test_a_torn_note_says_nothing(tmp_path: Path, note: bytes) -> None:
    (tmp_path / "s").write_bytes(note)
    assert was_busy(tmp_path, "s", "boot-1") is None


def test_a_process_that_ends_cleanly_leaves_nothing(tmp_path: Path) -> None:
    finish(start_ready("lease", str(tmp_path), "s", "boot-1", "busy"))
    assert list(tmp_path.iterdir()) == []


def test_asking_does_not_take_the_lease_away(tmp_path: Path) -> None:
    lease = Lease(tmp_path, "s", "boot-1")
    assert [is_alive(tmp_path, "s") for _ in range(3)] == [True] * 3
    lease.set_busy(False)
    assert was_busy(tmp_path, "s", "boot-1") is False
    lease.set_busy(True)
    assert was_busy(tmp_path, "s", "boot-1") is True
    lease.release()
    assert not is_alive(tmp_path, "s")


def test_a_lease_is_held_once(tmp_path: Path) -> None:
    lease = Lease(tmp_path, "s", "boot-1")
    with pytest.raises(LockedError):
        Lease(tmp_path, "s", "boot-1")
    assert is_alive(tmp_path, "s")
    lease.release()


def test_a_note_may_outlive_its_lease(tmp_path: Path) -> None:
    lease = Lease(tmp_path, "s", "boot-1")
    lease.set_busy(False)
    lease.release(keep_note=True)
    assert not is_alive(tmp_path, "s")
    assert was_busy(tmp_path, "s", "boot-1") is False


def test_forgetting_a_dead_session_leaves_nothing(tmp_path: Path) -> None:
    kill(start_ready("lease", str(tmp_path), "s", "boot-1", "busy"))
    forget(tmp_path, "s")
    assert list(tmp_path.iterdir()) == []
    forget(tmp_path, "s")


def test_a_process_that_was_told_to_end_was_idle(tmp_path: Path) -> None:
    kill(start_ready("lease", str(tmp_path), "s", "boot-1", "busy"))
    (tmp_path / "s.quit").touch()
    assert was_busy(tmp_path, "s", "boot-1") is True, "an empty note says nothing"
    (tmp_path / "s.quit").write_text("told")
    assert was_busy(tmp_path, "s", "boot-1") is False
    assert was_busy(tmp_path, "s", "boot-2") is None, "after a power cut nothing is known"
    forget(tmp_path, "s")
    assert list(tmp_path.iterdir()) == []


def test_a_lease_that_ends_takes_its_quit_note_with_it(tmp_path: Path) -> None:
    lease = Lease(tmp_path, "s", "boot-1")
    lease.quit_note.write_text("told")
    lease.release(keep_note=True)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    assert was_busy(tmp_path, "s", "boot-1") is True


def test_a_disk_that_takes_no_quit_note_is_no_error(tmp_path: Path) -> None:
    note = QuitNote(tmp_path / "no such folder" / "s.quit")
    note.forget_if_old()
    note.close()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
