"""Repairing an installed model fetches what is damaged of it, and nothing else."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from overair.device.download import stage
from overair.device.repair import verify
from overair.formats.chunks import ChunkIndexWriter
from overair.model.release import Artifact, ChunkIndexRef, Release
from overair.store.store import Store
from overair.transport.http import HTTP
from support.misbehaving import MisbehavingServer

CHUNK = 64 * 1024
DATA = hashlib.shake_256(b"a model that rots").digest(1_000_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MisbehavingServer]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(DATA)
    writer = ChunkIndexWriter(CHUNK)
    writer.update(memoryview(DATA))
    (folder / "index").write_bytes(writer.finish())
    with MisbehavingServer(folder) as server:
        yield server


def _installed(store: Store, server: MisbehavingServer, *, with_index: bool = True) -> Path:
    index = (server.folder / "index").read_bytes()
    chunks = ChunkIndexRef(
        url=f"{server.url}/index",
        size_bytes=len(index),
        sha256=hashlib.sha256(index).hexdigest(),
        chunk_bytes=CHUNK,
    )
    artifact = Artifact(
        role="model",
        name="model.gguf",
        url=f"{server.url}/model.gguf",
        size_bytes=len(DATA),
        sha256=DIGEST,
        chunks=chunks if with_index else None,
    )
    store.create()
    came = store.layout.partial / DIGEST
    came.write_bytes(DATA)
    store.blobs.adopt(came, artifact)
    stage(store, Release(tier="1b", version="1.0.0", artifacts=(artifact,)))
    return store.layout.blob(DIGEST)


def _rot(blob: Path, *positions: int, length: int | None = None) -> None:
    data = bytearray(blob.read_bytes())
    for position in positions:
        data[position] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data[:length])


@pytest.mark.parametrize(
    ("positions", "length", "chunks"),
    [((0,), None, 1), ((70_000, 70_001, 999_999), None, 2), ((), 500_000, 9), (range(0, 1_000_000, 1000), None, 16)],
)
def test_only_the_bad_chunks_are_fetched(
    tmp_path: Path, server: MisbehavingServer, positions: tuple[int, ...], length: int | None, chunks: int
) -> None:
    store = Store(tmp_path / "store")
    blob = _installed(store, server)
    _rot(blob, *positions, length=length)
    with HTTP() as web:
        assert len(verify(store, web, repair=False).damaged) == 1
        found = verify(store, web, repair=True)
    assert len(found.repaired) == 1
    assert blob.read_bytes() == DATA
    assert found.bytes_fetched == server.bytes_served("/model.gguf")
    assert (chunks - 1) * CHUNK < found.bytes_fetched <= chunks * CHUNK
    assert list(store.layout.partial.glob(f"{DIGEST}*")) == []
    with HTTP() as web:
        assert verify(store, web, repair=True).sound == 1


def test_a_blob_that_is_gone_is_fetched_whole(tmp_path: Path, server: MisbehavingServer) -> None:
    store = Store(tmp_path / "store")
    blob = _installed(store, server)
    blob.unlink()
    with HTTP() as web:
        assert verify(store, web, repair=True).bytes_fetched == len(DATA)
    assert blob.read_bytes() == DATA


def test_without_an_index_all_is_fetched(tmp_path: Path, server: MisbehavingServer) -> None:
    store = Store(tmp_path / "store")
    blob = _installed(store, server, with_index=False)
    _rot(blob, 5)
    with HTTP() as web:
        assert verify(store, web, repair=True).bytes_fetched == len(DATA)
    assert blob.read_bytes() == DATA
