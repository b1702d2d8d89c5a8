"""The background example and the commands around a job, run as a reader runs them."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from overair.device import background
from overair.model.job import JobState
from overair.publish.repository import Repository
from overair.publish.serve import Server
from support.job_scene import LIMIT_S, SLOW, STEADY, Scene, command, ran, until, until_bytes_flow
from support.models import ROOT
from support.tiny_model import write_tiny_model

EXAMPLE = ROOT / "examples" / "background.py"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Scene(tmp_path) as scene:
        yield scene


def example(folder: Path, *words: str, said: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *words],
        cwd=folder, input=said, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_background_example_works_as_written(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    site = tmp_path / "site"
    site.mkdir()
    with Server(site) as server:
        repository = Repository.init(site, base_url=server.url, dev=True)
        repository.publish([write_tiny_model(tmp_path / "model.gguf")], tier="1b", version="1.0.0", probe=False)
        started = example(tmp_path, "start", server.url, str(repository.root_path), "1b")
        assert re.fullmatch(r"process \d+ goes on without this one\n", started.stdout), started.stderr
        watched = example(tmp_path, "watch")
        assert watched.returncode == 0, watched.stderr
        assert watched.stdout.splitlines()[-1].startswith("staged 1.0.0 is staged")
        talked = example(tmp_path, "chat", said="Hello\n")
        assert talked.returncode == 0, talked.stderr
        first, answer = talked.stdout.splitlines()[:2]
        assert first == "this is 1.0.0"
        assert answer.strip()


def test_the_background_example_says_what_is_missing(tmp_path: Path) -> None:
    watched = example(tmp_path, "watch")
    assert watched.returncode == 1
    assert "is not set up" in watched.stderr


def test_the_background_example_is_short() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 60


def test_a_job_is_watched_paused_resumed_and_cancelled_by_commands(scene: Scene) -> None:
    scene.publish(fault=SLOW)
    store = ["--store", str(scene.store)]
    until_bytes_flow(scene.start())
    assert "downloading 1.0.0\n  fetched   " in ran(["device", "progress", *store])
    paused = ran(["device", "pause", *store])
    assert paused.startswith("paused 1.0.0\n")
    assert json.loads(ran(["device", "progress", *store, "--json"]))["state"] == "paused"
    assert not ran(["device", "resume", *store]).startswith("paused")
    assert ran(["device", "cancel", *store]).startswith("cancelled")
    assert json.loads(ran(["device", "progress", *store, "--json"]))["exit_code"] == 24
    with command("device", "pause", *store, "--json") as again:
        out, errors = again.communicate(timeout=LIMIT_S)
    assert again.returncode == 1
    assert json.loads(out)["error"] == "IllegalEventError"
    assert errors.startswith("error: the background job has ended: cancelled")


def test_progress_follows_a_job_to_its_end_and_ends_as_it_did(scene: Scene) -> None:
    scene.publish(fault=STEADY)
    scene.start()
    with command("device", "progress", "--store", str(scene.store), "--follow") as watcher:
        out, errors = watcher.communicate(timeout=LIMIT_S)
    assert watcher.returncode == 0, errors
    assert "1.0.0 is staged" in out
    scene.publish("1.1.0", seed=2, fault=SLOW)
    job = scene.start()
    until_bytes_flow(job)
    with command("device", "progress", "--store", str(scene.store), "--follow") as watcher:
        until(lambda: background.find(scene.store) is not None, "it watches")
        job.cancel()
        out, errors = watcher.communicate(timeout=LIMIT_S)
    assert watcher.returncode == 24, errors
    assert job.progress().state is JobState.CANCELLED


def test_commands_for_a_job_that_never_was_say_how_to_start_one(scene: Scene) -> None:
    scene.set_up().close()
    for name in ("progress", "pause", "resume", "cancel"):
        with command("device", name, "--store", str(scene.store)) as process:
            _, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 1, name
        assert "update --background" in errors


@pytest.mark.parametrize("name", ["progress", "pause", "resume", "cancel", "agent"])
def test_every_command_has_help_with_an_example(name: str) -> None:
    shown = ran(["device", name, "--help"])
    assert f"Example: overair device {name} --store dev" in shown
