"""Attacks on the metadata, each through a real HTTP server: refused, and the disk changed only as TUF allows."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from support.trust_server import DAY, NOW, Device, DiskFiles, Publisher, Site, write_private
from tuf.api.metadata import MetaFile, TargetFile

from overair.errors import ExpiredError, HTTPStatusError, IntegrityError, OverairError, TrustError
from overair.transport.http import HTTP
from overair.trust.keys import ONLINE, ROOT, TARGETS, Keyring, channel_role
from overair.trust.metadata import MAX_ROOT_BYTES, MAX_TIMESTAMP_BYTES
from overair.trust.repository import Expiry, MetadataSet

OLD, NEW, EVIL = b'{"sequence":1}', b'{"sequence":2}', b'{"sequence":3,"evil":true}'


@dataclass
class Scene:
    """A publisher with one manifest, and a device that has seen it."""

    site: Site
    publisher: Publisher
    device: Device

    def refuses(self, error: type[OverairError], *, changed: set[str] = frozenset(), **how: Any) -> OverairError:  # type: ignore[assignment]
        """The device refuses what is served; of its files only `changed` are others than before."""
        before = self.device.files.contents()
        with pytest.raises(error) as caught:
            self.device.manifest(**how)
        after = self.device.files.contents()
        assert {name for name in before | after if before.get(name) != after.get(name)} == changed
        assert type(caught.value) is error or error is OverairError
        assert caught.value.hint
        return caught.value

    def forge_online(self, change: Callable[[Any], None]) -> None:
        """A thief of the online key publishes a snapshot that `change` has changed."""
        signers = self.publisher.signers(ONLINE)
        version = self.snapshot_version
        self.publisher.forge(
            f"{version}.snapshot.json",
            lambda snapshot: (change(snapshot), setattr(snapshot, "version", version + 1)),
            signers,
            to=f"{version + 1}.snapshot.json",
        )
        data = self.site.files[f"metadata/{version + 1}.snapshot.json"]

        def point_to_it(timestamp: Any) -> None:
            timestamp.version += 1
            timestamp.snapshot_meta = MetaFile.from_data(version + 1, data, ["sha256"])

        self.publisher.forge("timestamp.json", point_to_it, signers)

    @property
    def snapshot_version(self) -> int:
        timestamp = json.loads(self.site.files["metadata/timestamp.json"])
        return int(timestamp["signed"]["meta"]["snapshot.json"]["version"])


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    keyring = Keyring.create(
        tmp_path / "keys", ["stable", "beta"], write=write_private, passphrase=lambda name: f"secret of {name}"
    )
    with Site() as site, HTTP() as http:
        publisher = Publisher(site, keyring)
        publisher.start()
        publisher.publish("stable", OLD)
        device = Device(site, DiskFiles(tmp_path / "device"), http)
        assert device.manifest(root=publisher.first_root) == OLD
        yield Scene(site, publisher, device)


def test_arbitrary_manifest_is_refused(scene: Scene) -> None:
    path = next(path for path in scene.site.files if path.startswith("targets/stable/"))
    scene.site.files[path] = EVIL
    scene.refuses(IntegrityError)
    scene.site.files[path] = EVIL[: len(OLD)]
    scene.refuses(IntegrityError)


def test_rollback_of_the_timestamp_is_refused(scene: Scene) -> None:
    replayed = scene.site.files["metadata/timestamp.json"]
    scene.publisher.publish("stable", NEW)
    assert scene.device.manifest() == NEW
    scene.site.files["metadata/timestamp.json"] = replayed
    assert "timestamp" in str(scene.refuses(TrustError))


def test_rollback_of_the_snapshot_is_refused(scene: Scene) -> None:
    old = scene.snapshot_version
    scene.publisher.publish("stable", NEW)
    assert scene.device.manifest() == NEW

    def point_back(timestamp: Any) -> None:
        timestamp.version += 1
        timestamp.snapshot_meta = MetaFile.from_data(old, scene.site.files[f"metadata/{old}.snapshot.json"], ["sha256"])

    scene.publisher.forge("timestamp.json", point_back, scene.publisher.signers(ONLINE))
    scene.refuses(TrustError)


@pytest.mark.parametrize("role", ["targets", "stable"])
def test_rollback_of_targets_or_of_a_channel_is_refused(scene: Scene, role: str) -> None:
    old = json.loads(scene.site.files[f"metadata/{scene.snapshot_version}.snapshot.json"])["signed"]["meta"]
    metadata = scene.publisher.metadata
    scene.publisher.publish("stable", NEW)
    scene.publisher.upload(metadata.renew(TARGETS, now=NOW))
    assert scene.device.manifest() == NEW
    scene.forge_online(
        lambda snapshot: snapshot.meta.update({f"{role}.json": MetaFile(old[f"{role}.json"]["version"])})
    )
    scene.refuses(TrustError, changed={"timestamp.json"})


def test_freeze_is_noticed_after_the_window(scene: Scene) -> None:
    assert scene.device.manifest(now=NOW + 29 * DAY) == OLD
    error = scene.refuses(ExpiredError, now=NOW + 31 * DAY)
    assert "timestamp" in str(error)
    assert "2026-12-23" in str(error)
    assert "overair repo refresh" in error.hint


@pytest.mark.parametrize(
    ("days", "role", "renewed"), [(31, "snapshot", ()), (400, "targets", ()), (400, "stable", (TARGETS,))]
)
def test_every_expired_role_is_named_with_its_date(
    scene: Scene, days: int, role: str, renewed: tuple[str, ...]
) -> None:
    later = NOW + days * DAY
    for name in renewed:
        scene.publisher.upload(scene.publisher.metadata.renew(name, now=later))
    if role == "snapshot":
        scene.publisher.forge(
            "timestamp.json",
            lambda timestamp: (setattr(timestamp, "version", 9), setattr(timestamp, "expires", later + DAY)),
            scene.publisher.signers(ONLINE),
        )
    else:
        scene.publisher.upload(scene.publisher.metadata.refresh(now=later))
    before = set(scene.device.files.contents())
    with pytest.raises(ExpiredError, match=rf"the {role} metadata expired on 202[67]-1[12]-23"):
        scene.device.manifest(now=later)
    assert set(scene.device.files.contents()) == before


def test_expired_root_is_named(scene: Scene) -> None:
    scene.publisher.upload(scene.publisher.metadata.refresh(now=NOW + 731 * DAY))
    assert "the root metadata expired on 2028-11-22" in str(scene.refuses(ExpiredError, now=NOW + 731 * DAY))


def test_fast_forward_ends_with_a_rotation_of_the_online_key(scene: Scene) -> None:
    backup = dict(scene.site.files)
    thief = scene.publisher.signers(ONLINE)
    scene.publisher.forge("timestamp.json", lambda timestamp: setattr(timestamp, "version", 10**6), thief)
    assert scene.device.manifest() == OLD
    scene.site.files.clear()
    scene.site.files.update(backup)
    scene.refuses(TrustError)

    metadata = MetadataSet.load(scene.publisher.read, scene.publisher.keyring)
    scene.publisher.upload(metadata.rotate(ONLINE, [scene.publisher.keyring.add(ONLINE)], now=NOW))
    scene.publisher.metadata = metadata
    scene.publisher.publish("stable", NEW)
    assert scene.device.manifest() == NEW
    scene.publisher.forge("timestamp.json", lambda timestamp: setattr(timestamp, "version", 10**7), thief)
    scene.refuses(TrustError)


def test_mix_and_match_is_refused(scene: Scene) -> None:
    version = scene.snapshot_version
    other = dict(scene.site.files)
    scene.publisher.publish("stable", NEW)
    scene.publisher.forge(
        f"{version}.snapshot.json",
        lambda snapshot: setattr(snapshot, "version", version + 1),
        scene.publisher.signers(ONLINE),
        to=f"{version + 1}.snapshot.json",
    )
    assert scene.site.files[f"metadata/{version + 1}.snapshot.json"] != other.get(
        f"metadata/{version + 1}.snapshot.json"
    )
    scene.refuses(IntegrityError, changed={"timestamp.json"})


@pytest.mark.parametrize("kind", ["root", "timestamp", "snapshot", "targets", "stable", "manifest"])
def test_endless_data_is_cut_off(scene: Scene, kind: str) -> None:
    path = next_files(scene)[kind]
    scene.site.endless.add(path)
    with pytest.raises(IntegrityError):
        scene.device.manifest()
    # What the kernel's buffers take does not count as read.
    assert scene.site.sent_bytes < 16 * 1024 * 1024
    assert MAX_TIMESTAMP_BYTES < MAX_ROOT_BYTES


def next_files(scene: Scene) -> dict[str, str]:
    """The paths that the device fetches when everything was signed anew, by kind."""
    metadata = scene.publisher.metadata
    scene.publisher.upload(metadata.renew(ROOT, now=NOW))
    scene.publisher.upload(metadata.renew(TARGETS, now=NOW))
    before = set(scene.site.files)
    scene.publisher.publish("stable", NEW)
    new = set(scene.site.files) - before
    return {
        "root": "metadata/2.root.json",
        "timestamp": "metadata/timestamp.json",
        "snapshot": f"metadata/{scene.snapshot_version}.snapshot.json",
        "targets": "metadata/2.targets.json",
        "stable": next(path for path in new if path.endswith(".stable.json")),
        "manifest": next(path for path in new if path.startswith("targets/")),
    }


@pytest.mark.parametrize("kind", ["root", "timestamp", "snapshot", "targets", "stable", "manifest"])
@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "empty", "web page", "not json", "other repository"])
def test_damaged_file_of_each_kind_is_refused(scene: Scene, kind: str, damage: str, tmp_path: Path) -> None:
    path = next_files(scene)[kind]
    good = scene.site.files[path]
    scene.site.files[path] = damaged(good, damage, tmp_path)
    before = scene.device.files.contents()
    with pytest.raises((TrustError, IntegrityError)) as caught:
        scene.device.manifest()
    assert caught.value.hint
    if damage == "web page" and kind != "manifest":
        assert "login page" in caught.value.hint
    trusted = [kind_ for kind_ in ("root", "timestamp", "snapshot", "targets", "stable", "manifest")]
    allowed = {f"{name}.json" for name in trusted[: trusted.index(kind)]} | {"root_history/2.root.json"}
    after = scene.device.files.contents()
    assert {name for name in after if before.get(name) != after[name]} <= allowed
    scene.site.files[path] = good
    assert scene.device.manifest() == NEW


def damaged(good: bytes, how: str, tmp_path: Path) -> bytes:
    signed = good.find(b'"signed"') + 12 if b'"signed"' in good else len(good) // 2
    if how == "other repository":
        keyring = Keyring.create_dev(tmp_path / "others", write=write_private)
        with Site() as site:
            other = Publisher(site, keyring)
            other.start()
            return site.files["metadata/timestamp.json"]
    return {
        "flipped bit": good[:signed] + bytes([good[signed] ^ 1]) + good[signed + 1 :],
        "truncated": good[: len(good) // 2],
        "empty": b"",
        "web page": b"\n<!doctype html><title>Sign in</title>",
        "not json": b"\x00\xff" * 50,
    }[how]


@pytest.mark.parametrize("status", [301, 400, 401, 410, 429, 500, 503])
@pytest.mark.parametrize("path", ["metadata/2.root.json", "metadata/timestamp.json"])
def test_wrong_status_is_an_error_of_the_network(scene: Scene, path: str, status: int) -> None:
    scene.site.statuses[path] = status
    error = scene.refuses(OverairError)
    assert isinstance(error, HTTPStatusError)
    assert error.status == status


@pytest.mark.parametrize("status", [403, 404])
def test_no_more_roots_is_no_error_but_no_timestamp_is(scene: Scene, status: int) -> None:
    scene.site.statuses["metadata/2.root.json"] = status
    assert scene.device.manifest() == OLD
    scene.site.statuses["metadata/timestamp.json"] = status
    assert isinstance(scene.refuses(OverairError), HTTPStatusError)


def test_root_below_its_threshold_is_refused(scene: Scene) -> None:
    root = scene.publisher.signers(ROOT)
    scene.publisher.forge("1.root.json", lambda new: setattr(new, "version", 2), root[:1], to="2.root.json")
    scene.refuses(TrustError)
    scene.publisher.forge("1.root.json", lambda new: setattr(new, "version", 2), root[:2], to="2.root.json")
    assert scene.device.manifest() == OLD


def test_two_signatures_of_one_key_count_once(scene: Scene) -> None:
    root = scene.publisher.signers(ROOT)
    scene.publisher.forge("1.root.json", lambda new: setattr(new, "version", 2), root[:1], to="2.root.json")
    document = json.loads(scene.site.files["metadata/2.root.json"])
    document["signatures"] *= 2
    scene.site.files["metadata/2.root.json"] = json.dumps(document).encode()
    scene.refuses(TrustError)


def test_revoked_root_keys_sign_no_more(scene: Scene) -> None:
    old = scene.publisher.signers(ROOT)
    new = [scene.publisher.keyring.add(ROOT) for _ in range(3)]
    scene.publisher.upload(scene.publisher.metadata.rotate(ROOT, new, now=NOW))
    assert scene.device.manifest() == OLD
    scene.publisher.forge("2.root.json", lambda root: setattr(root, "version", 3), old, to="3.root.json")
    scene.refuses(TrustError)


def forge_channel(scene: Scene, role: str, keys: str, path: str = "stable/manifest.json") -> None:
    """Somebody who has the online key and the keys of `keys` publishes EVIL as `path` in `role`."""
    meta = json.loads(scene.site.files[f"metadata/{scene.snapshot_version}.snapshot.json"])["signed"]["meta"]
    version = meta[f"{role}.json"]["version"]

    def put(channel: Any) -> None:
        channel.version = version + 1
        channel.targets[path] = TargetFile.from_data(path, EVIL, ["sha256"])

    signers = scene.publisher.signers(keys)[:1]
    scene.publisher.forge(f"{version}.{role}.json", put, signers, to=f"{version + 1}.{role}.json")
    target = TargetFile.from_data(path, EVIL, ["sha256"])
    scene.site.files[f"targets/stable/{target.hashes['sha256']}.manifest.json"] = EVIL
    data = scene.site.files[f"metadata/{version + 1}.{role}.json"]
    scene.forge_online(
        lambda snapshot: snapshot.meta.update({f"{role}.json": MetaFile.from_data(version + 1, data, ["sha256"])})
    )


def test_stolen_channel_and_online_keys_work_until_the_channel_key_is_revoked(scene: Scene) -> None:
    keyring = scene.publisher.keyring
    scene.publisher.upload(
        scene.publisher.metadata.rotate(channel_role("stable"), [keyring.add(channel_role("stable"))], now=NOW)
    )
    assert scene.device.manifest() == OLD
    forge_channel(scene, "stable", channel_role("stable"))
    scene.refuses(TrustError, changed={"timestamp.json", "snapshot.json"})


@pytest.mark.parametrize("keys", [channel_role("beta"), ONLINE, TARGETS, ROOT])
def test_no_other_key_signs_for_a_channel(scene: Scene, keys: str) -> None:
    forge_channel(scene, "stable", keys)
    scene.refuses(TrustError, changed={"timestamp.json", "snapshot.json"})


def test_a_channel_cannot_name_the_manifest_of_another(scene: Scene) -> None:
    forge_channel(scene, "beta", channel_role("beta"))
    assert scene.device.manifest() == OLD
    target = scene.device.client().target_info("beta/other.json")
    assert target is None


def test_stolen_online_key_freezes_but_installs_nothing(scene: Scene) -> None:
    scene.publisher.publish("stable", NEW)
    frozen = json.loads(scene.site.files["metadata/1.snapshot.json"])["signed"]["meta"]["stable.json"]
    scene.forge_online(lambda snapshot: snapshot.meta.update({"stable.json": MetaFile(frozen["version"])}))
    # A device that saw more goes nowhere; a new one is at most held at what was once signed.
    scene.refuses(TrustError, changed={"timestamp.json"})
    scene.forge_online(lambda snapshot: snapshot.meta.update({"stable.json": MetaFile(99)}))
    scene.refuses(OverairError, changed={"timestamp.json", "snapshot.json"})


def test_stranger_signs_nothing(scene: Scene) -> None:
    stranger = CryptoSigner.generate_ed25519()
    scene.publisher.forge("timestamp.json", lambda timestamp: setattr(timestamp, "version", 9), [stranger])
    scene.refuses(TrustError)


def test_removed_metadata_does_not_fall_back_to_unsigned(scene: Scene) -> None:
    for path in [path for path in scene.site.files if path.startswith("metadata/")]:
        del scene.site.files[path]
    scene.site.files["manifest.json"] = scene.site.files["stable/manifest.json"] = EVIL
    assert isinstance(scene.refuses(OverairError), HTTPStatusError)
    assert "manifest.json" not in scene.site.requests


def test_manifest_swapped_after_the_timestamp_was_read_leaves_the_state_whole(scene: Scene) -> None:
    client = scene.device.client()
    client.refresh()
    scene.publisher.publish("stable", NEW)
    assert client.fetch_target("stable/manifest.json", f"{scene.site.url}/targets") == OLD
    assert scene.device.manifest() == NEW


def test_too_many_rotations_go_on_in_the_next_check(scene: Scene) -> None:
    signers = scene.publisher.signers(ROOT)[:2]
    for version in range(1, 261):
        scene.publisher.forge(
            f"{version}.root.json",
            lambda root: setattr(root, "version", root.version + 1),
            signers,
            to=f"{version + 1}.root.json",
        )
    scene.site.requests.clear()
    scene.device.manifest()
    assert sum(path.endswith("root.json") for path in scene.site.requests) == 256
    assert json.loads(scene.device.files.contents()["root.json"])["signed"]["version"] == 257
    scene.device.manifest(root=scene.publisher.first_root)
    assert json.loads(scene.device.files.contents()["root.json"])["signed"]["version"] == 261


def test_long_off_device_follows_a_chain_of_expired_roots(tmp_path: Path) -> None:
    expiry = Expiry(root=timedelta(days=100), targets=1000 * DAY, channel=1000 * DAY)
    keyring = Keyring.create(tmp_path / "keys", ["stable", "beta"], write=write_private, passphrase=lambda _: "x")
    with Site() as site, HTTP() as http:
        publisher = Publisher(site, keyring, expiry)
        publisher.start()
        embedded = publisher.first_root
        for rotation in range(1, 7):
            new = [keyring.add(ROOT) for _ in range(3)]
            publisher.upload(publisher.metadata.rotate(ROOT, new, now=NOW + rotation * 120 * DAY))
        now = NOW + 730 * DAY
        publisher.publish("stable", NEW, now)
        device = Device(site, DiskFiles(tmp_path / "device"), http)
        assert device.manifest(now=now, root=embedded) == NEW
        assert {f"root_history/{n}.root.json" for n in range(1, 8)} < set(device.files.contents())
        site.requests.clear()
        device.client(now, embedded).refresh()
        assert site.requests == ["metadata/8.root.json", "metadata/timestamp.json"]
