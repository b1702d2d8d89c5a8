"""What a reader of a few lines can do, which knows the eight classic names of the manifest and nothing else."""

import hashlib
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from overair.publish.repository import Repository
from overair.publish.serve import Server
from support.published import model_file, sha256_of


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        data: bytes = answer.read()
    return data


def read_model(url: str, tier: str) -> tuple[str, bytes, dict[str, Any]]:
    """The whole simple reader."""
    manifest = json.loads(fetch(url))
    model = manifest["models"][tier]
    data = fetch(model["url"])
    assert len(data) == model["size_bytes"]
    assert hashlib.sha256(data).hexdigest() == model["sha256"]
    return manifest["current_version"], data, manifest


@pytest.mark.parametrize("path", ["manifest.json", "stable/manifest.json"])
def test_a_simple_reader_installs_what_is_published_and_goes_back(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "repo"
    folder.mkdir()
    old, new, next_one = (model_file(tmp_path / f"m{n}.gguf", n) for n in range(3))
    with Server(folder) as server:
        repo = Repository.init(folder, base_url=server.url, dev=True)
        url = f"{server.url}/{path}"
        repo.publish([old], tier="1b", version="1.0.0", probe=False)
        version, data, manifest = read_model(url, "1b")
        assert (version, data) == ("1.0.0", old.read_bytes())
        assert manifest["models"]["1b"]["min_app_version"] == "0.0.0"
        assert (manifest["rollback_version"], manifest["rollback_url_1b"]) == ("1.0.0", manifest["models"]["1b"]["url"])

        repo.publish([new], tier="1b", version="1.1.0", notes="Better.", min_app_version="3.0.0", probe=False)
        version, data, manifest = read_model(url, "1b")
        assert (version, data) == ("1.1.0", new.read_bytes())
        assert manifest["models"]["1b"]["release_notes"] == "Better."
        assert manifest["models"]["1b"]["min_app_version"] == "3.0.0"
        assert manifest["rollback_version"] == "1.0.0"
        assert hashlib.sha256(fetch(manifest["rollback_url_1b"])).hexdigest() == sha256_of(old)

        repo.publish([next_one], tier="1b", version="1.2.0", rollout=0.1, probe=False)
        assert read_model(url, "1b")[:2] == ("1.1.0", new.read_bytes())

        repo.rollback(tier="1b", reason="bad")
        assert read_model(url, "1b")[:2] == ("1.0.0", old.read_bytes())
