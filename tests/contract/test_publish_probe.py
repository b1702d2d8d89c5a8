"""A publisher's machine probes a release as devices will, and refuses one that fails."""

import json
from pathlib import Path

import pytest

from overair.errors import ProbeError, UsageError
from overair.model.manifest import parse_manifest
from overair.model.probe import Expectation, ProbePolicy
from overair.publish.probing import parse_requirement, read_policy
from overair.publish.repository import Repository
from support.bad_models import zero_weights
from support.published import files_below, new_repository
from support.tiny_model import write_tiny_model

pytest.importorskip("xllamacpp")


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return new_repository(tmp_path / "repo")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "good.gguf", seed=1)


@pytest.fixture
def bad(tmp_path: Path, good: Path) -> Path:
    return zero_weights(good, tmp_path / "bad.gguf")


def test_a_release_that_fails_changes_nothing(repo: Repository, bad: Path) -> None:
    before = list(files_below(repo.folder))
    with pytest.raises(ProbeError, match=r"1\.0\.0 failed its probe with xllamacpp") as caught:
        repo.publish(bad, tier="1b", version="1.0.0")
    assert "--no-probe" in caught.value.hint
    assert list(files_below(repo.folder)) == before


def test_a_good_release_says_what_was_measured_and_the_same_call_does_not_probe_again(
    repo: Repository, good: Path
) -> None:
    done = repo.publish(good, tier="1b", version="1.0.0")
    assert done.probe is not None
    assert done.probe.passed
    again = repo.publish(good, tier="1b", version="1.0.0")
    assert (again.already_published, again.probe, again.not_probed) == (True, None, "published before")


def test_whoever_knows_better_publishes_all_the_same(repo: Repository, bad: Path) -> None:
    done = repo.publish(bad, tier="1b", version="1.0.0", probe=False)
    assert (done.probe, done.not_probed) == (None, "told not to")
    assert repo.manifest() is not None


def test_without_an_engine_the_result_says_so(repo: Repository, bad: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overair.engines.base.installed", tuple)
    done = repo.publish(bad, tier="1b", version="1.0.0")
    assert "no engine is installed" in done.not_probed


def test_what_is_expected_is_asked_here_and_goes_into_the_manifest(repo: Repository, good: Path) -> None:
    policy = ProbePolicy(expect=(Expectation(prompt="What is 2+2?", one_of=("4",)),))
    with pytest.raises(ProbeError):
        repo.publish(good, tier="1b", version="1.0.0", policy=policy)
    repo.publish(good, tier="1b", version="1.0.0", policy=policy, probe=False, requires=["llama.cpp >= 6000, <99999"])
    entry = parse_manifest((repo.folder / "manifest.json").read_bytes()).models["1b"]
    assert entry.probe == policy
    assert entry.requires.engines == {"llama.cpp": ">=6000,<99999"}
    assert entry.requires.ram_bytes is not None
    assert entry.requires.ram_bytes > good.stat().st_size


def test_an_expectation_that_nobody_can_check_is_refused(repo: Repository, good: Path) -> None:
    policy = ProbePolicy(expect=(Expectation(prompt="a", matches="("),))
    with pytest.raises(UsageError, match="cannot be checked"):
        repo.publish(good, tier="1b", version="1.0.0", policy=policy)


@pytest.mark.parametrize("text", ["llama.cpp", ">=6000", "llama.cpp>=", "llama.cpp>=new", "a b>=1", ""])
def test_what_is_no_requirement_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a requirement"):
        parse_requirement(text)


def test_a_policy_is_read_from_a_file_and_a_mistake_is_named(tmp_path: Path) -> None:
    path = tmp_path / "probe.json"
    path.write_text(json.dumps({"prompts": ["a"], "min_tokens_per_second": 2}))
    assert read_policy(path) == ProbePolicy(prompts=("a",), min_tokens_per_second=2.0)
    path.write_text(json.dumps({"prompts": "a"}))
    with pytest.raises(UsageError, match=r"\$\.prompts"):
        read_policy(path)
    path.write_text(json.dumps({"prompt": ["a"], "expect": [{"prompt": "a", "match": "b"}]}))
    with pytest.raises(UsageError, match=r"knows: expect\[0\]\.match, prompt"):
        read_policy(path)
