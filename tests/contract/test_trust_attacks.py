"""Attacks on the metadata, each through a real HTTP server: refused, and the disk changed only as TUF allows."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import MetaFile, TargetFile

from overair.errors import ExpiredError, HTTPStatusError, IntegrityError, OverairError, TrustError
from overair.transport.http import HTTP
from overair.trust.keys import ONLINE, ROOT, TARGETS, Keyring, channel_role
from overair.trust.repository import Expiry, MetadataSet
from support.trust_scene import EVIL, NEW, OLD, Scene, opened_scene
from support.trust_server import DAY, NOW, Device, DiskFiles, Publisher, Site, write_private


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with opened_scene(tmp_path) as opened:
        yield opened


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

        def prolong(timestamp: Any) -> None:
            timestamp.version += 1
            timestamp.expires = later + DAY

        scene.publisher.forge("timestamp.json", prolong, scene.publisher.signers(ONLINE))
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
