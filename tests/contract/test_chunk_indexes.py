"""What a publisher says of long blobs beside their digest: chunk indexes and mirrors."""

import hashlib
from datetime import timedelta
from pathlib import Path

import pytest

from overair.errors import IntegrityError, UsageError
from overair.formats.chunks import CHUNK_BYTES, ChunkIndexWriter, chunk_range, read_chunk_index
from overair.model.manifest import parse_manifest
from overair.model.release import Artifact
from overair.publish.repository import Repository
from support.published import BASE_URL, Clock, model_file, new_repository

LONG_FLOATS = (9 << 20) // 4
MIRROR = "https://mirror.example.com/m"


def published_artifact(folder: Path) -> Artifact:
    return parse_manifest((folder / "manifest.json").read_bytes()).models["1b"].artifacts[0]


def test_a_long_blob_has_an_index_whose_digests_are_those_of_its_chunks(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "repo")
    model = model_file(tmp_path / "model.gguf", floats=LONG_FLOATS)
    repo.publish(model, tier="1b", version="1.0.0", probe=False)
    artifact = published_artifact(repo.folder)
    assert artifact.chunks is not None
    assert artifact.chunks.chunk_bytes == CHUNK_BYTES
    index = (repo.folder / artifact.chunks.url.removeprefix(f"{BASE_URL}/")).read_bytes()
    assert hashlib.sha256(index).hexdigest() == artifact.chunks.sha256
    assert len(index) == artifact.chunks.size_bytes
    data = model.read_bytes()
    assert read_chunk_index(index, size_bytes=len(data), chunk_bytes=CHUNK_BYTES) == tuple(
        hashlib.sha256(data[i : i + CHUNK_BYTES]).digest() for i in range(0, len(data), CHUNK_BYTES)
    )
    assert [finding for finding in repo.check(deep=True) if finding.level == "error"] == []


def test_a_short_blob_has_none(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "repo")
    repo.publish(model_file(tmp_path / "model.gguf"), tier="1b", version="1.0.0", probe=False)
    assert published_artifact(repo.folder).chunks is None


def test_the_index_is_the_same_where_the_blob_was_here_before(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "repo")
    model = model_file(tmp_path / "model.gguf", floats=LONG_FLOATS)
    repo.publish(model, tier="1b", version="1.0.0", probe=False)
    first = published_artifact(repo.folder).chunks
    again = repo.publish(model, tier="1b", version="1.0.0", probe=False)
    assert again.already_published
    repo.publish(model, tier="3b", version="1.0.0", probe=False)
    assert parse_manifest((repo.folder / "manifest.json").read_bytes()).models["3b"].artifacts[0].chunks == first


def test_a_missing_index_is_found_by_a_check(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "repo")
    repo.publish(model_file(tmp_path / "model.gguf", floats=LONG_FLOATS), tier="1b", version="1.0.0", probe=False)
    chunks = published_artifact(repo.folder).chunks
    assert chunks is not None
    (repo.folder / chunks.url.removeprefix(f"{BASE_URL}/")).unlink()
    assert [f.path for f in repo.check() if f.level == "error"] == [chunks.url.removeprefix(f"{BASE_URL}/")]


@pytest.mark.parametrize("pieces", [1, 7, 64, 100])
def test_an_index_does_not_depend_on_how_the_bytes_came(pieces: int) -> None:
    data = bytes(range(256)) * 3
    writer = ChunkIndexWriter(chunk_bytes=100)
    for start in range(0, len(data), pieces):
        writer.update(memoryview(data[start : start + pieces]))
    digests = read_chunk_index(writer.finish(), size_bytes=len(data), chunk_bytes=100)
    assert len(digests) == 8
    start, end = chunk_range(7, len(data), 100)
    assert digests[7] == hashlib.sha256(data[start:end]).digest()


def test_an_index_of_another_length_is_refused() -> None:
    with pytest.raises(IntegrityError, match="32 bytes came, and 64 are needed for 2 chunks"):
        read_chunk_index(bytes(32), size_bytes=101, chunk_bytes=100)


def test_mirrors_and_the_interval_go_into_what_is_published_from_then_on(tmp_path: Path) -> None:
    clock = Clock()
    folder = tmp_path / "repo"
    repo = new_repository(folder, clock)
    repo.publish(model_file(tmp_path / "a.gguf"), tier="1b", version="1.0.0", probe=False)
    Repository.init(folder, base_url=BASE_URL, mirrors=[MIRROR + "/"], poll_seconds=3600, dev=True)
    clock.advance(timedelta(minutes=1))
    repo = Repository(folder, clock=clock)
    repo.publish(model_file(tmp_path / "b.gguf", seed=2), tier="1b", version="1.1.0", probe=False)
    artifact = published_artifact(folder)
    assert artifact.mirrors == (artifact.url.replace(BASE_URL, MIRROR),)
    assert parse_manifest((folder / "manifest.json").read_bytes()).poll_seconds == 3600
    Repository.init(folder, base_url=BASE_URL, dev=True)  # another channel, say: what is not named stays
    repo = Repository(folder, clock=clock)
    repo.publish(model_file(tmp_path / "c.gguf", seed=3), tier="1b", version="1.2.0", probe=False)
    assert published_artifact(folder).mirrors != ()


@pytest.mark.parametrize("poll", [0, 299, 604_801])
def test_an_interval_that_no_device_would_keep_is_refused(tmp_path: Path, poll: int) -> None:
    with pytest.raises(UsageError, match="do not check every"):
        Repository.init(tmp_path / "repo", base_url=BASE_URL, poll_seconds=poll, dev=True)
