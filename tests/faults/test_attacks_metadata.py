"""Attacks on signed metadata, through a real HTTP server, on a device that runs a model (issue 3; TUF section 1.5.2).

Each is refused with the exit code of its error, changes on the disk only what TUF allows, and leaves the installed
model running.
"""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import DelegatedRole, MetaFile

import overair
from overair.errors import ExpiredError, HTTPStatusError, IntegrityError, TrustError, UsageError
from overair.model.offer import UpToDate
from overair.trust.keys import ONLINE, ROOT, TARGETS
from support.attack import TIER, Meanwhile, Publisher, Scene, Swapped, channel_keys, opened_scene
from support.command import run
from support.misbehaving import Status

DAY = timedelta(days=1)
NEW_STATE = frozenset({"timestamp", "snapshot", "stable"})


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    with opened_scene(tmp_path, monkeypatch) as opened:
        yield opened


def freeze_device_after_seeing_the_offer(scene: Scene) -> dict[str, bytes]:
    """The device has seen more than the files that are returned."""
    old = scene.publisher.files()
    scene.offer()
    scene.publisher.repository.refresh(role="targets")
    scene.check()
    return old


# --- going back ------------------------------------------------------------------------------------------------


def test_rollback_of_the_timestamp(scene: Scene) -> None:
    old = freeze_device_after_seeing_the_offer(scene)
    scene.server.faults["/metadata/timestamp.json"] = Swapped(old["metadata/timestamp.json"])
    scene.refuses(TrustError, 20, "timestamp")
    scene.command_refuses(20, "timestamp")
    scene.recovers()


def test_rollback_of_the_snapshot(scene: Scene) -> None:
    freeze_device_after_seeing_the_offer(scene)
    good = scene.publisher.files()

    def point_back(timestamp: Any) -> None:
        timestamp.version += 1
        timestamp.snapshot_meta = MetaFile(1)

    scene.publisher.forge("timestamp.json", point_back, scene.publisher.signers(ONLINE))
    scene.refuses(TrustError, 20, "timestamp")
    scene.publisher.restore(good)
    scene.recovers()


@pytest.mark.parametrize("role", ["targets", "stable"])
def test_rollback_of_targets_and_of_a_channel(scene: Scene, role: str) -> None:
    freeze_device_after_seeing_the_offer(scene)
    scene.publisher.forge_snapshot({role: 1})
    scene.refuses(TrustError, 20, "snapshot", trust={"timestamp"})


def test_fast_forward_and_recovery_from_it_by_a_key_rotation(scene: Scene) -> None:
    backup = scene.publisher.files()

    def far_ahead(timestamp: Any) -> None:
        timestamp.version = 10**9

    scene.publisher.forge("timestamp.json", far_ahead, scene.publisher.signers(ONLINE))
    assert isinstance(scene.check(), UpToDate)
    scene.publisher.restore(backup)
    scene.offer()
    scene.refuses(TrustError, 20, "timestamp")
    scene.publisher.repository.rotate("online")
    scene.recovers()


def test_fast_forward_of_a_channel_and_recovery_from_it_by_a_key_rotation(scene: Scene) -> None:
    backup = scene.publisher.files()
    for version in (10**8, 10**9):
        scene.publisher.forge_snapshot({"stable": version})
        scene.refuses(HTTPStatusError, 24, f"{version}.stable.json", trust={"timestamp", "snapshot"})
    scene.publisher.restore(backup)
    scene.offer()
    scene.refuses(TrustError, 20, "timestamp")
    scene.publisher.repository.rotate("online")
    scene.recovers()


def test_freeze_is_noticed_when_the_window_ends(scene: Scene) -> None:
    frozen = scene.publisher.files()
    scene.offer()
    offered = scene.publisher.files()
    scene.publisher.restore(frozen)
    scene.clock.advance(29 * DAY)
    assert isinstance(scene.check(), UpToDate)
    scene.clock.advance(2 * DAY)
    scene.refuses(ExpiredError, 20, "timestamp", "overair repo refresh")
    scene.publisher.restore(offered)
    scene.publisher.repository.refresh()
    scene.recovers()


def test_mix_and_match(scene: Scene) -> None:
    """A snapshot that was never signed together with this timestamp, though the same key signed both."""
    scene.offer()
    good = scene.publisher.files()
    name = scene.publisher.newest("snapshot")

    def old_channel(snapshot: Any) -> None:
        snapshot.meta["stable.json"] = MetaFile(2)

    scene.publisher.forge(name, old_channel, scene.publisher.signers(ONLINE))
    scene.refuses(IntegrityError, 21, name, trust={"timestamp"})
    scene.publisher.restore(good)
    scene.recovers()


# --- keys ------------------------------------------------------------------------------------------------------


def next_root(scene: Scene, number: int, **how: Any) -> None:
    """Publish one more root, signed by `number` of the three keys."""
    version = scene.publisher.signed(scene.publisher.newest("root"))["version"]

    def follow(root: Any) -> None:
        root.version = version + 1

    signers = how.get("signers") or scene.publisher.signers(ROOT)
    scene.publisher.forge(f"{version}.root.json", follow, signers[:number], to=f"{version + 1}.root.json")


def test_too_many_rotations_are_not_followed_in_one_check(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overair.trust.updater.MAX_ROOT_ROTATIONS", 8)
    for _ in range(20):
        next_root(scene, 2)
    scene.server.forget()
    assert isinstance(scene.check(), UpToDate)
    asked = [request.path for request in scene.server.requests() if request.path.endswith("root.json")]
    assert asked == [f"/metadata/{version}.root.json" for version in range(2, 10)]
    scene.offer()
    scene.recovers()


def test_a_root_below_its_threshold(scene: Scene) -> None:
    scene.offer()
    next_root(scene, 1)
    scene.refuses(TrustError, 20, "2.root.json")
    (scene.publisher.site / "metadata" / "2.root.json").unlink()
    next_root(scene, 2)
    scene.recovers()


def test_two_signatures_of_one_key(scene: Scene) -> None:
    scene.offer()
    next_root(scene, 1)
    path = scene.publisher.site / "metadata" / "2.root.json"
    document = json.loads(path.read_bytes())
    document["signatures"] *= 2
    path.write_text(json.dumps(document))
    scene.refuses(TrustError, 20, "2.root.json")
    # The same key under two names counts once as well.
    document["signatures"][1] = document["signatures"][0] | {"keyid": "f" * 64}
    path.write_text(json.dumps(document))
    scene.refuses(TrustError, 20, "2.root.json")
    path.unlink()
    scene.recovers()


def test_a_revoked_root_key(scene: Scene) -> None:
    stolen = scene.publisher.signers(ROOT)
    scene.publisher.repository.rotate("root")
    scene.offer()
    scene.check()
    next_root(scene, 3, signers=stolen)
    scene.refuses(TrustError, 20, "3.root.json")
    (scene.publisher.site / "metadata" / "3.root.json").unlink()
    scene.recovers()


def test_a_revoked_channel_key(scene: Scene) -> None:
    stolen = channel_keys(scene.publisher)
    scene.publisher.repository.rotate("channel")
    scene.check()
    scene.publisher.forge_channel("stable", scene.publisher.evil_manifest(), stolen[:1])
    scene.refuses(TrustError, 20, "stable.json", trust={"timestamp", "snapshot"})
    # Before it was revoked that very key could do it, so it was the revocation that was tested.
    scene.publisher.forge_channel("stable", scene.publisher.evil_manifest(), channel_keys(scene.publisher)[1:])
    assert "9.9.9" in str(scene.check())


@pytest.mark.parametrize("role", ["beta", ONLINE, TARGETS, ROOT])
def test_another_key_that_signs_for_a_channel(scene: Scene, role: str) -> None:
    signers = channel_keys(scene.publisher, "beta") if role == "beta" else scene.publisher.signers(role)
    scene.publisher.forge_channel("stable", scene.publisher.evil_manifest(), signers)
    scene.refuses(TrustError, 20, "stable.json", trust={"timestamp", "snapshot"})


def test_a_channel_that_names_the_manifest_of_another(scene: Scene) -> None:
    """The delegation of beta holds for `beta/*`, whatever its key signs."""
    evil = scene.publisher.evil_manifest()
    scene.publisher.forge_channel("beta", evil, channel_keys(scene.publisher, "beta"))
    assert isinstance(scene.check(), UpToDate)

    # Even where its own channel, which comes first, says nothing about the path.
    def empty(stable: Any) -> None:
        stable.targets.clear()

    scene.publisher.forge_role("stable", empty, channel_keys(scene.publisher))
    scene.refuses(TrustError, 20, "nobody who may", trust=NEW_STATE)


@pytest.mark.parametrize("name", ["/etc/passwd", "Root", "C:\\x"])
def test_a_role_that_is_a_path(scene: Scene, name: str) -> None:
    """A thief of the targets key names a role so that its metadata would lie elsewhere, or be the root."""
    key = channel_keys(scene.publisher)[0].public_key

    def delegate(targets: Any) -> None:
        role = DelegatedRole(name, [], threshold=1, terminating=False, paths=["stable/*"])
        targets.delegations.roles = {name: role, **targets.delegations.roles}
        targets.add_key(key, name)

    scene.publisher.forge_role("targets", delegate, scene.publisher.signers(TARGETS))
    scene.publisher.forge_snapshot({name: 1})
    scene.refuses(TrustError, 20, "role", trust={"timestamp", "snapshot", "targets"})


def test_a_stolen_online_key_installs_nothing(scene: Scene) -> None:
    online = scene.publisher.signers(ONLINE)
    evil = scene.publisher.evil_manifest()
    scene.publisher.put("manifest.json", evil)
    scene.publisher.put("stable/manifest.json", evil)
    scene.publisher.forge_channel("stable", evil, online)
    scene.refuses(TrustError, 20, "stable.json", trust={"timestamp", "snapshot"})
    scene.publisher.forge_role("targets", lambda targets: targets.delegations.roles.clear(), online)
    scene.refuses(TrustError, 20, "targets.json", trust={"timestamp", "snapshot"})


def test_a_stolen_online_key_freezes_for_at_most_the_window_of_the_channel(scene: Scene) -> None:
    """Its thief signs snapshots for ten years, but what a channel's key signed ends when that key said."""
    scene.publisher.forge_snapshot({}, expires=scene.clock.now + 3650 * DAY)
    for _ in range(12):
        scene.clock.advance(30 * DAY)
        assert isinstance(scene.check(), UpToDate)
    scene.clock.advance(6 * DAY)
    scene.refuses(ExpiredError, 20, "metadata expired")


# --- other metadata, or none -----------------------------------------------------------------------------------


def test_a_manifest_swapped_after_the_timestamp_was_read(scene: Scene) -> None:
    """A publication in the middle of a check is seen whole or not at all."""
    scene.offer()
    old = scene.publisher.manifest_digest()

    def publish_once_more() -> None:
        scene.publisher.publish("1.2.0", seed=3)

    scene.server.faults["/metadata/timestamp.json"] = Meanwhile(publish_once_more)
    assert "1.1.0" in str(scene.check())
    assert "1.2.0" in str(scene.check())
    assert old != scene.publisher.manifest_digest()


def test_a_manifest_replaced_by_an_attacker_after_the_timestamp_was_read(scene: Scene) -> None:
    scene.offer()
    good = scene.publisher.files()
    path = scene.publisher.path("manifest")
    evil = scene.publisher.evil_manifest()
    scene.server.faults["/metadata/timestamp.json"] = Meanwhile(lambda: scene.publisher.put(path, evil))
    scene.refuses(IntegrityError, 21, "manifest", trust=NEW_STATE)
    scene.publisher.restore(good)
    scene.recovers()


def other_repository(scene: Scene, folder: Path) -> Publisher:
    folder.mkdir()
    other = Publisher(folder, scene.server.url, scene.clock)
    for version, seed in (("1.0.0", 11), ("1.1.0", 12), ("9.9.9", 13)):
        other.publish(version, seed=seed)
    other.repository.refresh(role="root")
    return other


def test_metadata_of_a_different_repository(scene: Scene, tmp_path: Path) -> None:
    scene.offer()
    good = scene.publisher.files()
    files = other_repository(scene, tmp_path / "other").files()
    scene.publisher.restore(files)
    scene.refuses(TrustError, 20, "2.root.json")
    for root in scene.publisher.site.glob("metadata/*.root.json"):
        root.unlink()
    scene.refuses(TrustError, 20, "timestamp.json")
    scene.publisher.restore(good)
    scene.recovers()


@pytest.mark.parametrize("kind", ["timestamp", "snapshot", "targets", "channel", "manifest"])
def test_one_file_of_a_different_repository(scene: Scene, tmp_path: Path, kind: str) -> None:
    scene.publisher.renew_everything()
    scene.offer()
    other = other_repository(scene, tmp_path / "other")
    scene.server.faults[f"/{scene.publisher.path(kind)}"] = Swapped((other.site / other.path(kind)).read_bytes())
    before = scene.disk()
    with pytest.raises((TrustError, IntegrityError)) as caught:
        scene.update()
    assert caught.value.exit_code in {20, 21}
    assert {name for name in scene.disk() if before.get(name) != scene.disk()[name]} <= {
        f"trust/{name}.json" for name in ("root", "root_history/2.root", "timestamp", "snapshot", "targets", "stable")
    }
    scene.runs(scene.installed, "1.0.0")
    scene.recovers()


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_downgrade_to_unsigned_by_removing_the_metadata(scene: Scene, status: int) -> None:
    scene.offer()
    evil = scene.publisher.evil_manifest()
    good = scene.publisher.files()
    for path in good:
        if path.startswith("metadata/"):
            scene.server.faults[f"/{path}"] = Status(status)
    scene.server.faults["/metadata/2.root.json"] = Status(404)
    for path in ("manifest.json", "stable/manifest.json"):
        scene.publisher.put(path, evil)
    scene.server.forget()
    scene.refuses(HTTPStatusError, 24, "timestamp.json")
    # What is not signed is not even asked for.
    assert {request.path for request in scene.server.requests()} == {
        "/metadata/2.root.json",
        "/metadata/timestamp.json",
    }
    scene.recovers()


def test_a_downgrade_to_unsigned_by_the_address_of_the_plain_manifest(scene: Scene) -> None:
    scene.publisher.put("manifest.json", scene.publisher.evil_manifest())
    before = scene.disk()
    with overair.Updater(scene.store, url=f"{scene.server.url}/manifest.json") as updater:
        assert isinstance(updater.check(), UpToDate)
    assert scene.server.requests("/manifest.json") == []
    assert {name for name in scene.disk() if before.get(name) != scene.disk()[name]} <= {"device.json"}


def test_insecure_on_a_device_that_trusts_a_root(scene: Scene) -> None:
    before = scene.disk()
    with pytest.raises(UsageError, match="trusts a publisher's root"):
        overair.Updater(scene.store, insecure=True)
    words = ("device", "init", "--store", str(scene.store), "--url", scene.server.url, "--tier", TIER, "--insecure")
    ran = run(*words)
    assert ran.code == 2
    assert "trusts a publisher's root" in ran.err
    assert scene.disk() == before
    scene.runs(scene.installed, "1.0.0")


def test_a_device_whose_root_was_lost_trusts_nobody(scene: Scene) -> None:
    """Not the server, which offers a root, but the app, which has one embedded."""
    scene.offer()
    (scene.store / "trust" / "root.json").unlink()
    with pytest.raises(UsageError, match=r"root\.json is missing"):
        overair.Updater(scene.store)
    (scene.store / "trust" / "root.json").write_bytes(b'{"signed":')
    with overair.Updater(scene.store) as updater, pytest.raises(TrustError):
        updater.check()
    scene.recovers()


def test_expired_metadata_ends_the_command_with_20(scene: Scene) -> None:
    scene.offer()

    def expire(timestamp: Any) -> None:
        timestamp.version += 1
        timestamp.expires = scene.clock.now - DAY

    scene.publisher.forge("timestamp.json", expire, scene.publisher.signers(ONLINE))
    scene.command_refuses(20, "timestamp", "expired", "overair repo refresh")


def test_the_scene_is_what_the_tests_take_it_for(scene: Scene) -> None:
    """An update that nobody attacks goes through; a thief of all the keys that are needed gets in."""
    scene.offer()
    scene.recovers()
    scene.publisher.forge_channel("stable", scene.publisher.evil_manifest(), channel_keys(scene.publisher))
    assert "9.9.9" in str(scene.check())
