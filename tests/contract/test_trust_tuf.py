"""What we rely on in python-tuf beyond its documented interface, and that nothing of it reaches a disk by itself."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tuf.ngclient import Updater

from overair.errors import NetworkError, TrustError
from overair.trust.client import TrustClient, embed_root
from overair.trust.keys import ONLINE, ROOT, TARGETS, Keyring, channel_role
from overair.trust.repository import MetadataSet, Upload
from overair.trust.updater import DurableUpdater
from support.trust_scene import EVIL, NEW, OLD, Scene, opened_scene
from support.trust_server import DAY, NOW, Device, DiskFiles, Publisher, Site, write_private

OVERRIDDEN = [
    "_load_local_metadata",
    "_persist_metadata",
    "_persist_root",
    "_update_root_symlink",
    "_load_root",
]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with opened_scene(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_is_overridden_exists_in_python_tuf(name: str) -> None:
    assert name in vars(Updater)
    assert name in vars(DurableUpdater)


def test_no_file_is_touched_but_through_files(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    kept: dict[str, bytes] = {}

    class Memory:
        def read(self, name: str) -> bytes | None:
            return kept.get(name)

        def write(self, name: str, data: bytes) -> None:
            kept[name] = data

    client = TrustClient(
        Memory(),
        metadata_url=f"{scene.site.url}/metadata",
        fetch=scene.device.fetch,
        now=NOW,
        bootstrap_root=scene.publisher.first_root,
    )
    assert client.fetch_target("stable/manifest.json", f"{scene.site.url}/targets") == OLD
    assert sorted(kept) == [
        "root.json",
        "root_history/1.root.json",
        "snapshot.json",
        "stable.json",
        "targets.json",
        "timestamp.json",
    ]
    assert list(elsewhere.iterdir()) == []


def test_what_was_verified_before_a_cut_is_kept(scene: Scene) -> None:
    metadata = scene.publisher.metadata
    scene.publisher.upload(metadata.renew(ROOT, now=NOW))
    scene.publisher.publish("stable", NEW)

    def cut_at_the_snapshot(url: str, max_bytes: int, /) -> bytes:
        if "snapshot" in url:
            raise NetworkError("cut")
        return scene.device.fetch(url, max_bytes)

    client = TrustClient(
        scene.device.files, metadata_url=f"{scene.site.url}/metadata", fetch=cut_at_the_snapshot, now=NOW
    )
    with pytest.raises(NetworkError, match="cut"):
        client.refresh()
    kept = scene.device.files.contents()
    assert json.loads(kept["root.json"])["signed"]["version"] == 2
    assert json.loads(kept["timestamp.json"])["signed"]["version"] == 3
    assert json.loads(kept["snapshot.json"])["signed"]["version"] == 2
    assert scene.device.manifest() == NEW


def test_warm_check_is_two_requests_and_less_than_1_kb(scene: Scene) -> None:
    for number in range(60):
        scene.publisher.publish("beta" if number % 2 else "stable", b'{"n":%d}' % number)
    fresh = Device(scene.site, DiskFiles(scene.device.files.folder / "fresh"), scene.device.http)
    scene.site.requests.clear()
    scene.site.sent_bytes = 0
    manifest = fresh.manifest(root=scene.publisher.first_root)
    assert len(scene.site.requests) <= 8
    assert scene.site.sent_bytes < 20_000
    scene.site.requests.clear()
    scene.site.sent_bytes = 0
    again = fresh.client().fetch_target("stable/manifest.json", f"{scene.site.url}/targets", cached=manifest)
    assert again == manifest
    assert scene.site.requests == ["metadata/2.root.json", "metadata/timestamp.json"]
    assert scene.site.sent_bytes < 1_000


def test_cached_content_counts_only_while_it_is_signed(scene: Scene) -> None:
    targets = f"{scene.site.url}/targets"
    assert scene.device.client().fetch_target("stable/manifest.json", targets, cached=EVIL) == OLD
    scene.publisher.publish("stable", NEW)
    assert scene.device.client().fetch_target("stable/manifest.json", targets, cached=OLD) == NEW


def test_device_without_a_root_believes_nobody(scene: Scene, tmp_path: Path) -> None:
    device = Device(scene.site, DiskFiles(tmp_path / "new"), scene.device.http)
    scene.site.requests.clear()
    with pytest.raises(TrustError, match="no trusted root"):
        device.manifest()
    assert scene.site.requests == []


def test_embedded_root_is_checked_and_not_exchanged(scene: Scene, tmp_path: Path) -> None:
    files = DiskFiles(tmp_path / "new")
    first = scene.publisher.first_root
    with pytest.raises(TrustError):
        embed_root(files, scene.site.files["metadata/timestamp.json"])
    with pytest.raises(TrustError):
        embed_root(files, first.replace(b'"version":1', b'"version":2'))
    assert files.contents() == {}
    assert embed_root(files, first) == 1
    other = Keyring.create_dev(tmp_path / "others", write=write_private)
    _, files_of_other = MetadataSet.initialise(lambda _name: None, other, ["stable"], now=NOW)
    with pytest.raises(TrustError, match="trusts another root"):
        embed_root(files, files_of_other[0][1])
    scene.publisher.upload(scene.publisher.metadata.renew(ROOT, now=NOW))
    # An app that was built later embeds a later root of the same publisher.
    assert embed_root(files, scene.site.files["metadata/2.root.json"]) == 1
    assert files.read("root.json") == first
    files.write("root.json", b"damaged")
    assert embed_root(files, first) == 1


def test_application_that_embeds_the_root_of_a_new_repository_leaves_the_old_one(scene: Scene, tmp_path: Path) -> None:
    keyring = Keyring.create_dev(tmp_path / "others", write=write_private)
    with Site() as site:
        other = Publisher(site, keyring)
        other.start()
        other.publish("stable", NEW)
        moved = Device(site, scene.device.files, scene.device.http)
        with pytest.raises(TrustError):
            moved.manifest()
        assert moved.manifest(root=other.first_root) == NEW
        assert moved.manifest() == NEW


def test_clock_of_1970_passes_and_one_of_2040_is_shown(scene: Scene) -> None:
    assert scene.device.manifest(now=datetime(1970, 1, 1, tzinfo=UTC)) == OLD
    with pytest.raises(TrustError, match="this clock says 2040-01-01"):
        scene.device.manifest(now=datetime(2040, 1, 1, tzinfo=UTC))


OPERATIONS = ["publish", "refresh", ROOT, TARGETS, ONLINE, channel_role("stable"), "channel", "renew"]


def operation(name: str, publisher: Publisher, metadata: MetadataSet) -> Upload:
    keyring = publisher.keyring
    if name == "publish":
        return metadata.put_target("stable", "stable/manifest.json", OLD, now=NOW + DAY)
    if name == "refresh":
        return metadata.refresh(now=NOW + DAY)
    if name == "renew":
        return metadata.renew(ROOT, now=NOW + DAY)
    if name == "channel":
        if not keyring.keys(channel_role("nightly")):
            keyring.add(channel_role("nightly"))
        return metadata.add_channel("nightly", now=NOW + DAY)
    keys = [keyring.add(name) for _ in range(3 if name == ROOT else 1)]
    return metadata.rotate(name, keys, now=NOW + DAY)


@pytest.mark.parametrize("name", OPERATIONS)
def test_publisher_who_dies_at_any_point_leaves_a_state_that_devices_take(
    scene: Scene, tmp_path: Path, name: str
) -> None:
    publisher, start = scene.publisher, dict(scene.site.files)
    uploads = len(operation(name, publisher, MetadataSet.load(publisher.read, publisher.keyring)))
    for done in range(uploads + 1):
        scene.site.files = dict(start)
        metadata = MetadataSet.load(publisher.read, publisher.keyring)
        publisher.upload(operation(name, publisher, metadata)[:done])
        published = dict(scene.site.files)
        warm = Device(scene.site, DiskFiles(tmp_path / f"warm{done}"), scene.device.http)
        for file, data in scene.device.files.contents().items():
            warm.files.write(file, data)
        cold = Device(scene.site, DiskFiles(tmp_path / f"cold{done}"), scene.device.http)
        assert warm.manifest() == OLD
        assert cold.manifest(root=start["metadata/1.root.json"]) == OLD

        again = MetadataSet.load(publisher.read, publisher.keyring)
        if not (name == "channel" and "nightly" in again.channels):
            publisher.upload(operation(name, publisher, again))
        assert warm.manifest() == OLD
        assert cold.manifest() == OLD
        replaced = {path for path, data in published.items() if scene.site.files[path] != data}
        assert replaced <= {"metadata/timestamp.json"}
