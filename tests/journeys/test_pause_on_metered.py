"""A whole download on a network that turns metered on the way, as a real NetworkManager's interface says."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overair.device.download import download, plan
from overair.errors import CancelledError, DeferredError
from overair.model.conditions import Conditions
from overair.model.progress import Activity, Progress
from overair.model.release import Artifact, ChunkIndexRef, Release
from overair.store.store import Store
from overair.transport.http import HTTP
from support.bus import NetworkManager, network_manager
from support.trouble import Trouble, TroubleServer
from support.trouble_device import CHUNK, DATA, PATH, chunk_index

# Nobody answers to this name: the server below is asked as a proxy, so that the way does not end on this machine.
ORIGIN = "http://models.example"
INDEX = chunk_index(DATA)
METERED, FREE = 1, 2
RELEASE = Release(
    tier="1b",
    version="1.0.0",
    artifacts=(
        Artifact(
            role="model",
            name="model.gguf",
            url=ORIGIN + PATH,
            size_bytes=len(DATA),
            sha256=hashlib.sha256(DATA).hexdigest(),
            chunks=ChunkIndexRef(
                url=f"{ORIGIN}/index",
                size_bytes=len(INDEX),
                sha256=hashlib.sha256(INDEX).hexdigest(),
                chunk_bytes=CHUNK,
            ),
        ),
    ),
)


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[NetworkManager]:
    with network_manager(metered=FREE) as manager:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", manager.address)
        yield manager


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[TroubleServer]:
    with TroubleServer({PATH: DATA, "/index": INDEX}) as server:
        monkeypatch.setenv("http_proxy", server.url)
        server.trouble[PATH] = Trouble(bytes_per_second=60_000)
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.create()
    return store


def until(holds: Callable[[], bool], seconds: float = 20.0) -> float:
    """Wait; returns how long it took."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            raise AssertionError("it did not happen in time")
        threading.Event().wait(0.02)
    return time.monotonic() - began


class Update(threading.Thread):
    """A download in a thread."""

    def __init__(self, store: Store, conditions: Conditions) -> None:
        super().__init__(daemon=True)
        self.seen: list[Progress] = []
        self.cancel = threading.Event()
        self.error: BaseException | None = None
        self._store, self._conditions = store, conditions
        self.start()

    def run(self) -> None:
        try:
            with HTTP() as web:
                download(
                    self._store,
                    RELEASE,
                    web=web,
                    conditions=self._conditions,
                    on_progress=self.seen.append,
                    cancel=self.cancel,
                )
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    @property
    def now(self) -> Progress | None:
        return self.seen[-1] if self.seen else None

    def is_waiting(self) -> bool:
        return self.now is not None and self.now.activity is Activity.WAITING


FREE_ONLY = Conditions(min_free_bytes=0)


def test_it_pauses_within_two_seconds_keeps_its_bytes_and_goes_on_by_itself(
    manager: NetworkManager, server: TroubleServer, store: Store
) -> None:
    update = Update(store, FREE_ONLY)
    until(lambda: server.bytes_sent(PATH) > len(DATA) // 5)
    manager.set_metered(METERED)
    assert until(update.is_waiting) < 2.5  # two seconds, and what a loaded machine adds
    assert update.now is not None
    assert update.now.waiting_for == ("the network is metered (NetworkManager)",)
    assert plan(store, RELEASE, FREE_ONLY).steps[0].bytes_present > 0
    threading.Event().wait(0.3)  # a server notices that a connection is closed when it has sent once more
    at_rest = server.bytes_sent(PATH)
    threading.Event().wait(1.2)  # more than one look of the gate: nothing may flow meanwhile
    assert server.bytes_sent(PATH) == at_rest
    manager.set_metered(FREE)
    update.join(30)
    assert update.error is None
    assert store.read().pending is not None
    assert store.blobs.verify(RELEASE.model) is None
    done = [progress.bytes_done for progress in update.seen]
    assert done == sorted(done)
    # The server counts what it handed to the kernel; what a cut connection had under way is lost.
    assert server.bytes_sent(PATH) < 1.1 * len(DATA) + 8 * CHUNK + 16 * 16_384


def test_it_does_not_begin_on_a_metered_network_and_says_so(
    manager: NetworkManager, server: TroubleServer, store: Store
) -> None:
    manager.set_metered(METERED)
    cancel = threading.Event()
    threading.Timer(5, cancel.set).start()  # who waits instead of saying so would wait for ever
    with HTTP() as web, pytest.raises(DeferredError, match=r"the network is metered \(NetworkManager\)") as caught:
        download(store, RELEASE, web=web, conditions=FREE_ONLY, cancel=cancel)
    assert caught.value.exit_code == 22
    assert server.asks(PATH) == []
    assert plan(store, RELEASE, Conditions(min_free_bytes=0, charging=True)).blocked_by


def test_who_does_not_care_downloads_on_any_network(
    manager: NetworkManager, server: TroubleServer, store: Store
) -> None:
    manager.set_metered(METERED)
    server.trouble.clear()
    with HTTP() as web:
        download(store, RELEASE, web=web, conditions=Conditions(min_free_bytes=0, unmetered=False))
    assert store.read().pending is not None


def test_who_cancels_while_it_waits_is_obeyed_at_once(
    manager: NetworkManager, server: TroubleServer, store: Store
) -> None:
    update = Update(store, FREE_ONLY)
    until(lambda: server.bytes_sent(PATH) > 0)
    manager.set_metered(METERED)
    until(update.is_waiting)
    update.cancel.set()
    update.join(2)
    assert isinstance(update.error, CancelledError)


@pytest.mark.usefixtures("manager")
def test_two_that_want_the_same_release_fetch_it_once(server: TroubleServer, store: Store) -> None:
    first = Update(store, FREE_ONLY)
    until(lambda: server.bytes_sent(PATH) > 0)
    second = Update(store, FREE_ONLY)
    until(second.is_waiting)
    assert second.now is not None
    assert "another download to end" in second.now.waiting_for[0]
    first.join(30)
    second.join(30)
    assert (first.error, second.error) == (None, None)
    assert server.bytes_sent(PATH) < 1.1 * len(DATA)
