"""Edits of the manifest, without a disk."""

import hashlib
import math
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from overair.errors import UsageError
from overair.model.manifest import Manifest, ReleaseEntry, Rollout, encode_manifest, parse_manifest
from overair.model.release import Artifact
from overair.publish import rollout as edits

NOW = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
Log = tuple[Manifest, ...]


def entry(version: str, content: str | None = None) -> ReleaseEntry:
    digest = hashlib.sha256((content or version).encode()).hexdigest()
    url = f"https://cdn.example.com/blobs/sha256/{digest[:2]}/{digest}"
    model = Artifact(role="model", name="m.gguf", url=url, size_bytes=9, sha256=digest)
    return ReleaseEntry(url=url, size_bytes=9, sha256=digest, version=version, artifacts=(model,))


def after(log: Log, edit: edits.Edit) -> Log:
    """The log after an edit, through the bytes that devices read."""
    assert edit.changed
    return (parse_manifest(encode_manifest(edit.manifest)), *log)


def share(points: int) -> Rollout:
    return Rollout(basis_points=points, salt="r-2026-11-23-00000000")


def publish(log: Log, version: str, *, tier: str = "1b", content: str | None = None, points: int | None = None) -> Log:
    rollout = None if points is None else share(points)
    made = entry(version, content)
    return after(log, edits.release(log, channel="stable", tier=tier, entry=made, rollout=rollout, now=NOW))


def published(*versions: str) -> Log:
    log: Log = ()
    for version in versions:
        log = publish(log, version)
    return log


def rolled_back(log: Log, to: str | None = None, reason: str = "bad") -> Log:
    return after(log, edits.rollback(log, tier="1b", to=to, reason=reason, now=NOW))


def withdrawn(log: Log, version: str) -> Log:
    return after(log, edits.withdraw(log, tier="1b", version=version, reason="bad", now=NOW))


def versions(log: Log) -> tuple[str | None, str | None, str | None]:
    """The release, its rollback and its candidate, of tier 1b."""
    tier = log[0].models["1b"]
    return (
        tier.version,
        tier.rollback.version if tier.rollback else None,
        tier.candidate.version if tier.candidate else None,
    )


def taken_back(log: Log) -> list[str]:
    return [w.version for w in log[0].withdrawn]


def test_the_first_release_has_nothing_to_return_to() -> None:
    log = published("1.0.0")
    assert versions(log) == ("1.0.0", None, None)
    assert (log[0].sequence, log[0].channel, log[0].schema) == (1, "stable", 1)
    assert (log[0].published_at, log[0].expires) == ("2026-11-23T10:00:00Z", "2027-11-23T10:00:00Z")


def test_a_release_names_the_one_before_to_return_to() -> None:
    log = published("1.9.0", "1.10.0")
    assert versions(log) == ("1.10.0", "1.9.0", None)
    assert (log[0].current_version, log[0].rollback_version, log[0].sequence) == ("1.10.0", "1.9.0", 2)


def test_versions_are_compared_by_their_numbers() -> None:
    log = published("1.9.0", "1.10.0", "1.11.0")
    assert versions(log) == ("1.11.0", "1.10.0", None)
    assert versions(rolled_back(log)) == ("1.10.0", "1.9.0", None)
    log = publish(publish(log, "1.9.0", tier="3b"), "1.9.1", tier="3b")
    assert (log[0].current_version, log[0].rollback_version) == ("1.11.0", "1.10.0")


def test_tiers_stand_at_their_own_versions_and_the_newest_is_current() -> None:
    log = publish(published("2.0.0", "2.1.0"), "1.5.0", tier="3b")
    assert log[0].models["3b"].version == "1.5.0"
    assert (log[0].current_version, log[0].rollback_version) == ("2.1.0", "2.0.0")
    assert versions(log) == ("2.1.0", "2.0.0", None)


def test_publishing_the_same_again_changes_nothing() -> None:
    log = published("1.0.0", "1.1.0")
    for version in ("1.0.0", "1.1.0"):
        edit = edits.release(log, channel="stable", tier="1b", entry=entry(version), rollout=None, now=NOW)
        assert not edit.changed
        assert edit.manifest is log[0]
        assert "stay on 1.1.0" in edit.effect


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0", "1.1.0+build.2"])
def test_a_version_never_gets_other_bytes(version: str) -> None:
    log = published("1.0.0", "1.1.0")
    with pytest.raises(UsageError, match="exists already with other bytes") as caught:
        publish(log, version, content="other")
    assert "new version" in caught.value.hint


def test_a_version_of_long_ago_never_gets_other_bytes_even_after_it_was_only_a_candidate() -> None:
    log = publish(publish(published("1.0.0"), "1.2.0", points=100), "1.3.0", points=100)
    with pytest.raises(UsageError, match=r"version 1\.2\.0 of tier 1b exists already"):
        publish(log, "1.2.0", content="other")


def test_a_candidate_that_was_replaced_can_be_published_again() -> None:
    log = publish(publish(published("1.0.0"), "1.2.0", points=100), "1.3.0", points=100)
    assert versions(publish(log, "1.2.0")) == ("1.2.0", "1.0.0", "1.3.0")


def test_an_older_version_is_refused_and_both_are_named() -> None:
    with pytest.raises(UsageError, match=r"1\.9\.9 is older than 1\.10\.0") as caught:
        publish(published("1.10.0"), "1.9.9")
    assert "overair repo rollback" in caught.value.hint


def test_withdrawn_bytes_are_refused_under_any_version() -> None:
    log = rolled_back(published("1.0.0", "1.1.0"))
    for version in ("1.1.0", "1.2.0"):
        with pytest.raises(UsageError, match="withdrawn") as caught:
            publish(log, version, content="1.1.0")
        assert "new version" in caught.value.hint


def test_the_first_release_of_a_tier_is_for_everybody() -> None:
    with pytest.raises(UsageError, match="nothing for the devices outside"):
        publish((), "1.0.0", points=1000)
    with pytest.raises(UsageError, match="nothing for the devices outside"):
        publish(published("1.0.0"), "1.0.0", tier="3b", points=1000)


def test_a_candidate_leaves_everybody_else_where_they_are() -> None:
    log = publish(published("1.0.0", "1.1.0"), "1.2.0", points=1000)
    assert versions(log) == ("1.1.0", "1.0.0", "1.2.0")
    assert log[0].current_version == "1.1.0"
    candidate = log[0].candidate("1b")
    assert candidate is not None
    assert candidate[1].basis_points == 1000


def test_a_new_candidate_replaces_the_old_one() -> None:
    log = publish(published("1.0.0"), "1.1.0", points=1000)
    edit = edits.release(log, channel="stable", tier="1b", entry=entry("1.2.0"), rollout=share(1), now=NOW)
    assert "rollout of 1.1.0 ends" in edit.effect
    assert versions(after(log, edit)) == ("1.0.0", None, "1.2.0")


@pytest.mark.parametrize(
    ("version", "candidate", "said"),
    [("1.3.0", None, "1.2.0 ends"), ("1.1.0", "1.2.0", "1.2.0 goes on")],
)
def test_a_full_release_ends_an_older_rollout_only(version: str, candidate: str | None, said: str) -> None:
    log = publish(published("1.0.0"), "1.2.0", points=1000)
    edit = edits.release(log, channel="stable", tier="1b", entry=entry(version), rollout=None, now=NOW)
    assert said in edit.effect
    assert versions(after(log, edit)) == (version, "1.0.0", candidate)


def test_a_candidate_is_not_released_to_everybody_by_publishing_it_again() -> None:
    log = publish(published("1.0.0"), "1.1.0", points=1000)
    with pytest.raises(UsageError, match="is being rolled out") as caught:
        publish(log, "1.1.0")
    assert "overair repo rollout" in caught.value.hint
    again = edits.release(log, channel="stable", tier="1b", entry=entry("1.1.0"), rollout=share(1000), now=NOW)
    assert not again.changed


def test_a_rollout_grows_with_its_salt_and_ends_as_the_release() -> None:
    log = publish(published("1.0.0"), "1.1.0", points=1000)
    salt = log[0].candidate("1b")
    grown = after(log, edits.set_rollout(log, tier="1b", basis_points=5000, now=NOW))
    candidate = grown[0].candidate("1b")
    assert candidate is not None
    assert salt is not None
    assert candidate[1] == replace(salt[1], basis_points=5000)
    done = after(grown, edits.set_rollout(grown, tier="1b", basis_points=10_000, now=NOW))
    assert versions(done) == ("1.1.0", "1.0.0", None)
    assert done[0].current_version == "1.1.0"


def test_a_rollout_can_pause() -> None:
    log = publish(published("1.0.0"), "1.1.0", points=1000)
    paused = after(log, edits.set_rollout(log, tier="1b", basis_points=0, now=NOW))
    candidate = paused[0].candidate("1b")
    assert candidate is not None
    assert candidate[1].basis_points == 0
    assert taken_back(paused) == []


def test_a_rollout_needs_a_candidate() -> None:
    with pytest.raises(UsageError, match=r"no candidate: 1\.0\.0 is released to everybody"):
        edits.set_rollout(published("1.0.0"), tier="1b", basis_points=1, now=NOW)


@pytest.mark.parametrize("number", [math.nan, math.inf, -0.1, 0.0, 0.00001, 1.0001, 10])
def test_a_share_is_a_number_from_a_ten_thousandth_to_one(number: float) -> None:
    with pytest.raises(UsageError, match="not a share of the devices"):
        edits.basis_points(number)


@pytest.mark.parametrize(("number", "points"), [(0.1, 1000), (0.0001, 1), (0.12345, 1234), (1, 10_000)])
def test_a_share_is_counted_in_basis_points(number: float, points: int) -> None:
    assert edits.basis_points(number) == points


def test_a_rollback_returns_to_the_release_before_and_takes_the_bad_one_back() -> None:
    log = rolled_back(published("1.0.0", "1.1.0", "1.2.0"))
    assert versions(log) == ("1.1.0", "1.0.0", None)
    assert taken_back(log) == ["1.2.0"]
    assert log[0].withdrawn[0].sha256 == entry("1.2.0").sha256
    assert (log[0].current_version, log[0].sequence) == ("1.1.0", 4)


def test_a_rollback_far_back_takes_all_that_is_newer_back_candidates_too() -> None:
    log = publish(published("1.0.0", "1.1.0", "1.2.0"), "1.3.0", points=100)
    log = rolled_back(log, to="1.0.0")
    assert versions(log) == ("1.0.0", None, None)
    assert sorted(taken_back(log)) == ["1.1.0", "1.2.0", "1.3.0"]


def test_a_repeated_rollback_does_not_go_back_twice() -> None:
    log = rolled_back(published("1.0.0", "1.1.0", "1.2.0"))
    again = edits.rollback(log, tier="1b", to=None, reason="bad", now=NOW)
    assert not again.changed
    assert versions(rolled_back(log, reason="this one is bad as well")) == ("1.0.0", None, None)
    assert not edits.rollback(log, tier="1b", to="1.1.0", reason="bad", now=NOW).changed


def test_after_a_rollback_the_next_release_returns_past_what_was_withdrawn() -> None:
    log = publish(rolled_back(published("1.0.0", "1.1.0")), "1.2.0")
    assert versions(log) == ("1.2.0", "1.0.0", None)
    assert versions(rolled_back(log, reason="again")) == ("1.0.0", None, None)


@pytest.mark.parametrize(
    ("to", "said"),
    [("0.9.0", "never released"), ("1.1.0", "withdrawn itself"), ("1.9.0", "never released"), ("nonsense", "version")],
)
def test_a_rollback_to_the_wrong_version_is_refused(to: str, said: str) -> None:
    log = publish(withdrawn(published("1.0.0", "1.1.0", "1.2.0"), "1.1.0"), "1.9.0", points=1)
    with pytest.raises(UsageError, match=said):
        edits.rollback(log, tier="1b", to=to, reason="bad", now=NOW)


def test_without_an_earlier_release_there_is_nothing_to_return_to() -> None:
    log = published("1.0.0")
    with pytest.raises(UsageError, match="nothing to return to"):
        edits.rollback(log, tier="1b", to=None, reason="bad", now=NOW)
    with pytest.raises(UsageError, match="nothing to return to"):
        edits.withdraw(log, tier="1b", version="1.0.0", reason="bad", now=NOW)


def test_old_bytes_under_a_new_version_are_nothing_to_return_to() -> None:
    log = publish(published("1.0.0"), "1.1.0", content="1.0.0")
    assert versions(log) == ("1.1.0", None, None)
    with pytest.raises(UsageError, match="nothing to return to"):
        edits.rollback(log, tier="1b", to=None, reason="bad", now=NOW)


def test_withdrawing_the_release_returns_the_tier_and_leaves_the_candidate() -> None:
    log = publish(published("1.0.0", "1.1.0"), "1.2.0", points=100)
    log = withdrawn(log, "1.1.0")
    assert versions(log) == ("1.0.0", None, "1.2.0")
    assert taken_back(log) == ["1.1.0"]


def test_withdrawing_the_candidate_ends_its_rollout() -> None:
    log = withdrawn(publish(published("1.0.0"), "1.1.0", points=100), "1.1.0")
    assert versions(log) == ("1.0.0", None, None)
    assert taken_back(log) == ["1.1.0"]


def test_withdrawing_an_older_release_leaves_the_tier_and_renews_what_it_returns_to() -> None:
    log = withdrawn(published("1.0.0", "1.1.0", "1.2.0"), "1.1.0")
    assert versions(log) == ("1.2.0", "1.0.0", None)
    assert log[0].rollback_version == "1.0.0"


def test_withdrawing_again_changes_nothing() -> None:
    log = withdrawn(published("1.0.0", "1.1.0"), "1.1.0")
    assert not edits.withdraw(log, tier="1b", version="1.1.0", reason="bad", now=NOW).changed


def test_withdrawing_the_unknown_lists_the_known() -> None:
    with pytest.raises(UsageError, match=r"no release 3\.0\.0") as caught:
        edits.withdraw(published("1.9.0", "1.10.0"), tier="1b", version="3.0.0", reason="bad", now=NOW)
    assert caught.value.hint == "known: 1.9.0, 1.10.0"


def test_an_unknown_tier_is_refused_and_the_tiers_are_listed() -> None:
    with pytest.raises(UsageError, match="nothing was published for tier 7b") as caught:
        edits.rollback(published("1.0.0"), tier="7b", to=None, reason="bad", now=NOW)
    assert "1b" in caught.value.hint


def test_the_id_of_a_bundle_is_what_is_withdrawn() -> None:
    adapter = replace(entry("x").artifacts[0], role="adapter", name="a.gguf", base_sha256=entry("1.1.0").sha256)
    made = entry("1.1.0")
    bundle = replace(made, artifacts=(*made.artifacts, adapter))
    log = published("1.0.0")
    log = after(log, edits.release(log, channel="stable", tier="1b", entry=bundle, rollout=None, now=NOW))
    bad = log[0].release("1b").id
    assert bad != made.sha256
    assert [w.sha256 for w in rolled_back(log)[0].withdrawn] == [bad]
