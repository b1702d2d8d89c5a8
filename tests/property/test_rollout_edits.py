"""Whatever a publisher does in whatever order, these stay true of a channel."""

import hashlib
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from overair.errors import UsageError
from overair.model.manifest import Manifest, ReleaseEntry, Rollout, encode_manifest, parse_manifest
from overair.model.release import Artifact
from overair.model.version import compare
from overair.publish import rollout as edits
from overair.publish.releases import everything, id_of, version_of

NOW = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
TIERS = st.sampled_from(["1b", "1b", "1b", "3b"])
# Versions count from the newest one of the tier; bytes are mostly new, and sometimes those of an earlier version.
DISTANCES = st.sampled_from([1, 1, 1, 2, 3, 0, -1, -2])
CONTENTS = st.none() | st.integers(8, 14)
POINTS = st.sampled_from([0, 1, 5000, 10_000])

RELEASES = st.tuples(st.just("release"), TIERS, DISTANCES, CONTENTS, st.none() | st.sampled_from([1, 5000]))
STEPS = st.one_of(
    RELEASES,
    RELEASES,
    RELEASES,
    st.tuples(st.just("set_rollout"), TIERS, POINTS),
    st.tuples(st.just("rollback"), TIERS, st.none() | st.integers(0, 9), st.sampled_from(["a", "b"])),
    st.tuples(st.just("withdraw"), TIERS, st.integers(0, 9)),
)
BEGINNING = [("release", tier, 1, None, None) for tier in ("1b", "3b", "1b")]


def entry(version: str, content: int) -> ReleaseEntry:
    digest = hashlib.sha256(str(content).encode()).hexdigest()
    model = Artifact(role="model", name="m.gguf", url=f"blobs/{digest}", size_bytes=9, sha256=digest)
    return ReleaseEntry(url=model.url, size_bytes=9, sha256=digest, version=version, artifacts=(model,))


def known(log: edits.Log, tier: str, place: int) -> str:
    return version_of(everything(log, tier)[place % len(everything(log, tier))])


def minor_of(log: edits.Log, tier: str, distance: int) -> int:
    minors = [int(version_of(one).split(".")[1]) for one in everything(log, tier)]
    return max(0, max(minors, default=7) + distance)


def step(log: edits.Log, what: tuple[object, ...]) -> edits.Edit:
    match what:
        case ("release", str(tier), int(distance), content, points):
            rollout = Rollout(basis_points=points, salt="s") if isinstance(points, int) else None
            minor = minor_of(log, tier, distance)
            made = entry(f"1.{minor}.0", content if isinstance(content, int) else minor)
            return edits.release(log, channel="stable", tier=tier, entry=made, rollout=rollout, now=NOW)
        case ("set_rollout", str(tier), int(points)):
            return edits.set_rollout(log, tier=tier, basis_points=points, now=NOW)
        case ("rollback", str(tier), distance, str(reason)):
            to = known(log, tier, distance) if isinstance(distance, int) else None
            return edits.rollback(log, tier=tier, to=to, reason=reason, now=NOW)
        case ("withdraw", str(tier), int(distance)):
            version = known(log, tier, distance)
            return edits.withdraw(log, tier=tier, version=version, reason="bad", now=NOW)
    raise AssertionError(what)


def entries_of(manifest: Manifest, tier: str) -> list[ReleaseEntry]:
    entry = manifest.models.get(tier)
    return [one for one in (entry, entry.rollback, entry.candidate) if one is not None] if entry else []


def check(before: edits.Log, after: Manifest) -> None:
    log = (after, *before)
    assert after.sequence == len(log)
    if before:
        assert after.models.keys() >= before[0].models.keys()
        assert after.withdrawn[: len(before[0].withdrawn)] == before[0].withdrawn
    assert len({(w.tier, w.sha256) for w in after.withdrawn}) == len(after.withdrawn)
    by_version: dict[tuple[str, str], str] = {}
    for tier, stands in after.models.items():
        assert compare(after.current_version, version_of(stands)) >= 0
        for one in entries_of(after, tier):
            assert after.withdrawal(tier, id_of(one, tier)) is None
        if stands.rollback is not None:
            assert compare(version_of(stands.rollback), version_of(stands)) < 0
            assert stands.rollback.sha256 != stands.sha256
        if stands.candidate is not None:
            assert compare(version_of(stands.candidate), version_of(stands)) > 0
        for manifest in log:
            for one in entries_of(manifest, tier):
                assert by_version.setdefault((tier, version_of(one)), one.sha256) == one.sha256
    assert any(version_of(stands) == after.current_version for stands in after.models.values())


@given(st.lists(STEPS, min_size=6, max_size=20))
@settings(max_examples=200, deadline=None)
def test_every_manifest_that_a_publisher_can_make_keeps_the_rules(steps: list[tuple[object, ...]]) -> None:
    log: edits.Log = ()
    for what in [*BEGINNING, *steps]:
        try:
            edit = step(log, what)
        except UsageError:
            continue
        assert edit.effect.endswith(".")
        if not edit.changed:
            assert edit.manifest is log[0]
            continue
        made = parse_manifest(encode_manifest(edit.manifest))
        check(log, made)
        log = (made, *log)
