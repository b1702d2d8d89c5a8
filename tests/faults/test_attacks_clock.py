"""Time as a weapon, and as an accident: expiry, wrong clocks, long absence, replayed sequences (issue 3)."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from overair.errors import ExpiredError, SuspectClockError, TrustError
from overair.model.offer import UpToDate
from overair.model.report import Staged
from overair.trust.keys import ONLINE
from support.attack import Scene, changed, channel_keys, opened_scene

DAY = timedelta(days=1)
DEAD_CLOCK = datetime(1970, 1, 1, tzinfo=UTC)
NEW_STATE = frozenset({"timestamp", "snapshot", "stable"})


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    with opened_scene(tmp_path, monkeypatch) as opened:
        yield opened


def test_a_device_that_was_off_for_two_years_updates_in_one_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All the roots that it has to follow but the last have expired."""
    with opened_scene(tmp_path, monkeypatch, expires={"root": 90}) as scene:
        for _ in range(8):
            scene.clock.advance(91 * DAY)
            scene.publisher.repository.rotate("root")
        scene.publisher.repository.refresh(role="targets")
        scene.offer()
        expiries = [
            datetime.fromisoformat(scene.publisher.signed(f"{version}.root.json")["expires"])
            for version in range(1, 10)
        ]
        assert [expiry > scene.clock.now for expiry in expiries] == [False] * 8 + [True]
        scene.recovers()
        known = {f"trust/root_history/{version}.root.json" for version in range(1, 10)}
        assert known <= scene.disk().keys()


def test_a_chain_of_roots_that_ends_expired_installs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened_scene(tmp_path, monkeypatch, expires={"root": 100}) as scene:
        scene.clock.advance(50 * DAY)
        scene.publisher.repository.rotate("root")
        scene.clock.advance(101 * DAY)
        scene.offer()
        scene.refuses(ExpiredError, 20, "root metadata expired", trust={"root", "root_history/2.root"})


def test_expiry_stops_installing_and_never_running(scene: Scene) -> None:
    """What was staged before is swapped in as well: it was verified when it could be."""
    scene.offer()
    assert isinstance(scene.update(), Staged)
    scene.clock.advance(500 * DAY)
    before = scene.disk()
    with pytest.raises(ExpiredError, match="expired"):
        scene.update()
    assert scene.disk() == before
    scene.runs(scene.newer, "1.1.0")
    with scene.updater() as updater:
        updater.confirm()
        assert updater.status().current is not None
        updater.rollback()
    scene.runs(scene.installed, "1.0.0")


def backdated_by_the_online_key(scene: Scene, expires: datetime) -> None:
    """A thief of the online key, or a publisher with a wrong clock, signs what has expired already."""

    def expire(signed: Any) -> None:
        signed.version += 1
        signed.expires = expires

    scene.publisher.forge("timestamp.json", expire, scene.publisher.signers(ONLINE))


def test_a_clock_of_1970_does_not_revive_what_expired_before_the_last_good_refresh(scene: Scene) -> None:
    scene.offer()
    honest = scene.publisher.files()
    scene.clock.advance(20 * DAY)
    good_at = scene.clock.now
    assert "1.1.0" in str(scene.check())
    backdated_by_the_online_key(scene, good_at - DAY)
    scene.clock.now = DEAD_CLOCK
    scene.refuses(ExpiredError, 20, "timestamp", f"this clock says {good_at:%Y-%m-%d}")
    # Metadata that was good then still is: a device whose battery is empty is not cut off.
    scene.publisher.restore(honest)
    scene.recovers()


def test_a_clock_of_1970_does_not_lower_the_floor(scene: Scene) -> None:
    floor = scene.disk()["clock.json"]
    scene.clock.now = DEAD_CLOCK
    assert isinstance(scene.check(), UpToDate)
    assert scene.disk()["clock.json"] == floor


def test_metadata_that_expired_before_this_version_was_built_is_old_whatever_the_clock_says(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that never had a good refresh has no other floor."""
    (scene.store / "clock.json").unlink()
    built = scene.clock.now + 5 * DAY
    monkeypatch.setattr("overair.host.clock.BUILT_AT", built)
    backdated_by_the_online_key(scene, built - DAY)
    scene.clock.now = DEAD_CLOCK
    scene.refuses(ExpiredError, 20, "timestamp")


def test_a_clock_of_the_far_future_is_suspected(scene: Scene) -> None:
    scene.offer()
    now = scene.clock.now
    scene.clock.now = now.replace(year=now.year + 14)
    error = scene.refuses(
        SuspectClockError, 20, "clock of this machine says", f"{scene.clock.now.year}", "is the clock right"
    )
    assert "expired" in error.message
    scene.clock.now = now
    scene.recovers()


def test_a_clock_that_is_a_little_late_is_not_suspected(scene: Scene) -> None:
    scene.clock.advance(60 * DAY)
    error = scene.refuses(ExpiredError, 20, "expired")
    assert not isinstance(error, SuspectClockError)


def test_the_sequence_never_goes_back(scene: Scene) -> None:
    """All signatures and versions are right: somebody with the channel's key published an old manifest anew."""
    old = (scene.publisher.site / "manifest.json").read_bytes()
    scene.offer()
    scene.check()
    newer = (scene.publisher.site / "manifest.json").read_bytes()
    assert json.loads(old)["sequence"] < json.loads(newer)["sequence"]
    scene.publisher.forge_channel("stable", old, channel_keys(scene.publisher))
    scene.refuses(TrustError, 20, "was seen before", trust=NEW_STATE, also={"manifest.cache"})
    scene.command_refuses(20, "was seen before")
    scene.publisher.forge_channel("stable", newer, channel_keys(scene.publisher))
    scene.recovers()


def test_versions_of_metadata_stay_where_they_are_after_every_refusal(scene: Scene) -> None:
    """What a device knows is never replaced by less, however often it is tried."""
    old = scene.publisher.files()
    scene.offer()
    scene.check()
    known = scene.disk()
    for name in ("timestamp.json", scene.publisher.newest("snapshot"), scene.publisher.newest("stable")):
        scene.publisher.restore(old)
        scene.publisher.put(f"metadata/{name}", old["metadata/timestamp.json"])
        with pytest.raises(TrustError):
            scene.check()
        assert changed(known, scene.disk()) == set()
