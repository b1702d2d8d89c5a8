"""Blobs, the releases made of them, and what a collection of garbage leaves."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from overair.core import commands
from overair.core.retention import blobs_to_keep, releases_to_keep
from overair.device.download import stage
from overair.errors import IntegrityError, NoSpaceError, StorageError
from overair.host import clock
from overair.model.release import Release
from overair.store.durable import link_or_copy, storage_errors
from overair.store.history import append, read
from overair.store.leases import Lease
from overair.store.store import Store
from support.devices import bring, new_store, staged
from support.disks import fill, small_disk
from support.states import AT


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path / "store")


@pytest.fixture
def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has no hard links, as exFAT."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)


def inodes(*paths: Path) -> set[int]:
    return {path.stat().st_ino for path in paths}


def begin(store: Store, session_id: str, *, external: bool = True) -> None:
    with store.lock():
        store.apply(commands.Begin(at=AT, session_id=session_id, external=external))


def confirm(store: Store, session_id: str) -> None:
    with store.lock():
        store.apply(commands.Confirm(at=AT, session_id=session_id))


def collect(store: Store) -> int:
    with store.download_lock(), store.lock():
        return store.collect_garbage()


def is_whole(store: Store, release: Release) -> bool:
    """Whether the blobs are there and the files that an engine opens have their bytes."""
    folder = store.layout.release(release.id)
    return all(
        store.blobs.verify(a) is None
        and (folder / a.name).is_file()
        and (folder / a.name).read_bytes() == store.layout.blob(a.sha256).read_bytes()
        for a in release.artifacts
    )


# --- blobs ----------------------------------------------------------------------------------------------------------


def test_a_blob_is_read_only_and_under_its_digest(store: Store) -> None:
    (artifact,) = bring(store, "1.0.0").artifacts
    blob = store.layout.blob(artifact.sha256)
    assert blob.name == artifact.sha256
    assert blob.stat().st_mode & 0o222 == 0
    assert store.blobs.has(artifact)
    assert store.blobs.verify(artifact) is None
    assert list(store.layout.partial.iterdir()) == []


def test_a_file_of_another_length_is_not_taken_in(store: Store) -> None:
    (artifact,) = bring(store, "1.0.0").artifacts
    other = store.layout.partial / "x"
    other.write_bytes(b"x")
    with pytest.raises(IntegrityError, match="has 1 bytes") as caught:
        store.blobs.adopt(other, artifact)
    assert caught.value.exit_code == 21
    assert store.blobs.verify(artifact) is None


def test_damage_and_absence_are_told_apart(store: Store) -> None:
    (artifact,) = bring(store, "1.0.0").artifacts
    blob = store.layout.blob(artifact.sha256)
    blob.chmod(0o644)
    blob.write_bytes(b"y" * artifact.size_bytes)
    assert str(store.blobs.verify(artifact)).startswith("damaged")
    blob.write_bytes(b"y")
    assert not store.blobs.has(artifact)
    blob.unlink()
    assert store.blobs.verify(artifact) == "missing"
    assert not store.blobs.has(artifact)


def test_no_path_is_built_from_anything_but_a_digest(store: Store) -> None:
    for text in ("../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n", ""):
        with pytest.raises(IntegrityError):
            store.layout.blob(text)
        with pytest.raises(IntegrityError):
            store.layout.release(text)


# --- releases -------------------------------------------------------------------------------------------------------


def test_a_release_is_made_of_links(store: Store) -> None:
    release = bring(store, "1.0.0", adapter="lora")
    bundle = store.blobs.install(release)
    assert (bundle.model.name, bundle.adapters[0].name) == ("model.gguf", "adapter.gguf")
    for artifact, path in zip(release.artifacts, (bundle.model, *bundle.adapters), strict=True):
        assert len(inodes(path, store.layout.blob(artifact.sha256))) == 1
    assert store.blobs.install(release) == bundle


@pytest.mark.usefixtures("without_links")
def test_a_release_is_made_of_copies_where_there_are_no_links(store: Store) -> None:
    release = bring(store, "1.0.0", adapter="lora")
    bundle = store.blobs.install(release)
    assert is_whole(store, release)
    assert len(inodes(bundle.model, store.layout.blob(release.model.sha256))) == 2
    assert bundle.model.stat().st_mode & 0o222 == 0


def test_an_installation_that_was_cut_off_is_done_again(store: Store) -> None:
    release = bring(store, "1.0.0", adapter="lora")
    folder = store.layout.release(release.id)
    half = folder.with_name(folder.name + ".tmp")
    half.mkdir()
    (half / "model.gguf").write_text("half")
    folder.mkdir()
    (folder / "adapter.gguf").write_text("torn")
    store.blobs.install(release)
    assert is_whole(store, release)
    assert [path.name for path in store.layout.releases.iterdir()] == [release.id]


def test_a_copy_never_writes_into_a_file_that_is_there(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("new")
    target.write_text("in use by an engine")
    with pytest.raises(StorageError):
        link_or_copy(source, target)
    assert target.read_text() == "in use by an engine"


# --- links for other programs ---------------------------------------------------------------------------------------


def links(store: Store) -> dict[str, str]:
    return {
        name: store.layout.link(name).read_text().splitlines()[0]
        for name in ("current", "previous", "pending")
        if store.layout.link(name).exists()
    }


def tell_story(store: Store) -> list[dict[str, str]]:
    chapters = []
    staged(store, "1.0.0")
    chapters.append(links(store))
    begin(store, "a")
    confirm(store, "a")
    staged(store, "2.0.0")
    chapters.append(links(store))
    begin(store, "b")
    chapters.append(links(store))
    with store.lock():
        store.apply(commands.RollBack(at=AT, reason="r"))
    chapters.append(links(store))
    return chapters


STORY = [
    {"pending": "model 1.0.0"},
    {"current": "model 1.0.0", "pending": "model 2.0.0"},
    {"current": "model 2.0.0", "previous": "model 1.0.0"},
    {"current": "model 1.0.0"},
]


def test_links_follow_the_slots(store: Store) -> None:
    assert tell_story(store) == STORY


@pytest.mark.usefixtures("without_links")
def test_copies_follow_the_slots_where_there_are_no_links(store: Store) -> None:
    assert tell_story(store) == STORY


@pytest.mark.usefixtures("without_links")
def test_a_copy_is_not_made_again_at_every_write(store: Store) -> None:
    tell_story(store)
    before = inodes(store.layout.link("current"))
    begin(store, "c")
    assert inodes(store.layout.link("current")) == before


def test_a_stale_link_is_put_right_at_the_next_write(store: Store) -> None:
    tell_story(store)
    store.layout.link("current").unlink()
    store.layout.link("current").write_text("stale")
    store.layout.link("previous").write_text("stale")
    store.refresh_links()
    assert links(store) == STORY[-1]


# --- garbage --------------------------------------------------------------------------------------------------------


def test_what_slots_and_sessions_name_is_kept_and_the_rest_goes(store: Store) -> None:
    one = staged(store, "1.0.0", adapter="lora")
    begin(store, "a")
    confirm(store, "a")
    two = staged(store, "2.0.0")
    begin(store, "b")
    confirm(store, "b")
    three = staged(store, "3.0.0")
    rubbish = bring(store, "0.1.0")
    store.blobs.install(rubbish)
    (store.layout.releases / "half.tmp").mkdir()
    assert collect(store) > 0
    assert [is_whole(store, release) for release in (one, two, three)] == [True] * 3
    assert not store.layout.blob(rubbish.id).exists()
    assert len(list(store.layout.releases.iterdir())) == 3
    assert collect(store) == 0


def test_a_session_keeps_the_files_of_a_release_in_no_slot(store: Store) -> None:
    running = staged(store, "1.0.0", adapter="lora")
    begin(store, "old")
    for version in ("2.0.0", "3.0.0", "4.0.0"):
        staged(store, version)
        begin(store, version)
        confirm(store, version)
    assert running.id not in {slot.id for slot in store.read().slots()}
    collect(store)
    folder = store.layout.release(running.id)
    assert (folder / "model.gguf").read_text().startswith("model 1.0.0")
    assert (folder / "adapter.gguf").read_text() == "lora"
    with store.lock():
        store.apply(commands.End(at=AT, session_id="old"))
    collect(store)
    assert not folder.exists()


def test_a_living_session_that_is_not_written_down_yet_keeps_its_lease(store: Store) -> None:
    lease = Lease(store.layout.leases, "starting", clock.boot_id())
    (store.layout.leases / "dead").write_bytes(b"b")
    collect(store)
    assert (store.layout.leases / "starting").exists()
    assert not (store.layout.leases / "dead").exists()
    lease.release()


def test_retention_names_leased_releases_too(store: Store) -> None:
    one = staged(store, "1.0.0")
    state = store.read()
    assert releases_to_keep(state, ["f" * 64]) == {one.id, "f" * 64}
    assert blobs_to_keep(state) == {one.model.sha256}


# --- the disk refuses -----------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as point:
        yield point


def test_a_full_disk_stages_nothing_and_keeps_the_state(disk: Path) -> None:
    store = new_store(disk)
    staged(store, "1.0.0")
    begin(store, "a")
    before = store.read()
    release = bring(store, "2.0.0")
    fill(disk)
    with pytest.raises(NoSpaceError) as caught:
        stage(store, release)
    assert caught.value.exit_code == 23
    assert "device gc" in caught.value.hint
    assert store.read() == before


def test_the_kind_of_refusal_is_told(tmp_path: Path) -> None:
    for number, kind in ((28, NoSpaceError), (30, StorageError), (5, StorageError)):
        with pytest.raises(StorageError) as caught, storage_errors("write", tmp_path):
            raise OSError(number, os.strerror(number))
        assert type(caught.value) is kind
        assert caught.value.message == f"cannot write {tmp_path}: {os.strerror(number)}"


# --- history --------------------------------------------------------------------------------------------------------


def test_a_torn_line_takes_no_other_along(store: Store) -> None:
    staged(store, "1.0.0")
    events = read(store.layout.history)
    assert [event.version for event in events] == ["1.0.0"]
    with store.layout.history.open("ab") as file:
        file.write(b'{"what": "sta\xff')
    append(store.layout.history, events)
    assert read(store.layout.history) == events * 2


def test_history_is_bounded(store: Store) -> None:
    staged(store, "1.0.0")
    (event,) = read(store.layout.history)
    for _ in range(50):
        append(store.layout.history, [event], max_bytes=1000)
    sizes = [path.stat().st_size for path in store.layout.root.glob("history*")]
    assert len(sizes) == 2
    assert max(sizes) <= 1000
    assert 1 < len(read(store.layout.history)) < 50
