"""The demo and the example programs, run as a reader runs them."""

import subprocess
import sys
from pathlib import Path

import pytest

from overair import Repository, Updater
from overair.publish.serve import Server
from support.command import run
from support.models import ROOT, smollm2
from support.tiny_model import break_weights, write_tiny_model

STORY = [
    *("1.0.0", "1.0.0", "1.0.0", "1.1.0", "1.0.0", "1.1.0"),
    *(None, "1.2.0", None, "1.1.0", None),  # refused by the publisher's probe, published all the same, refused here
    *(None, "1.0.0", "1.0.0"),
]


@pytest.mark.model
@pytest.mark.slow
def test_the_demo_tells_the_story_on_a_real_model_and_leaves_nothing_behind(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    ran = run("demo", "--json", "--model", smollm2(), env={"TMPDIR": str(tmp_path)})
    assert ran.code == 0, ran.err
    scenes = ran.data["scenes"]
    assert [scene.get("version") for scene in scenes] == STORY
    texts = [scene["text"] for scene in scenes if "text" in scene]
    first, meanwhile, second, reverted, last = texts
    assert first == meanwhile == last
    assert second == reverted != first
    assert "not published" in scenes[6]["reason"]
    assert "failed its probe" in scenes[8]["reason"]
    assert "quarantine" in scenes[10]["reason"]
    assert "output_norm" in scenes[10]["reason"]
    assert ran.data["seconds"] < 120
    assert list(tmp_path.iterdir()) == []


def test_the_demo_builds_a_tiny_model_where_no_real_one_is(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    ran = run("demo", "--keep", tmp_path / "kept", env={"OVERAIR_MODELS": str(tmp_path / "none")})
    assert ran.code == 0, ran.err
    assert "is not here, so this is a tiny model" in ran.out
    assert "the same answer as at first" in ran.out
    with Updater(tmp_path / "kept" / "device") as device:
        current = device.status().current
    assert current is not None
    assert current.version == "1.0.0"


def chat(folder: Path, url: str, question: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, ROOT / "examples" / "chat.py", url, "1b"],
        input=f"{question}\n",
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=120,
        check=False,
    )


def test_the_chat_example_updates_itself_and_goes_back(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    site = tmp_path / "site"
    site.mkdir()
    with Server(site) as server:
        repository = Repository.init(site, base_url=server.url, dev=True)
        url = f"{server.url}/manifest.json"
        first = write_tiny_model(tmp_path / "first.gguf", seed=1)
        repository.publish([first], tier="1b", version="1.0.0", probe=False)
        answer = chat(tmp_path, url, "Hello")
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.strip()

        repository.publish([break_weights(first, tmp_path / "bad.gguf")], tier="1b", version="1.1.0", probe=False)
        with Updater(tmp_path / "chat-models") as device:
            device.update()
        failed = chat(tmp_path, url, "Hello")
        assert failed.returncode == 1
        assert "start again to get the previous one" in failed.stderr
        again = chat(tmp_path, url, "Hello")
        assert again.returncode == 0, again.stderr
        assert again.stdout.strip()
        with Updater(tmp_path / "chat-models") as device:
            current = device.status().current
        assert current is not None
        assert current.version == "1.0.0"


def test_the_chat_example_is_short() -> None:
    assert len((ROOT / "examples" / "chat.py").read_text(encoding="utf-8").splitlines()) <= 40
