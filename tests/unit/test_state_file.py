"""Two copies of the state, and what is believed of them."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from overair.errors import StateUnreadableError, StorageError
from overair.model.state import Quarantined, State
from overair.store.state_file import MAX_STATE_BYTES, Loaded, save_state
from overair.store.state_file import load_state as load
from support.states import AT, digest_of, slot


def state(generation: int) -> State:
    entry = Quarantined(release_id=digest_of("x"), tier="1b", version="0.1.0", reason="ü", at=AT)
    return State(generation=generation, current=slot(f"1.0.{generation}"), tries_left=3, quarantine=(entry,))


def load_state(copies: Sequence[Path]) -> State:
    return load(copies).state


@pytest.fixture
def copies(tmp_path: Path) -> tuple[Path, Path]:
    paths = (tmp_path / "state.0.json", tmp_path / "state.1.json")
    for generation in (1, 2):
        save_state(paths, state(generation), first=0)
    return paths


def test_a_new_device_has_an_empty_state(tmp_path: Path) -> None:
    assert load_state([tmp_path / "state.0.json", tmp_path / "state.1.json"]) == State()
    assert list(tmp_path.iterdir()) == [], "reading writes nothing"


def test_both_copies_hold_the_newest_state(copies: tuple[Path, Path]) -> None:
    assert copies[0].read_bytes() == copies[1].read_bytes()
    assert load(copies) == Loaded(state(2), ("", ""))


def test_a_write_that_ends_after_the_first_copy_holds_and_the_other_is_behind(copies: tuple[Path, Path]) -> None:
    before = copies[1].read_bytes()
    save_state(copies, state(3), first=0)
    copies[1].write_bytes(before)
    assert load(copies) == Loaded(state(3), ("", "state.1.json is behind"))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: data[:0],
    "torn": lambda data: data[: len(data) // 2],
    "torn in its header": lambda data: data[:10],
    "a byte short": lambda data: data[:-1],
    "a byte more": lambda data: data + b" ",
    "a flipped bit": lambda data: data.replace(b"1.0.", b"1.1.", 1),
    "zeros": lambda data: b"\x00" * len(data),
    "not text": lambda data: b"\xff" * len(data),
    "another file": lambda data: data[:0] + b'{"a": 1}\n',
    "a list": lambda data: data[:0] + b"[]\n[]",
    "too long": lambda data: data + b" " * MAX_STATE_BYTES,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", [0, 1])
def test_one_damaged_copy_leaves_the_other(copies: tuple[Path, Path], which: int, damage: str) -> None:
    copies[which].write_bytes(DAMAGES[damage](copies[which].read_bytes()))
    loaded = load(copies)
    assert loaded.state == state(2)
    assert loaded.damage[which].startswith(f"state.{which}.json: ")
    assert loaded.damage[1 - which] == ""


@pytest.mark.parametrize("damage", DAMAGES)
def test_two_damaged_copies_are_an_error_and_stay_as_they_are(copies: tuple[Path, Path], damage: str) -> None:
    for path in copies:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    before = {path.name: path.read_bytes() for path in copies[0].parent.iterdir()}
    with pytest.raises(StateUnreadableError) as caught:
        load_state(copies)
    assert caught.value.exit_code == 27
    assert "state.0.json" in caught.value.message
    assert "state.1.json" in caught.value.message
    assert caught.value.hint
    assert {path.name: path.read_bytes() for path in copies[0].parent.iterdir()} == before


def test_one_copy_missing_and_the_other_damaged_is_no_new_device(copies: tuple[Path, Path]) -> None:
    copies[0].unlink()
    copies[1].write_bytes(b"")
    with pytest.raises(StateUnreadableError):
        load_state(copies)


def test_one_copy_missing_leaves_the_other(copies: tuple[Path, Path]) -> None:
    copies[0].unlink()
    assert load(copies) == Loaded(state(2), ("state.0.json is missing", ""))


def test_the_next_write_replaces_the_damaged_copy(copies: tuple[Path, Path]) -> None:
    copies[1].write_bytes(b"damaged")
    save_state(copies, state(3), first=1)
    copies[0].unlink()
    assert load_state(copies) == state(3)


def test_a_write_that_was_cut_off_leaves_both_copies(copies: tuple[Path, Path]) -> None:
    half = copies[1].read_bytes()[:40]
    copies[1].with_name("state.1.json.tmp").write_bytes(half)
    assert load_state(copies) == state(2)
    save_state(copies, state(3), first=0)
    assert load_state(copies) == state(3)


def test_a_checksum_that_is_made_to_fit_does_not_hide_a_wrong_value(copies: tuple[Path, Path]) -> None:
    for path in copies:
        path.unlink()
    save_state(copies, State(generation=1, current=slot("1.0.0"), tries_left=99), first=0)
    with pytest.raises(StateUnreadableError, match="tries_left"):
        load_state(copies)


@pytest.mark.skipif(os.name == "nt", reason="a folder reads differently there")
def test_a_copy_that_the_disk_refuses_is_an_error_of_the_disk(copies: tuple[Path, Path]) -> None:
    copies[0].unlink()
    copies[0].mkdir()
    with pytest.raises(StorageError) as caught:
        load_state(copies)
    assert caught.value.exit_code == 23
    assert str(copies[0]) in caught.value.message
