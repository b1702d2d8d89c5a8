"""A release is probed on the device before it becomes current: by who downloads, or by the session that would swap."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from overair.device.probing import baseline
from overair.device.updater import Updater
from overair.errors import IllegalEventError, ProbeError, UsageError
from overair.model.events import Event, Happening
from overair.model.offer import Offer, Reason, UpToDate
from overair.model.probe import Expectation, ProbePolicy
from overair.publish.repository import Repository
from overair.publish.serve import Server
from overair.store.store import Store
from support.bad_models import zero_weights
from support.tiny_model import write_tiny_model

TIER = "1b"
ENGINE = "xllamacpp"
OWN = "support.bad_engines:"

pytest.importorskip("xllamacpp")


class Scene:
    """A publisher that does not probe, a server, and a device."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self.repo = Repository.init(folder / "site", base_url=server.url, dev=True)
        self.url = server.url
        self.good = write_tiny_model(folder / "good.gguf", seed=1)
        self.bad = zero_weights(write_tiny_model(folder / "next.gguf", seed=2), folder / "bad.gguf")

    def publish(self, version: str, model: Path, policy: ProbePolicy | None = None) -> None:
        self.repo.publish(model, tier=TIER, version=version, policy=policy, probe=False)

    def device(self, engine: str | None = None) -> Updater:
        store = self.folder / "device"
        return Updater(store, url=self.url, root=self.repo.root_path, tier=TIER, engine=engine)

    @property
    def store(self) -> Store:
        return Store(self.folder / "device")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    (tmp_path / "site").mkdir()
    with Server(tmp_path / "site") as server:
        yield Scene(tmp_path, server)


def install(scene: Scene, device: Updater, version: str) -> None:
    """Bring a good release, and let it answer."""
    scene.publish(version, scene.good)
    device.update()
    with device.session(ENGINE) as session:
        assert session.generate("a", max_tokens=4)


def test_who_downloads_probes_and_a_release_that_fails_never_reaches_a_slot(scene: Scene) -> None:
    with scene.device(ENGINE) as device:
        install(scene, device, "1.0.0")
        scene.publish("1.1.0", scene.bad)
        with pytest.raises(ProbeError, match=r"1\.1\.0 failed its probe with xllamacpp") as caught:
            device.update()
        assert caught.value.exit_code == 25
        status = device.status()
        assert status.current is not None
        assert (status.current.version, status.pending, status.trial) == ("1.0.0", None, None)
        assert [q.version for q in status.quarantine] == ["1.1.0"]
        assert [e.what for e in device.history()][-1] is Happening.REFUSED
        answer = device.check()
        assert isinstance(answer, UpToDate)
        assert answer.reason is Reason.QUARANTINED
        with device.session(ENGINE) as session:
            assert session.bundle.version == "1.0.0"
    assert {path.name for path in scene.store.layout.blobs.iterdir()} == {status.current.sha256}


def test_a_good_release_is_probed_once_and_its_figures_are_kept(scene: Scene) -> None:
    with scene.device(ENGINE) as device:
        install(scene, device, "1.0.0")
        current = scene.store.read().current
        assert current is not None
        assert current.probe is not None
        assert current.probe.engine.startswith("xllamacpp ")
        assert current.probe.figures["tokens_per_second"] > 0
        probed = [event for event in device.history() if event.what is Happening.PROBED]
        assert len(probed) == 1
        assert probed[0].figures == current.probe.figures


def test_a_session_probes_what_nobody_has_probed_before_it_swaps(scene: Scene) -> None:
    with scene.device() as device:  # the engine is not known yet, so the download cannot probe
        scene.publish("1.0.0", scene.bad)
        device.update()
        assert device.status().pending is not None
        with pytest.raises(IllegalEventError, match="nothing is installed"), device.session(ENGINE):
            pass
        assert [q.version for q in device.status().quarantine] == ["1.0.0"]
        assert [e.what for e in device.history()] == [Happening.STAGED, Happening.REFUSED]
        install(scene, device, "1.1.0")
        scene.publish("1.2.0", write_tiny_model(scene.folder / "third.gguf", seed=3))
        device.update()  # a session has shown the engine
        pending = scene.store.read().pending
        assert pending is not None
        assert pending.probe is not None


def test_what_the_publisher_expects_decides_on_the_device(scene: Scene) -> None:
    policy = ProbePolicy(expect=(Expectation(prompt="What is 2+2?", one_of=("4",)),))
    with scene.device(ENGINE) as device:
        install(scene, device, "1.0.0")
        scene.publish("1.1.0", write_tiny_model(scene.folder / "other.gguf", seed=5), policy)
        with pytest.raises(ProbeError, match=r"1\.1\.0 failed its probe"):
            device.update()
        assert "2+2" not in device.status().quarantine[0].reason


def test_what_the_current_model_brought_is_what_the_next_one_is_compared_with(scene: Scene) -> None:
    with scene.device(ENGINE) as device:
        install(scene, device, "1.0.0")
    state = scene.store.read()
    assert state.current is not None
    assert state.current.probe is not None
    other = replace(state.current.release, artifacts=(replace(state.current.release.model, sha256="0" * 64),))
    assert baseline(state, other) == state.current.probe.figures["tokens_per_second"]
    assert baseline(state, state.current.release) is None


def test_an_engine_that_dies_on_a_release_takes_nothing_with_it(scene: Scene) -> None:
    with scene.device(OWN + "SegfaultsAtLoad") as device:
        scene.publish("1.0.0", scene.good)
        with pytest.raises(ProbeError, match="SIGSEGV"):
            device.update()
        assert device.status().pending is None
        assert not isinstance(device.check(), Offer)


def test_an_engine_that_is_not_installed_says_nothing_about_a_release(scene: Scene) -> None:
    with scene.device(OWN + "IsNotInstalled") as device:
        scene.publish("1.0.0", scene.good)
        device.update()
        status = device.status()
        assert status.pending is not None
        assert status.quarantine == ()


def test_a_refused_release_is_offered_again_to_another_engine(scene: Scene) -> None:
    with scene.device(OWN + "SegfaultsAtLoad") as device:
        scene.publish("1.0.0", scene.good)
        with pytest.raises(ProbeError):
            device.update()
    with scene.device(ENGINE) as device:
        device.update()
        assert device.status().pending is not None


def test_a_rotten_download_is_not_blamed_on_the_release(scene: Scene) -> None:
    with scene.device() as device:
        scene.publish("1.0.0", scene.good)
        device.update()
        pending = scene.store.read().pending
        assert pending is not None
        blob = scene.store.layout.blob(pending.release.model.sha256)
        blob.chmod(0o644)
        blob.write_bytes(b"\0" * blob.stat().st_size)
        with pytest.raises(Exception, match=r"rotted|damaged|does not load"), device.session(ENGINE):
            pass
        assert device.status().quarantine == ()


def test_reporters_hear_what_became_of_an_update(scene: Scene) -> None:
    class Ear:
        def __init__(self) -> None:
            self.heard: list[Happening] = []

        def report(self, event: Event) -> None:
            self.heard.append(event.what)

    ear = Ear()
    scene.publish("1.0.0", scene.good)
    root = scene.repo.root_path
    with Updater(
        scene.folder / "device", url=scene.url, root=root, tier=TIER, engine=ENGINE, reporters=[ear]
    ) as device:
        device.update()
        scene.publish("1.1.0", scene.bad)
        with pytest.raises(ProbeError):
            device.update()
    assert ear.heard == [Happening.PROBED, Happening.STAGED, Happening.REFUSED]


def test_an_engine_that_nobody_has_heard_of_is_refused_when_the_device_is_set_up(scene: Scene) -> None:
    with pytest.raises(UsageError, match="no such engine: 'xlamacpp'"):
        scene.device("xlamacpp")
