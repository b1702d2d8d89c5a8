"""The publisher's facade on a real folder."""

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest

from overair.errors import GGUFError, IntegrityError, UsageError
from overair.model.manifest import parse_manifest
from overair.publish.build import device_name
from overair.publish.repository import Repository
from overair.trust import dsse
from support.published import (
    BASE_URL,
    Clock,
    adapter_file,
    files_below,
    model_file,
    new_repository,
    projector_file,
    sha256_of,
    split_files,
)


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return new_repository(tmp_path / "repo")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_file(tmp_path / "model.gguf")


def test_init_writes_the_settings_once(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    repo = Repository.init(folder, base_url=BASE_URL + "/", dev=True)
    assert json.loads((folder / "repository.json").read_bytes()) == {
        "format": 1,
        "base_url": BASE_URL,
        "default_channel": "stable",
        "mirrors": [],
        "poll_seconds": None,
    }
    assert (repo.base_url, repo.default_channel, repo.folder) == (BASE_URL, "stable", folder)
    before = list(files_below(folder))
    Repository.init(folder, base_url=BASE_URL, dev=True)
    assert list(files_below(folder)) == before
    with pytest.raises(UsageError, match="already"):
        Repository.init(folder, base_url="https://other.example.com", dev=True)
    with pytest.raises(UsageError, match="already"):
        Repository.init(folder, base_url=BASE_URL, channels=["beta"], dev=True)
    assert list(files_below(folder)) == before


@pytest.mark.parametrize(
    ("url", "channel"),
    [
        ("ftp://cdn.example.com", "stable"),
        ("cdn.example.com/models", "stable"),
        ("https://user:secret@cdn.example.com", "stable"),
        ("https://cdn.example.com/?a=b", "stable"),
        ("https://cdn.example.com/a/../b", "stable"),
        ("", "stable"),
        (BASE_URL, "../stable"),
        (BASE_URL, "blobs"),
        (BASE_URL, "Stable"),
    ],
)
def test_init_refuses_what_is_not_a_url_or_a_channel(tmp_path: Path, url: str, channel: str) -> None:
    with pytest.raises(UsageError):
        Repository.init(tmp_path / "repo", base_url=url, channels=[channel], dev=True)
    assert not (tmp_path / "repo").exists()


def test_a_folder_without_a_repository_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"repository\.json is missing") as caught:
        Repository(tmp_path)
    assert "overair repo init" in caught.value.hint
    with pytest.raises(UsageError, match="not a folder"):
        Repository("s3://bucket/models")


def test_damaged_settings_and_settings_of_a_newer_program_are_refused(repo: Repository) -> None:
    settings = repo.folder / "repository.json"
    settings.write_bytes(settings.read_bytes().replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(UsageError, match="format 2"):
        Repository(repo.folder)
    settings.write_bytes(b"{")
    with pytest.raises(IntegrityError, match="damaged"):
        Repository(repo.folder)


def test_publish_says_what_it_did(repo: Repository, model: Path) -> None:
    progress: list[tuple[int, int]] = []
    done = repo.publish(
        model,
        tier="1b",
        version="1.0.0",
        notes="First.",
        min_app_version="3.0.0",
        on_progress=lambda d, t: progress.append((d, t)),
        probe=False,
    )
    digest, size = sha256_of(model), model.stat().st_size
    assert (done.tier, done.version, done.channel, done.sequence) == ("1b", "1.0.0", "stable", 1)
    assert (done.sha256, done.size_bytes, done.new_bytes) == (digest, size, size)
    assert done.url == f"{BASE_URL}/blobs/sha256/{digest[:2]}/{digest}"
    assert done.manifest_url == f"{BASE_URL}/manifest.json"
    assert (done.already_published, done.rollout_basis_points) == (False, None)
    assert done.effect == "Devices of tier 1b update to 1.0.0 at their next check."
    assert progress[-1] == (size, size)


def test_the_published_tree_has_the_layout_of_the_design(tmp_path: Path, model: Path) -> None:
    repo = Repository.init(tmp_path / "repo", base_url=BASE_URL, channels=["stable", "beta"], dev=True, clock=Clock())
    repo.publish([model], tier="1b", version="1.0.0", probe=False)
    beta = repo.publish([model], tier="1b", version="1.0.0", channel="beta", probe=False)
    tree = dict(files_below(repo.folder))
    digest = sha256_of(model)
    assert tree[f"blobs/sha256/{digest[:2]}/{digest}"] == model.read_bytes()
    assert tree["manifest.json"] == tree["stable/manifest.json"]
    assert beta.manifest_url == f"{BASE_URL}/beta/manifest.json"
    assert beta.new_bytes == 0
    hashed = {name: data for name, data in tree.items() if name.startswith("targets/")}
    assert set(hashed.values()) == {tree["manifest.json"], tree["beta/manifest.json"]}
    for name in ("manifest.json", "stable/manifest.json", "beta/manifest.json"):
        assert dsse.payload(tree[name.replace(".json", ".dsse.json")]) == tree[name]
    versions = [1, *(1, 2, 3), *(1, 2), *(1, 2), 1]  # root, snapshot, stable, beta, targets
    roles = ["root", *["snapshot"] * 3, *["stable"] * 2, *["beta"] * 2, "targets"]
    metadata = {f"metadata/{version}.{role}.json" for version, role in zip(versions, roles, strict=True)}
    assert {name for name in tree if name.startswith("metadata/")} == {*metadata, "metadata/timestamp.json"}
    # The settings, a blob, the plain copies and their envelopes, the hashed manifests, the metadata.
    assert len(tree) == 1 + 1 + 3 + 3 + 2 + 10
    release = parse_manifest(tree["manifest.json"]).release("1b")
    assert [(a.role, a.name, a.sha256) for a in release.artifacts] == [("model", "model.gguf", digest)]


def test_the_log_is_the_chain_of_manifests(repo: Repository, tmp_path: Path) -> None:
    for number in range(3):
        repo.publish(model_file(tmp_path / "m.gguf", number), tier="1b", version=f"1.{number}.0", probe=False)
    repo.rollback(tier="1b", reason="slow")
    log = repo.log()
    assert [entry.sequence for entry in log] == [4, 3, 2, 1]
    assert log[0].changes == ("1b: 1.2.0 -> 1.1.0", "1b: 1.2.0 withdrawn: slow")
    assert log[-1].changes == ("1b: 1.0.0",)
    assert [entry.sequence for entry in repo.log(limit=2)] == [4, 3]
    manifest = repo.manifest()
    assert manifest is not None
    assert manifest.predecessor is not None
    assert manifest.predecessor.sha256 == log[1].sha256


def test_the_same_publish_again_changes_no_file(repo: Repository, model: Path) -> None:
    first = repo.publish([model], tier="1b", version="1.0.0", probe=False)
    before = list(files_below(repo.folder))
    blob = repo.folder / first.url.removeprefix(BASE_URL + "/")
    status = blob.stat()
    again = repo.publish([model], tier="1b", version="1.0.0", probe=False)
    assert list(files_below(repo.folder)) == before
    assert (blob.stat().st_ino, blob.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)
    assert again.already_published
    assert (again.sequence, again.new_bytes, again.sha256) == (first.sequence, 0, first.sha256)


def test_a_refused_publish_leaves_no_file_behind(repo: Repository, model: Path, tmp_path: Path) -> None:
    repo.publish([model], tier="1b", version="1.0.0", probe=False)
    before = list(files_below(repo.folder))
    other = model_file(tmp_path / "other.gguf", 2)
    with pytest.raises(UsageError, match="other bytes"):
        repo.publish([other], tier="1b", version="1.0.0", probe=False)
    with pytest.raises(UsageError, match="older"):
        repo.publish([other], tier="1b", version="0.9.0", probe=False)
    with pytest.raises(UsageError, match="not a version"):
        repo.publish([other], tier="1b", version="2.1", probe=False)
    with pytest.raises(UsageError, match="not a version"):
        repo.publish([other], tier="1b", version="2.1.0", min_app_version="3", probe=False)
    with pytest.raises(UsageError, match="share"):
        repo.publish([other], tier="1b", version="2.1.0", rollout=float("nan"), probe=False)
    with pytest.raises(UsageError, match="tier"):
        repo.publish([other], tier="../1b", version="2.1.0", probe=False)
    with pytest.raises(UsageError, match="release notes"):
        repo.publish([other], tier="1b", version="2.1.0", notes="x" * 20_001, probe=False)
    assert list(files_below(repo.folder)) == before


@pytest.mark.parametrize("content", [b"", b"<html>login</html>", None], ids=["empty", "html", "truncated"])
def test_a_broken_gguf_is_refused_by_name(repo: Repository, model: Path, content: bytes | None) -> None:
    model.write_bytes(model.read_bytes()[:-1] if content is None else content)
    before = list(files_below(repo.folder))
    with pytest.raises(GGUFError, match=r"model\.gguf"):
        repo.publish([model], tier="1b", version="1.0.0", probe=False)
    assert list(files_below(repo.folder)) == before


def test_a_missing_file_a_folder_and_no_file_are_refused(repo: Repository, tmp_path: Path) -> None:
    for paths in ([tmp_path / "none.gguf"], [tmp_path]):
        with pytest.raises(UsageError, match="no such file"):
            repo.publish(paths, tier="1b", version="1.0.0", probe=False)
    with pytest.raises(UsageError, match="no model given"):
        repo.publish([], tier="1b", version="1.0.0", probe=False)


def test_a_file_that_changes_while_it_is_read_is_refused(repo: Repository, tmp_path: Path) -> None:
    path = model_file(tmp_path / "m.gguf", floats=1 << 20)
    before = list(files_below(repo.folder))

    def touch(_done: int, _total: int) -> None:
        os.utime(path, ns=(1, 1))

    with pytest.raises(IntegrityError, match="changed while"):
        repo.publish([path], tier="1b", version="1.0.0", on_progress=touch, probe=False)
    assert list(files_below(repo.folder)) == before


def test_a_damaged_blob_is_found_and_the_same_publish_mends_it(repo: Repository, model: Path) -> None:
    done = repo.publish([model], tier="1b", version="1.0.0", probe=False)
    blob = repo.folder / done.url.removeprefix(BASE_URL + "/")
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + b"\xff")
    assert repo.check() == []
    assert [(f.level, f.path) for f in repo.check(deep=True)] == [("error", blob.relative_to(repo.folder).as_posix())]
    assert repo.publish([model], tier="1b", version="1.0.0", probe=False).new_bytes == len(data)
    assert repo.check(deep=True) == []
    assert blob.read_bytes() == data


def test_a_blob_under_the_wrong_name_is_not_taken_for_the_right_one(repo: Repository, model: Path) -> None:
    wrong = repo.folder / "blobs" / "sha256" / "00" / ("0" * 64)
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes(model.read_bytes())
    assert repo.publish([model], tier="1b", version="1.0.0", probe=False).sha256 == sha256_of(model)
    assert [f.level for f in repo.check(deep=True)] == ["info"]


def test_a_bundle_names_the_base_of_its_adapters(repo: Repository, model: Path, tmp_path: Path) -> None:
    adapter = adapter_file(tmp_path / "support r16.gguf")
    projector = projector_file(tmp_path / "mmproj.gguf")
    done = repo.publish([model], tier="1b", version="1.0.0", adapters=[adapter], mmproj=projector, probe=False)
    manifest = repo.manifest()
    assert manifest is not None
    artifacts = manifest.release("1b").artifacts
    assert [(a.role, a.name, a.base_sha256) for a in artifacts] == [
        ("model", "model.gguf", None),
        ("adapter", "support-r16.gguf", done.sha256),
        ("projector", "mmproj.gguf", None),
    ]
    assert repo.check(deep=True) == []
    assert done.new_bytes == sum(path.stat().st_size for path in (model, adapter, projector))


def test_files_of_the_wrong_role_are_refused(repo: Repository, model: Path, tmp_path: Path) -> None:
    adapter = adapter_file(tmp_path / "adapter.gguf")
    projector = projector_file(tmp_path / "mmproj.gguf")
    with pytest.raises(UsageError, match="is not a model but an adapter"):
        repo.publish([adapter], tier="1b", version="1.0.0", probe=False)
    with pytest.raises(UsageError, match="is not an adapter but a model"):
        repo.publish([model], tier="1b", version="1.0.0", adapters=[model], probe=False)
    with pytest.raises(UsageError, match="is not a projector but a model"):
        repo.publish([model], tier="1b", version="1.0.0", mmproj=model, probe=False)
    with pytest.raises(UsageError, match="is not a model but a projector"):
        repo.publish([projector], tier="1b", version="1.0.0", probe=False)


def test_two_artifacts_of_one_name_are_refused(repo: Repository, model: Path, tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    adapter = adapter_file(tmp_path / "lora" / "MODEL.gguf")
    with pytest.raises(UsageError, match="same name"):
        repo.publish([model], tier="1b", version="1.0.0", adapters=[adapter], probe=False)


def test_split_files_are_published_first_file_first(repo: Repository, tmp_path: Path) -> None:
    parts = split_files(tmp_path)
    done = repo.publish([parts[2], parts[0], parts[1]], tier="1b", version="1.0.0", probe=False)
    assert done.sha256 == sha256_of(parts[0])
    manifest = repo.manifest()
    assert manifest is not None
    assert [(a.role, a.name) for a in manifest.release("1b").artifacts] == [("model", path.name) for path in parts]


def test_split_files_must_be_all_there_and_named_as_an_engine_looks_for_them(
    repo: Repository, model: Path, tmp_path: Path
) -> None:
    parts = split_files(tmp_path)
    for wrong in (parts[:2], parts[1:], [*parts, parts[0]], [*parts, model], [model, *parts], [model, model]):
        with pytest.raises(UsageError, match="split"):
            repo.publish(wrong, tier="1b", version="1.0.0", probe=False)
    renamed = parts[1].rename(tmp_path / "second.gguf")
    with pytest.raises(UsageError, match="must be named NAME-00002-of-00003"):
        repo.publish([parts[0], renamed, parts[2]], tier="1b", version="1.0.0", probe=False)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model-1b_q4.K.gguf", "model-1b_q4.K.gguf"),
        ("my model (1).gguf", "my-model--1.gguf"),
        (".hidden.gguf", "hidden.gguf"),
        ("模型.gguf", "model.gguf"),
        ("con.gguf", "_con.gguf"),
        ("model", "model"),
        ("model.", "model.gguf"),
        ("x" * 200 + "-00001-of-00003.gguf", "x" * 107 + "-00001-of-00003.gguf"),
    ],
)
def test_a_file_gets_a_name_that_every_platform_takes(name: str, expected: str) -> None:
    assert device_name(name) == expected


def test_a_rollout_becomes_the_release(repo: Repository, model: Path, tmp_path: Path) -> None:
    repo.publish([model], tier="1b", version="1.0.0", probe=False)
    new = model_file(tmp_path / "new.gguf", 2)
    done = repo.publish([new], tier="1b", version="1.1.0", rollout=0.1, probe=False)
    assert done.rollout_basis_points == 1000
    manifest = repo.manifest()
    assert manifest is not None
    candidate = manifest.candidate("1b")
    assert candidate is not None
    assert candidate[1].salt.startswith("r-2026-11-23-")
    assert manifest.current_version == "1.0.0"
    assert repo.set_rollout(tier="1b", share=0.5).version == "1.0.0"
    assert repo.set_rollout(tier="1b", share=1.0).version == "1.1.0"
    repo.publish([model_file(tmp_path / "new.gguf", 3)], tier="1b", version="1.2.0", rollout=0.1, probe=False)
    manifest = repo.manifest()
    assert manifest is not None
    later = manifest.candidate("1b")
    assert later is not None
    assert later[1].salt != candidate[1].salt


def test_a_repeated_rollback_writes_nothing(repo: Repository, tmp_path: Path) -> None:
    for number in range(3):
        repo.publish(model_file(tmp_path / "m.gguf", number), tier="1b", version=f"1.{number}.0", probe=False)
    first = repo.rollback(tier="1b", reason="bad")
    before = list(files_below(repo.folder))
    again = repo.rollback(tier="1b", reason="bad")
    assert (first.changed, first.version, again.changed, again.version) == (True, "1.1.0", False, "1.1.0")
    assert list(files_below(repo.folder)) == before
    for reason in ("", "  ", "x" * 2001):
        with pytest.raises(UsageError, match="reason"):
            repo.rollback(tier="1b", reason=reason)


def test_withdraw_takes_a_release_back(repo: Repository, model: Path, tmp_path: Path) -> None:
    repo.publish([model], tier="1b", version="1.0.0", probe=False)
    new = model_file(tmp_path / "new.gguf", 2)
    repo.publish([new], tier="1b", version="1.1.0", probe=False)
    change = repo.withdraw(tier="1b", version="1.1.0", reason="writes nonsense")
    assert (change.version, change.sequence) == ("1.0.0", 3)
    assert change.effect == "Devices of tier 1b that run 1.1.0 return to 1.0.0."
    with pytest.raises(UsageError, match="writes nonsense"):
        repo.publish([new], tier="1b", version="1.2.0", probe=False)


def test_fields_that_this_program_does_not_know_survive(repo: Repository, model: Path, tmp_path: Path) -> None:
    entry = {"url": "old.gguf", "size_bytes": 9, "sha256": "a" * 64, "min_app_version": "1.0.0", "x_badge": "new"}
    plain = {"current_version": "0.9.0", "models": {"1b": entry}, "x_survey": {"url": "https://example.com"}}
    (repo.folder / "manifest.json").write_text(json.dumps(plain))
    repo.publish([model], tier="1b", version="1.0.0", probe=False)
    repo.publish([model_file(tmp_path / "new.gguf", 2)], tier="1b", version="1.1.0", probe=False)
    after = json.loads((repo.folder / "manifest.json").read_bytes())
    assert after["x_survey"] == {"url": "https://example.com"}
    assert after["models"]["1b"]["x_badge"] == "new"
    assert after["current_version"] == "1.1.0"


def test_a_manifest_written_by_hand_is_the_beginning_of_the_log(repo: Repository, model: Path) -> None:
    digest = "a" * 64
    entry = {"url": "models/old.gguf", "size_bytes": 9, "sha256": digest, "min_app_version": "1.0.0"}
    plain = {"current_version": "0.9.0", "models": {"1b": entry, "3b": entry}, "rollback_version": "0.8.0"}
    (repo.folder / "manifest.json").write_text(json.dumps(plain))
    assert ("warning", "stable/manifest.json") in [(f.level, f.path) for f in repo.check()]
    with pytest.raises(UsageError, match="nothing to return to"):
        repo.rollback(tier="1b", reason="bad")
    assert not (repo.folder / "manifest.dsse.json").exists(), "nothing is signed for lying there"
    done = repo.publish([model], tier="1b", version="1.0.0", probe=False)
    assert done.sequence == 1
    manifest = repo.manifest()
    assert manifest is not None
    other, back = manifest.release("3b"), manifest.rollback("1b")
    assert (other.version, other.model.url) == ("0.9.0", f"{BASE_URL}/models/old.gguf")
    assert back is not None
    assert (back.version, back.model.url) == ("0.9.0", f"{BASE_URL}/models/old.gguf")
    assert [entry.current_version for entry in repo.log()] == ["1.0.0", "0.9.0"]
    assert ("error", "models/old.gguf") in [(f.level, f.path) for f in repo.check()]


def test_check_tells_errors_warnings_and_leftovers_apart(tmp_path: Path, model: Path) -> None:
    clock = Clock()
    repo = new_repository(tmp_path / "repo", clock)
    done = repo.publish([model], tier="1b", version="1.0.0", probe=False)
    assert repo.check(deep=True) == []
    (repo.folder / "blobs" / "incoming-0.tmp").write_bytes(b"half")
    (repo.folder / "manifest.json").unlink()
    blob = repo.folder / done.url.removeprefix(BASE_URL + "/")
    blob.write_bytes(b"short")
    clock.advance(timedelta(days=23))
    found = {(f.level, f.path) for f in repo.check()}
    assert found == {
        ("info", "blobs/incoming-0.tmp"),
        ("error", "manifest.json"),
        ("error", blob.relative_to(repo.folder).as_posix()),
        ("warning", "metadata/timestamp.json"),
        ("warning", "metadata/2.snapshot.json"),
    }
    blob.unlink()
    assert "missing, and a manifest names it" in [f.message for f in repo.check()]


def test_a_broken_chain_is_an_error_that_names_the_file(repo: Repository, tmp_path: Path) -> None:
    for number in range(3):
        repo.publish(model_file(tmp_path / "m.gguf", number), tier="1b", version=f"1.{number}.0", probe=False)
    oldest = repo.folder / "targets" / "stable" / f"{repo.log()[-1].sha256}.manifest.json"
    data = oldest.read_bytes()
    for damage in (data.replace(b"1.0.0", b"1.0.1"), None):
        oldest.unlink()
        if damage:
            oldest.write_bytes(damage)
        with pytest.raises(IntegrityError, match=oldest.name):
            repo.rollback(tier="1b", reason="bad")
        assert any(f.level == "error" and oldest.name in f.message for f in repo.check())
        oldest.write_bytes(data)
    assert repo.check() == []


def test_a_missing_plain_copy_comes_back_with_the_next_command(repo: Repository, model: Path) -> None:
    repo.publish([model], tier="1b", version="1.0.0", probe=False)
    copy = repo.folder / "manifest.json"
    data = copy.read_bytes()
    copy.unlink()
    assert repo.publish([model], tier="1b", version="1.0.0", probe=False).already_published
    assert copy.read_bytes() == data


def test_adapters_that_were_trained_on_another_model_are_refused(repo: Repository, model: Path, tmp_path: Path) -> None:
    adapter = adapter_file(tmp_path / "adapter.gguf")
    other = sha256_of(model_file(tmp_path / "other.gguf", seed=2))
    with pytest.raises(UsageError, match="trained on the model"):
        repo.publish(model, tier="1b", version="1.0.0", adapters=[adapter], adapter_base=other, probe=False)
    assert repo.manifest() is None
    repo.publish(
        model, tier="1b", version="1.0.0", adapters=[adapter], adapter_base=sha256_of(model).upper(), probe=False
    )
