"""One writer at a time."""

import os
import threading
from pathlib import Path

import pytest

from overair.errors import LockedError
from overair.store.lock import exclusive, is_held
from support.devices import finish, kill, start_ready


def test_another_process_is_kept_out_and_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    child = start_ready("lock", str(path))
    try:
        with pytest.raises(LockedError) as caught, exclusive(path, timeout_s=0):
            pass
        assert caught.value.exit_code == 26
        assert str(tmp_path) in caught.value.message
        assert f"process {child.pid}" in caught.value.message
        assert is_held(path)
    finally:
        finish(child)
    with exclusive(path, timeout_s=0):
        assert is_held(path)
    assert not is_held(path)


def test_a_holder_that_was_killed_does_not_hold(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    kill(start_ready("lock", str(path)))
    assert not is_held(path)
    with exclusive(path, timeout_s=0):
        with pytest.raises(LockedError) as caught, exclusive(path, timeout_s=0):
            pass
        assert f"process {os.getpid()}" in caught.value.message, "the dead holder is still named"


def test_threads_keep_each_other_out(tmp_path: Path) -> None:
    inside, most, count = 0, 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most, count
        for _ in range(5):
            with exclusive(tmp_path / "lock"):
                with guard:
                    inside += 1
                    most = max(most, inside)
                count += 1
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (most, count) == (1, 20)


def test_a_waiting_process_gets_its_turn(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    child = start_ready("lock", str(path))
    releaser = threading.Timer(0.1, finish, [child])
    releaser.start()
    with exclusive(path, timeout_s=20):
        assert is_held(path)
    releaser.join(30)


def test_a_note_that_is_no_number_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive(path):
        (tmp_path / "lock.pid").write_text("rubbish")
        with pytest.raises(LockedError, match="another process"), exclusive(path, timeout_s=0):
            pass
