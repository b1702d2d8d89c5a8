"""Whole updates through `Updater`: links that expire, indexes that lie, and two processes that want the same."""

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overair.device.updater import Updater
from overair.errors import HTTPStatusError, IntegrityError, NetworkError
from overair.model.conditions import Conditions
from overair.model.report import Staged
from support.published import model_file
from support.trouble import Ask, Trouble, TroubleServer
from support.trouble_device import CHUNK, chunk_index

MODEL, INDEX, MANIFEST = "/model.gguf", "/model.chunks", "/stable/manifest.json"
ANY = Conditions(unmetered=False, min_free_bytes=0)

CHILD = """
import logging, sys
from overair.device.updater import Updater
from overair.model.conditions import Conditions
logging.basicConfig(level=logging.ERROR)
with Updater(sys.argv[1]) as updater:
    print("ready", flush=True)
    result = updater.update(conditions=Conditions(unmetered=False, min_free_bytes=0))
print(type(result).__name__, getattr(result, "bytes_fetched", 0))
"""


class Publisher:
    """A server with a manifest that nobody signed, which names a model of 256 KiB, its chunk index and its mirrors."""

    def __init__(self, server: TroubleServer, model: bytes) -> None:
        self.server = server
        self.model = model
        self.index = chunk_index(model)
        server.files |= {MODEL: model, INDEX: self.index}
        self.publish()

    def publish(self, *, signature: str = "", mirrors: tuple[str, ...] = (), index: str = INDEX) -> None:
        """Name these addresses from now on."""
        sha256 = hashlib.sha256(self.model).hexdigest()
        place = {"url": f"{self.server.url}{MODEL}{signature}", "size_bytes": len(self.model), "sha256": sha256}
        chunks: dict[str, Any] = {
            "url": f"{self.server.url}{index}",
            "size_bytes": len(self.index),
            "sha256": hashlib.sha256(self.index).hexdigest(),
            "chunk_bytes": CHUNK,
        }
        artifact = place | {"role": "model", "name": "model.gguf", "chunks": chunks, "mirrors": mirrors}
        entry = place | {"version": "1.0.0", "artifacts": [artifact]}
        document = {
            "schema": 1,
            "channel": "stable",
            "sequence": 1,
            "current_version": "1.0.0",
            "models": {"1b": entry},
        }
        self.server.files[MANIFEST] = json.dumps(document).encode()


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[Publisher]:
    with TroubleServer({}) as server:
        yield Publisher(server, model_file(tmp_path / "model.gguf", floats=64 * 1024).read_bytes())


@pytest.fixture
def updater(publisher: Publisher, tmp_path: Path) -> Iterator[Updater]:
    with Updater(tmp_path / "store", url=publisher.server.url, tier="1b", insecure=True) as updater:
        yield updater


def _installed(updater: Updater) -> bytes:
    with updater.session() as session:
        return session.bundle.model.read_bytes()


def test_a_whole_update_comes_in_chunks_and_no_byte_twice(publisher: Publisher, updater: Updater) -> None:
    staged = updater.update(conditions=ANY)
    assert isinstance(staged, Staged)
    assert publisher.server.bytes_sent(MODEL) == len(publisher.model)
    assert len(publisher.server.asks(INDEX)) == 1
    assert _installed(updater) == publisher.model


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_link_that_expires_after_half_of_the_bytes_is_replaced_by_that_of_a_new_manifest(
    publisher: Publisher, updater: Updater, status: int
) -> None:
    server, half = publisher.server, len(publisher.model) // 2

    def expiring(ask: Ask) -> Trouble | None:
        if "sig=1" not in ask.target:
            return None
        if server.bytes_sent(MODEL) < half:
            return Trouble(cut_at=half + 1)
        publisher.publish(signature="?sig=2")
        return Trouble(status=status)

    server.trouble[MODEL] = expiring
    publisher.publish(signature="?sig=1")
    assert isinstance(updater.update(conditions=ANY), Staged)
    assert server.bytes_sent(MODEL) <= 1.1 * len(publisher.model)
    assert len(server.asks(MANIFEST)) == 2
    assert _installed(updater) == publisher.model


def test_a_link_that_is_refused_for_good_ends_and_the_manifest_is_not_asked_for_ever(
    publisher: Publisher, updater: Updater
) -> None:
    publisher.server.trouble[MODEL] = Trouble(status=403)
    with pytest.raises(HTTPStatusError) as caught:
        updater.update(conditions=ANY)
    assert caught.value.status == 403
    assert len(publisher.server.asks(MANIFEST)) <= 3


def test_links_that_never_work_though_each_manifest_has_a_new_one_end(publisher: Publisher, updater: Updater) -> None:
    server = publisher.server
    server.trouble[MODEL] = Trouble(status=403, then=lambda: publisher.publish(signature=f"?sig={len(server.asked)}"))
    with pytest.raises(HTTPStatusError):
        updater.update(conditions=ANY)
    assert len(server.asks(MANIFEST)) <= 3


def test_a_mirror_of_the_manifest_takes_over_from_a_dead_place(publisher: Publisher, updater: Updater) -> None:
    with TroubleServer({MODEL: publisher.model}) as mirror:
        publisher.publish(mirrors=(mirror.url + MODEL,))
        publisher.server.trouble[MODEL] = lambda ask: Trouble(cut_at=max(ask.start, 70_000))
        assert isinstance(updater.update(conditions=ANY), Staged)
        sent = mirror.bytes_sent(MODEL) + publisher.server.bytes_sent(MODEL)
    assert sent <= 1.1 * len(publisher.model)
    assert _installed(updater) == publisher.model


@pytest.mark.parametrize("lie", [b"", b"\0" * 31, b"\0" * 65 * 32])
def test_an_index_that_is_another_than_the_signed_one_is_refused_before_a_byte_of_the_model(
    publisher: Publisher, updater: Updater, lie: bytes
) -> None:
    publisher.server.files[INDEX] = lie
    with pytest.raises((IntegrityError, NetworkError)):
        updater.update(conditions=ANY)
    assert publisher.server.asks(MODEL) == []


def test_an_update_that_was_stopped_goes_on_where_it_was(publisher: Publisher, updater: Updater) -> None:
    server, cancel = publisher.server, threading.Event()
    server.trouble[MODEL] = Trouble(bytes_per_second=400_000)
    threading.Timer(0.4, cancel.set).start()
    with pytest.raises(NetworkError, match="stopped"):
        updater.update(conditions=ANY, cancel=cancel)
    before = server.bytes_sent(MODEL)
    assert 0 < before < len(publisher.model)
    server.trouble.clear()
    assert isinstance(updater.update(conditions=ANY), Staged)
    assert server.bytes_sent(MODEL) <= len(publisher.model) + 8 * CHUNK


def test_two_processes_that_want_the_same_update_fetch_it_once_and_both_have_it(
    publisher: Publisher, updater: Updater
) -> None:
    server = publisher.server
    server.trouble[MODEL] = Trouble(bytes_per_second=200_000)
    children = [_start(updater.path) for _ in range(2)]
    ended = [child.communicate(timeout=30) for child in children]
    assert [child.returncode for child in children] == [0, 0], ended
    kinds = sorted(output.split()[0] for output, _ in ended)
    assert kinds in (["Staged", "Staged"], ["Staged", "UpToDate"])
    assert server.bytes_sent(MODEL) <= 1.1 * len(publisher.model)
    assert _installed(updater) == publisher.model


def test_a_process_that_waits_takes_over_when_the_one_that_downloads_is_killed(
    publisher: Publisher, updater: Updater
) -> None:
    server = publisher.server
    server.trouble[MODEL] = Trouble(bytes_per_second=100_000)
    first = _start(updater.path)
    _poll(lambda: server.bytes_sent(MODEL) > 50_000)
    second = _start(updater.path)
    _poll(lambda: len(server.asks(MANIFEST)) >= 2)
    first.kill()
    first.communicate(timeout=30)
    server.trouble.clear()
    output, errors = second.communicate(timeout=30)
    assert second.returncode == 0, errors
    assert output.split()[0] == "Staged"
    assert server.bytes_sent(MODEL) <= 1.1 * len(publisher.model) + 8 * CHUNK
    assert _installed(updater) == publisher.model


def _start(store: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(store)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def _poll(condition: Any) -> None:
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
