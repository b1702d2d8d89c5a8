"""Files and answers that are not what they should be: each kind, each damage, through a real HTTP server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import MetaFile

from overair.errors import HTTPStatusError, IntegrityError, OverairError, TrustError
from overair.trust.keys import ONLINE, ROOT, TARGETS, Keyring
from support.trust_scene import NEW, OLD, Scene, opened_scene
from support.trust_server import NOW, Publisher, Site, write_private

KINDS = ["root", "timestamp", "snapshot", "targets", "stable", "manifest"]  # in the order of the client workflow


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with opened_scene(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("kind", KINDS)
def test_endless_data_is_cut_off(scene: Scene, kind: str) -> None:
    path = next_files(scene)[kind]
    scene.site.endless.add(path)
    with pytest.raises(IntegrityError):
        scene.device.manifest()
    # What the kernel's buffers take does not count as read.
    assert scene.site.sent_bytes < 16 * 1024 * 1024


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


@pytest.mark.parametrize("kind", KINDS)
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
    verified_before = KINDS[: KINDS.index(kind)]
    allowed = {f"{name}.json" for name in verified_before}
    allowed |= {"root_history/2.root.json"} if verified_before else set()
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


def test_signed_length_does_not_lift_the_limit(scene: Scene) -> None:
    version = scene.snapshot_version + 1

    def promise_much(timestamp: Any) -> None:
        timestamp.version += 1
        timestamp.snapshot_meta = MetaFile(version, length=10**12)

    scene.publisher.forge("timestamp.json", promise_much, scene.publisher.signers(ONLINE))
    scene.site.endless.add(f"metadata/{version}.snapshot.json")
    scene.refuses(IntegrityError, changed={"timestamp.json"})
    assert scene.site.sent_bytes < 16 * 1024 * 1024
