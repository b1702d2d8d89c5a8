"""Journeys without a network or with a damaged disk, through the installed command."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from overair.publish.serve import Server
from support.command import ask, run
from support.tiny_model import write_tiny_model

TIER = "1b"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


def publish(site: Path, version: str, model: Path) -> dict[str, Any]:
    return ask("repo", "publish", model, "--repo", site, "--tier", TIER, "--version", version)


def set_up(site: Path, store: Path, url: str) -> None:
    root = ask("repo", "init", "--repo", site, "--base-url", url, "--dev")["root"]
    ask("device", "init", "--store", store, "--url", url, "--root", root, "--tier", TIER)


def test_a_device_without_a_network_updates_from_a_stick(site: Path, tmp_path: Path) -> None:
    store, stick = tmp_path / "device", tmp_path / "stick"
    set_up(site, store, "http://127.0.0.1:9")
    model = write_tiny_model(tmp_path / "model.gguf")
    publish(site, "1.0.0", model)
    shutil.copytree(site, stick)
    assert run("device", "update", "--store", store).code == 24
    assert ask("device", "update", "--store", store, "--from", stick)["staged"]["version"] == "1.0.0"
    assert Path(ask("device", "swap", "--store", store)["path"]).read_bytes() == model.read_bytes()


@pytest.mark.parametrize("pattern", ["blobs/sha256/*/*", "targets/stable/*", "metadata/timestamp.json"])
def test_a_stick_that_somebody_changed_is_refused(site: Path, tmp_path: Path, pattern: str) -> None:
    store, stick = tmp_path / "device", tmp_path / "stick"
    set_up(site, store, "http://127.0.0.1:9")
    publish(site, "1.0.0", write_tiny_model(tmp_path / "model.gguf"))
    shutil.copytree(site, stick)
    for path in stick.glob(pattern):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    ran = run("device", "update", "--store", store, "--from", stick)
    assert ran.code in {20, 21}, ran.err
    assert ask("device", "status", "--store", store)["pending"] is None


def test_a_stick_without_a_repository_is_refused(site: Path, tmp_path: Path) -> None:
    store = tmp_path / "device"
    set_up(site, store, "http://127.0.0.1:9")
    (tmp_path / "empty").mkdir()
    assert run("device", "update", "--store", store, "--from", tmp_path / "empty").code == 24
    assert run("device", "update", "--store", store, "--from", tmp_path / "nowhere").code == 23


def test_a_file_that_rotted_is_found_and_fetched_again(site: Path, tmp_path: Path) -> None:
    store = tmp_path / "device"
    model = write_tiny_model(tmp_path / "model.gguf")
    with Server(site) as server:
        set_up(site, store, server.url)
        publish(site, "1.0.0", model)
        ask("device", "update", "--store", store)
        path = Path(ask("device", "swap", "--store", store)["path"])
        ask("device", "confirm", "--store", store)
        assert ask("device", "verify", "--store", store)["damaged"] == []
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.seek(100_000)
            file.write(b"\xff\x00\xff")
        assert len(ask("device", "verify", "--store", store, code=21)["damaged"]) == 1
        assert len(ask("device", "verify", "--store", store, "--repair")["repaired"]) == 1
        assert [file.name for file in (store / "partial").iterdir() if not file.name.startswith("lock")] == []
        assert path.read_bytes() == model.read_bytes()
        assert (store / "model-current.gguf").read_bytes() == model.read_bytes()
        assert ask("device", "verify", "--store", store)["sound"] == 1


def test_only_a_copy_that_engines_open_rotted(site: Path, tmp_path: Path) -> None:
    store = tmp_path / "device"
    model = write_tiny_model(tmp_path / "model.gguf")
    with Server(site) as server:
        set_up(site, store, server.url)
        publish(site, "1.0.0", model)
        ask("device", "update", "--store", store)
        path = Path(ask("device", "swap", "--store", store)["path"])
        path.unlink()
        path.write_bytes(b"\0" * model.stat().st_size)
        assert len(ask("device", "verify", "--store", store, code=21)["damaged"]) == 1
        assert len(ask("device", "verify", "--store", store, "--repair")["repaired"]) == 1
        assert path.read_bytes() == model.read_bytes()


def test_a_service_that_crashes_over_and_over_gets_the_previous_model_back(site: Path, tmp_path: Path) -> None:
    store = tmp_path / "device"
    with Server(site) as server:
        set_up(site, store, server.url)
        publish(site, "1.0.0", write_tiny_model(tmp_path / "first.gguf", seed=1))
        ask("device", "update", "--store", store)
        ask("device", "swap", "--store", store)
        ask("device", "confirm", "--store", store)
        publish(site, "1.1.0", write_tiny_model(tmp_path / "second.gguf", seed=2))
        ask("device", "update", "--store", store)
        versions = [ask("device", "swap", "--store", store)["version"] for _ in range(4)]
        assert versions == ["1.1.0", "1.1.0", "1.0.0", "1.0.0"]
        assert ask("device", "check", "--store", store)["reason"] == "quarantined"
        assert ask("device", "gc", "--store", store)["bytes_freed"] > 500_000
        assert len(list((store / "blobs").iterdir())) == 1


def test_a_state_whose_copies_are_both_damaged_is_rebuilt_and_says_what_was_lost(site: Path, tmp_path: Path) -> None:
    store = tmp_path / "device"
    with Server(site) as server:
        set_up(site, store, server.url)
        for seed, version in enumerate(["1.0.0", "1.1.0"]):
            publish(site, version, write_tiny_model(tmp_path / f"{version}.gguf", seed=seed))
            ask("device", "update", "--store", store)
            ask("device", "swap", "--store", store)
            ask("device", "confirm", "--store", store)
    for number in range(2):
        (store / f"state.{number}.json").write_bytes(b"\0" * 64)
    ran = run("device", "status", "--store", store)
    assert ran.code == 27
    assert "overair device recover" in ran.err
    recovered = ask("device", "recover", "--store", store)
    assert (recovered["current"], recovered["previous"]) == ("1.1.0", "1.0.0")
    assert recovered["lost"]
    assert all(Path(path).read_bytes() == b"\0" * 64 for path in recovered["kept"])
    path = Path(ask("device", "swap", "--store", store)["path"])
    assert path.read_bytes() == (tmp_path / "1.1.0.gguf").read_bytes()
    assert run("device", "recover", "--store", store).code == 2


def test_a_damaged_copy_of_the_state_is_mended_from_the_other(site: Path, tmp_path: Path) -> None:
    store = tmp_path / "device"
    with Server(site) as server:
        set_up(site, store, server.url)
        publish(site, "1.0.0", write_tiny_model(tmp_path / "model.gguf"))
        ask("device", "update", "--store", store)
    (store / "state.0.json").write_bytes(b"rotten")
    ran = run("device", "swap", "--store", store)
    assert ran.code == 0
    assert "mended" in ran.err
    assert (store / "state.0.json").read_bytes() == (store / "state.1.json").read_bytes()


def test_the_root_of_another_publisher_is_not_taken_by_a_device_that_trusts_one(site: Path, tmp_path: Path) -> None:
    store, other = tmp_path / "device", tmp_path / "other"
    set_up(site, store, "http://127.0.0.1:9")
    root = ask("repo", "init", "--repo", other, "--base-url", "http://127.0.0.1:9", "--dev")["root"]
    before = (store / "trust" / "root.json").read_bytes()
    ran = run("device", "init", "--store", store, "--url", "http://127.0.0.1:9", "--root", root, "--tier", TIER)
    assert ran.code == 20
    assert "another root" in ran.err
    assert (store / "trust" / "root.json").read_bytes() == before
