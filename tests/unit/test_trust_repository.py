"""What a publisher signs, with which keys, and what it refuses to sign."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization.json import JSONSerializer

from overair.errors import IntegrityError, OverairError, TrustError, UsageError
from overair.trust.keys import ONLINE, ROOT, TARGETS, Keyring, channel_role
from overair.trust.repository import Expiry, MetadataSet, Upload
from support.trust_server import DAY, NOW, write_private


class Published(dict[str, bytes]):
    """The published `metadata/` folder."""

    def add(self, upload: Upload) -> None:
        self.update(upload)

    def signed(self, name: str) -> Any:
        return json.loads(self[name])["signed"]


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.create(tmp_path / "keys", ["stable", "beta"], write=write_private, passphrase=lambda _: "x")


@pytest.fixture
def published(keyring: Keyring) -> Published:
    published = Published()
    _, upload = MetadataSet.initialise(published.get, keyring, ["stable", "beta"], now=NOW)
    published.add(upload)
    return published


def test_first_publication_has_the_roles_and_expiries_that_are_promised(published: Published) -> None:
    assert list(published) == [
        "1.root.json",
        "1.stable.json",
        "1.beta.json",
        "1.targets.json",
        "1.snapshot.json",
        "timestamp.json",
    ]
    root = published.signed("1.root.json")
    assert root["consistent_snapshot"] is True
    assert {name: (len(role["keyids"]), role["threshold"]) for name, role in root["roles"].items()} == {
        "root": (3, 2),
        "targets": (1, 1),
        "snapshot": (1, 1),
        "timestamp": (1, 1),
    }
    assert root["roles"]["snapshot"] == root["roles"]["timestamp"]
    assert len(root["keys"]) == 5
    delegations = published.signed("1.targets.json")["delegations"]["roles"]
    assert [(d["name"], d["paths"], d["terminating"], d["threshold"]) for d in delegations] == [
        ("stable", ["stable/*"], True, 1),
        ("beta", ["beta/*"], True, 1),
    ]
    assert delegations[0]["keyids"] != delegations[1]["keyids"]
    assert [published.signed(name)["expires"][:10] for name in published] == [
        "2028-11-22",
        *["2027-11-23"] * 3,
        *["2026-12-23"] * 2,
    ]


def test_dev_keyring_signs_everything_with_one_key(tmp_path: Path) -> None:
    keyring = Keyring.create_dev(tmp_path / "keys", write=write_private)
    published = Published()
    _, upload = MetadataSet.initialise(published.get, keyring, ["stable"], now=NOW)
    published.add(upload)
    root = published.signed("1.root.json")
    assert len(root["keys"]) == 1
    assert root["roles"]["root"]["threshold"] == 1
    loaded = MetadataSet.load(published.get, Keyring.load(tmp_path / "keys", write=write_private))
    assert [name for name, _ in loaded.put_target("stable", "stable/manifest.json", b"{}", now=NOW)] == [
        "2.stable.json",
        "2.snapshot.json",
        "timestamp.json",
    ]


def test_publishing_needs_the_channel_and_online_keys_only_and_refreshing_the_online_key_only(
    keyring: Keyring, published: Published
) -> None:
    for name in ["root-1.pem", "root-2.pem", "root-3.pem", "targets.pem", "channel-beta.pem"]:
        (keyring.folder / name).unlink()
    poor = Keyring.load(keyring.folder, write=write_private, passphrase=lambda _: "x")
    loaded = MetadataSet.load(published.get, poor)
    published.add(loaded.put_target("stable", "stable/manifest.json", b"{}", now=NOW))
    with pytest.raises(UsageError, match="cannot sign beta: 1 of these keys are needed and 0"):
        loaded.put_target("beta", "beta/manifest.json", b"{}", now=NOW)
    (keyring.folder / "channel-stable.pem").unlink()
    poorer = Keyring.load(keyring.folder, write=write_private, passphrase=lambda _: "x")
    loaded = MetadataSet.load(published.get, poorer)
    assert [name for name, _ in loaded.refresh(now=NOW)] == ["3.snapshot.json", "timestamp.json"]
    with pytest.raises(UsageError, match="cannot sign root: 2 of these"):
        loaded.renew(ROOT, now=NOW)


def test_rotation_of_root_needs_the_old_threshold_as_well(keyring: Keyring, published: Published) -> None:
    new = [keyring.add(ROOT) for _ in range(3)]
    for name in ["root-1.pem", "root-2.pem"]:
        (keyring.folder / name).unlink()
    poor = Keyring.load(keyring.folder, write=write_private, passphrase=lambda _: "x")
    with pytest.raises(UsageError, match="cannot sign root: 2 of these keys are needed and 1"):
        MetadataSet.load(published.get, poor).rotate(ROOT, new, now=NOW)


def test_rotation_needs_as_many_keys_as_the_threshold(keyring: Keyring, published: Published) -> None:
    key = keyring.add(ROOT)
    with pytest.raises(UsageError, match="root needs 2 keys, and got 2"):
        MetadataSet.load(published.get, keyring).rotate(ROOT, [key, key], now=NOW)


@pytest.mark.parametrize("role", [ROOT, TARGETS, ONLINE, channel_role("stable")])
def test_rotated_keys_are_gone_from_who_counts(keyring: Keyring, published: Published, role: str) -> None:
    old = {key.keyid for key in keyring.keys(role)}
    new = [keyring.add(role) for _ in range(3 if role == ROOT else 1)]
    published.add(MetadataSet.load(published.get, keyring).rotate(role, new, now=NOW))
    root = published.signed("2.root.json" if role in {ROOT, TARGETS, ONLINE} else "1.root.json")
    newest_targets = max(name for name in published if name.endswith(".targets.json"))
    counting = {keyid for of in root["roles"].values() for keyid in of["keyids"]} | {
        keyid for of in published.signed(newest_targets)["delegations"]["roles"] for keyid in of["keyids"]
    }
    assert old & counting == set()
    assert {key.keyid for key in new} <= counting
    MetadataSet.load(published.get, keyring).refresh(now=NOW)


def test_lost_online_key_can_be_replaced(keyring: Keyring, published: Published) -> None:
    (keyring.folder / "online.pem").unlink()
    poor = Keyring.load(keyring.folder, write=write_private, passphrase=lambda _: "x")
    upload = MetadataSet.load(published.get, poor).rotate(ONLINE, [poor.add(ONLINE)], now=NOW)
    assert [name for name, _ in upload] == ["2.root.json", "2.snapshot.json", "timestamp.json"]
    published.add(upload)
    MetadataSet.load(published.get, poor).refresh(now=NOW)


def test_only_the_newest_manifest_is_a_target(keyring: Keyring, published: Published) -> None:
    for number in range(30):
        loaded = MetadataSet.load(published.get, keyring)
        published.add(loaded.put_target("stable", "stable/manifest.json", b"%d" % number, now=NOW))
    assert list(published.signed("31.stable.json")["targets"]) == ["stable/manifest.json"]
    assert len(published["31.stable.json"]) < 600


@pytest.mark.parametrize("path", ["beta/manifest.json", "manifest.json", "stable/deep/manifest.json", "stablemanifest"])
def test_path_of_another_channel_is_not_signed(keyring: Keyring, published: Published, path: str) -> None:
    with pytest.raises(UsageError, match="cannot sign"):
        MetadataSet.load(published.get, keyring).put_target("stable", path, b"{}", now=NOW)


@pytest.mark.parametrize("name", ["root", "targets", "snapshot", "timestamp", "stable"])
def test_channel_cannot_take_the_name_of_a_role(keyring: Keyring, published: Published, name: str) -> None:
    with pytest.raises(UsageError, match="the name is taken"):
        MetadataSet.load(published.get, keyring).add_channel(name, now=NOW)


def test_metadata_is_not_made_twice(keyring: Keyring, published: Published) -> None:
    with pytest.raises(UsageError, match="already"):
        MetadataSet.initialise(published.get, keyring, ["stable"], now=NOW)


def test_a_quarter_of_the_validity_left_is_reported(keyring: Keyring, published: Published) -> None:
    def warned(days: float) -> list[str]:
        loaded = MetadataSet.load(published.get, keyring)
        return [expiring.role for expiring in loaded.expiring(now=NOW + timedelta(days=days))]

    assert warned(22.4) == []
    assert warned(22.5) == ["snapshot", "timestamp"]
    assert warned(274) == ["targets", "stable", "beta", "snapshot", "timestamp"]
    assert warned(548)[0] == "root"


def test_expiry_is_what_the_publisher_chose(keyring: Keyring, published: Published) -> None:
    loaded = MetadataSet.load(published.get, keyring, expiry=Expiry(online=7 * DAY))
    published.add(loaded.refresh(now=NOW))
    assert published.signed("timestamp.json")["expires"] == "2026-11-30T12:00:00Z"


def resigned(data: bytes, signer: CryptoSigner, change: Any) -> bytes:
    metadata: Metadata[Any] = Metadata.from_bytes(data)
    change(metadata.signed, signer.public_key)
    metadata.signatures.clear()
    metadata.sign(signer)
    return metadata.to_bytes(JSONSerializer(compact=True))


def take_over(root: Root, key: Any) -> None:
    """What somebody who can write to the server would like the publisher to build on."""
    root.version += 1
    root.roles[ROOT].threshold = 1
    for role in root.roles:
        for keyid in list(root.roles[role].keyids):
            root.revoke_key(keyid, role)
        root.add_key(key, role)


def test_root_of_somebody_who_can_write_to_the_server_is_not_built_on(keyring: Keyring, published: Published) -> None:
    stranger = CryptoSigner.generate_ed25519()
    published["2.root.json"] = resigned(published["1.root.json"], stranger, take_over)
    with pytest.raises(TrustError):
        MetadataSet.load(published.get, keyring)


def test_whole_tree_of_another_publisher_is_not_built_on(keyring: Keyring, tmp_path: Path) -> None:
    stranger = Keyring.create_dev(tmp_path / "stranger", write=write_private)
    published = Published()
    _, upload = MetadataSet.initialise(published.get, stranger, ["stable", "beta"], now=NOW)
    published.add(upload)
    with pytest.raises(TrustError, match="root keys that are not in"):
        MetadataSet.load(published.get, keyring)


def test_file_that_a_stranger_signed_is_not_built_on(keyring: Keyring, published: Published) -> None:
    stranger = CryptoSigner.generate_ed25519()
    published["timestamp.json"] = resigned(published["timestamp.json"], stranger, lambda _timestamp, _key: None)
    with pytest.raises(TrustError, match=r"timestamp\.json is not trusted"):
        MetadataSet.load(published.get, keyring)


def test_older_file_under_a_newer_name_is_not_built_on(keyring: Keyring, published: Published) -> None:
    published.add(MetadataSet.load(published.get, keyring).put_target("stable", "stable/a", b"{}", now=NOW))
    published["2.stable.json"] = published["1.stable.json"]
    with pytest.raises(IntegrityError, match=r"2\.stable\.json is not what was signed"):
        MetadataSet.load(published.get, keyring)


@pytest.mark.parametrize("name", ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.stable.json"])
def test_changed_file_is_not_built_on(keyring: Keyring, published: Published, name: str) -> None:
    good = published[name]
    for bad in (good.replace(b'"version":1', b'"version":7'), good[:-20], b"", b"<html>"):
        published[name] = bad
        with pytest.raises((TrustError, IntegrityError)) as caught:
            MetadataSet.load(published.get, keyring)
        assert caught.value.hint
    del published[name]
    with pytest.raises(OverairError, match=r"lacks|no signed metadata"):
        MetadataSet.load(published.get, keyring)
