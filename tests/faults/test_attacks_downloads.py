"""Attacks on bytes and on the way that they come, through a real HTTP server, on a device that runs a model (issue 3).

Each is refused with the exit code of its error, changes on the disk only what TUF allows, and leaves the installed
model running. Exit code 24 stands where a server does not answer, or sends the device elsewhere.
"""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overair.errors import HTTPStatusError, IntegrityError, ManifestError, NetworkError, TrustError
from overair.model.offer import UpToDate
from overair.transport.http import HTTP
from support.attack import (
    KINDS,
    TIER,
    Scene,
    Swapped,
    blob_path,
    changed,
    channel_keys,
    opened_scene,
)
from support.misbehaving import EndlessBody, Fault, FlipByte, Headers, MisbehavingServer, NeverAnswer, Redirect, Trickle
from support.tiny_model import write_tiny_model

NEW_STATE = frozenset({"timestamp", "snapshot", "stable"})
TRUST_FILES = {
    "root": {"root", "root_history/2.root"},
    "timestamp": {"timestamp"},
    "snapshot": {"snapshot"},
    "targets": {"targets"},
    "channel": {"stable"},
}


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    with opened_scene(tmp_path, monkeypatch) as opened:
        yield opened


def verified_before(kind: str) -> set[str]:
    """The metadata that a device has taken when it comes to a file of this kind."""
    earlier = KINDS[: KINDS.index(kind)]
    return {name for earlier_kind in earlier for name in TRUST_FILES.get(earlier_kind, set())}


def offer_all_anew(scene: Scene, kind: str) -> str:
    """Publish so that every file has to be fetched; returns where the one of this kind is.

    A blob is fetched after all that TUF allows to change: the device has seen the offer then.
    """
    scene.publisher.renew_everything()
    scene.offer()
    if kind == "blob":
        scene.check()
    return f"/{scene.publisher.path(kind)}"


def allowed(kind: str) -> set[str]:
    return set() if kind == "blob" else verified_before(kind)


# --- software --------------------------------------------------------------------------------------------------


def test_arbitrary_software_for_a_model(scene: Scene) -> None:
    path = offer_all_anew(scene, "blob")
    evil = write_tiny_model(scene.publisher.folder / "evil.gguf", seed=666).read_bytes()
    assert len(evil) == len(scene.newer)
    scene.server.faults[path] = Swapped(evil)
    scene.refuses(IntegrityError, 21, "not the file that was promised")
    scene.command_refuses(21, "not the file that was promised")
    scene.recovers()


def test_arbitrary_software_in_the_manifest(scene: Scene) -> None:
    path = offer_all_anew(scene, "manifest")
    evil = scene.publisher.evil_manifest()
    for place in (path, "/manifest.json", "/stable/manifest.json"):
        scene.server.faults[place] = Swapped(evil)
    scene.refuses(IntegrityError, 21, "manifest.json", trust=verified_before("manifest"))
    scene.recovers()


def test_wrong_software_of_another_tier(scene: Scene) -> None:
    """The publisher's own model, under the name of another."""
    other = scene.publisher.publish("1.1.0", seed=33, tier="3b")
    path = offer_all_anew(scene, "blob")
    assert len(other) == len(scene.newer)
    scene.server.faults[path] = Swapped(other)
    scene.refuses(IntegrityError, 21, "not the file that was promised")
    scene.recovers()


@pytest.mark.parametrize("kind", ["channel", "manifest"])
def test_wrong_software_of_another_channel(scene: Scene, kind: str) -> None:
    """What the publisher signed for beta, served as stable."""
    scene.publisher.publish("3.0.0-beta.1", seed=44, channel="beta")
    path = offer_all_anew(scene, kind)
    digest = scene.publisher.manifest_digest("beta")
    other = (
        f"metadata/{scene.publisher.newest('beta')}" if kind == "channel" else f"targets/beta/{digest}.manifest.json"
    )
    scene.server.faults[path] = Swapped((scene.publisher.site / other).read_bytes())
    scene.refuses(IntegrityError, 21, "not what was signed", trust=allowed(kind))
    scene.recovers()


def test_wrong_software_of_another_channel_signed_for_this_one(scene: Scene) -> None:
    """The publisher's own mistake, or a replay by a thief of the channel's key: the manifest says what it is for."""
    scene.publisher.publish("3.0.0-beta.1", seed=44, channel="beta")
    beta = (scene.publisher.site / "beta" / "manifest.json").read_bytes()
    scene.publisher.forge_channel("stable", beta, channel_keys(scene.publisher))
    scene.refuses(ManifestError, 21, "channel beta", trust=NEW_STATE, also={"manifest.cache"})


# --- bytes -----------------------------------------------------------------------------------------------------


def refuses_each(scene: Scene, kind: str, path: str, faults: Iterable[Fault]) -> None:
    """A damaged file of a kind is refused in every form; what was verified before it is taken at the first try."""
    error = TrustError if kind in {"root", "timestamp"} else IntegrityError
    trust = allowed(kind)
    for fault in faults:
        scene.server.faults[path] = fault
        scene.refuses(error, error.exit_code, trust=trust)
        trust = set()
    scene.recovers()


@pytest.mark.parametrize("kind", KINDS)
def test_a_bit_flipped_file(scene: Scene, kind: str) -> None:
    path = offer_all_anew(scene, kind)
    data = (scene.publisher.site / path[1:]).read_bytes()
    # Of the three signatures of a root two are enough, so what they sign is what must not change.
    begin = data.find(b'"signed"') if kind == "root" else 0
    positions = [begin + int((len(data) - begin) * share) for share in (0.05, 0.35, 0.65, 0.95)]
    refuses_each(scene, kind, path, map(FlipByte, positions))


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file(scene: Scene, kind: str) -> None:
    path = offer_all_anew(scene, kind)
    data = (scene.publisher.site / path[1:]).read_bytes()
    refuses_each(scene, kind, path, (Swapped(data[:length]) for length in (0, 1, len(data) // 2, len(data) - 1)))


@pytest.mark.parametrize("kind", KINDS)
def test_endless_data(scene: Scene, kind: str) -> None:
    path = offer_all_anew(scene, kind)
    scene.server.forget()
    scene.server.faults[path] = EndlessBody()
    scene.refuses(IntegrityError, 21, trust=allowed(kind))
    # What the kernel's buffers take is sent, and never read.
    assert scene.server.bytes_served(path) < 16_000_000
    assert sum(file.stat().st_size for file in (scene.store / "partial").iterdir()) < len(scene.newer) + 1000
    scene.recovers()


# --- time ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_slow_retrieval(scene: Scene, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = offer_all_anew(scene, kind)
    trust = allowed(kind)
    limits = {
        "connect_timeout_s": 5.0,
        "read_timeout_s": 0.3,
        "user_agent": "overair",
        "ca_file": None,
        "cancel": None,
    }
    with monkeypatch.context() as short:
        short.setattr("overair.device.manifest.FILE_LIMIT_S", 0.3)
        short.setattr("overair.transport.download.FLOOR_S", 0.3)
        short.setattr("overair.core.retry.MAX_FAILURES", 2)
        short.setattr("overair.core.retry.FIRST_PAUSE_S", 0.01)
        short.setattr(HTTP.__init__, "__kwdefaults__", limits)
        for fault in (NeverAnswer(), Trickle(seconds=0.02)):
            scene.server.faults[path] = fault
            began = time.monotonic()
            scene.refuses(NetworkError, 24, Path(path).name, trust=trust)
            assert time.monotonic() - began < 5
            trust = set()
    scene.recovers()


def test_slow_retrieval_of_many_files_ends_with_the_limit_for_all(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them is in time, and there is always one more."""
    for _ in range(20):
        scene.publisher.repository.refresh(role="root")
    for version in range(2, 22):
        scene.server.faults[f"/metadata/{version}.root.json"] = Trickle(piece=1000, seconds=0.1)
    before = scene.disk()
    with monkeypatch.context() as short:
        short.setattr("overair.device.manifest.REFRESH_LIMIT_S", 0.8)
        with pytest.raises(NetworkError) as caught:
            scene.update()
    assert caught.value.exit_code == 24
    # The roots that came are kept, so that the next check is nearer to the end.
    came = changed(before, scene.disk())
    assert "trust/root_history/2.root.json" in came
    assert "trust/root_history/21.root.json" not in came
    assert all(name.startswith(("trust/root_history/", "trust/root.json")) for name in came)
    scene.runs(scene.installed, "1.0.0")
    scene.offer()
    scene.recovers()


# --- names and addresses ---------------------------------------------------------------------------------------

BAD_NAMES: dict[str, dict[str, Any]] = {
    "a digest that climbs": {"sha256": "../../device.json"},
    "a digest that is a path": {"sha256": "/etc/passwd"},
    "a digest that is too long": {"sha256": "a" * 65},
    "a digest in upper case": {"sha256": "A" * 64},
    "a digest and a path": {"sha256": "a" * 61 + "/.."},
    "a file name that is a path": {"name": "../../device.json"},
    "a file name of Windows": {"name": "..\\..\\device.json"},
    "a version that is a path": {"version": "../1.1.0"},
    "an address of a file": {"url": "file:///etc/passwd"},
    "an address with credentials": {"url": "http://user:secret@127.0.0.1/model.gguf"},
    "an address that climbs": {"url": "../../../model.gguf"},
}


@pytest.mark.parametrize("case", BAD_NAMES)
def test_a_digest_that_is_a_path(scene: Scene, case: str) -> None:
    """Signed by the channel's own key: a name that leads elsewhere is refused whoever says it."""
    manifest = scene.publisher.evil_manifest(**BAD_NAMES[case])
    scene.publisher.forge_channel("stable", manifest, channel_keys(scene.publisher))
    scene.server.forget()
    scene.refuses(ManifestError, 21, f"$.models.{TIER}", trust=NEW_STATE, also={"manifest.cache"})
    assert all(request.path.startswith(("/metadata/", "/targets/stable/")) for request in scene.server.requests())


def test_a_digest_of_the_manifest_that_is_a_path(scene: Scene) -> None:
    """It becomes part of an address on the same server, and of no path on the device."""
    channel = scene.publisher.newest("stable")

    def climb(stable: Any) -> None:
        stable.targets["stable/manifest.json"].hashes["sha256"] = "../../../../etc/passwd"

    scene.publisher.forge_role("stable", climb, channel_keys(scene.publisher))
    scene.server.faults["/targets/stable/../../../../etc/passwd.manifest.json"] = Swapped(b"{}")
    assert channel != scene.publisher.newest("stable")
    before = scene.disk()
    with pytest.raises((IntegrityError, HTTPStatusError)):
        scene.update()
    assert changed(before, scene.disk()) == {f"trust/{name}.json" for name in NEW_STATE}
    scene.runs(scene.installed, "1.0.0")


def test_a_url_that_leaves_the_origin(scene: Scene, tmp_path: Path) -> None:
    """Any host may hold the bytes, since they are checked; none learns what another one gave us."""
    (tmp_path / "cdn").mkdir()
    with MisbehavingServer(tmp_path / "cdn") as cdn:
        scene.offer()
        digest = scene.publisher.path("blob").rpartition("/")[2]
        (tmp_path / "cdn" / "model.gguf").write_bytes(scene.newer)
        elsewhere = f"http://localhost:{cdn.port}/model.gguf"
        manifest = scene.publisher.evil_manifest(url=elsewhere, sha256=digest, size_bytes=len(scene.newer))
        scene.publisher.forge_channel("stable", manifest, channel_keys(scene.publisher))
        for path in [f"/{name}" for name in scene.publisher.files()]:
            scene.server.faults[path] = Headers({"Set-Cookie": "session=secret", "WWW-Authenticate": "Basic"})
        cdn.faults["/model.gguf"] = [FlipByte(1000)]
        scene.check()
        scene.refuses(IntegrityError, 21, "not the file that was promised")
        scene.update()
        scene.runs(scene.newer, "9.9.9")
        for request in cdn.requests():
            assert request.headers.keys() <= {"host", "user-agent", "accept", "accept-encoding", "range", "if-range"}
        assert scene.server.requests(f"/{blob_path(digest)}") == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_redirect_to_another_host(scene: Scene, tmp_path: Path, kind: str) -> None:
    path = offer_all_anew(scene, kind)
    (tmp_path / "evil").mkdir()
    with MisbehavingServer(tmp_path / "evil") as evil:
        scene.server.faults[path] = Redirect(f"http://localhost:{evil.port}{path}")
        scene.refuses(NetworkError, 24, "redirects to another host", "publisher", trust=allowed(kind))
        if kind == "blob":
            scene.command_refuses(24, "redirects to another host")
        assert evil.requests() == []
    scene.recovers()


def test_a_redirect_to_plain_http_from_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "secure").mkdir()
    with (
        MisbehavingServer(tmp_path / "plain") as plain,
        opened_scene(tmp_path / "secure", monkeypatch, tls=True) as scene,
    ):
        for kind in ("timestamp", "blob"):
            path = offer_all_anew(scene, kind) if kind == "blob" else "/metadata/timestamp.json"
            scene.server.faults[path] = Redirect(plain.url + path)
            scene.refuses(NetworkError, 24, "redirects from https", "login page")
            scene.server.faults.clear()
        assert plain.requests() == []
        scene.recovers()


def test_a_redirect_to_the_same_host_is_followed(scene: Scene) -> None:
    """What is refused above is the other host, not the redirect."""
    path = offer_all_anew(scene, "blob")
    scene.publisher.put("moved.gguf", scene.newer)
    scene.server.faults[path] = Redirect("/moved.gguf")
    scene.update()
    scene.runs(scene.newer, "1.1.0")
    assert isinstance(scene.check(), UpToDate)
