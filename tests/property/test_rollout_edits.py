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
TIERS = st.sampled_from(["1b", "3b"])
VERSIONS = st.sampled_from(["1.0.0-rc.1", "1.0.0", "1.9.0", "1.10.0", "1.10.0+b", "2.0.0", "10.0.0"])
CONTENTS = st.integers(0, 9)
POINTS = st.sampled_from([0, 1, 5000, 10_000])

STEPS = st.one_of(
    st.tuples(st.just("release"), TIERS, VERSIONS, CONTENTS, st.none() | st.sampled_from([1, 5000])),
    st.tuples(st.just("set_rollout"), TIERS, POINTS),
    st.tuples(st.just("rollback"), TIERS, st.none() | VERSIONS, st.sampled_from(["a", "b"])),
    st.tuples(st.just("withdraw"), TIERS, VERSIONS),
)


def entry(version: str, content: int) -> ReleaseEntry:
    digest = hashlib.sha256(str(content).encode()).hexdigest()
    model = Artifact(role="model", name="m.gguf", url=f"blobs/{digest}", size_bytes=9, sha256=digest)
    return ReleaseEntry(url=model.url, size_bytes=9, sha256=digest, version=version, artifacts=(model,))


def step(log: edits.Log, what: tuple[object, ...]) -> edits.Edit:
    match what:
        case ("release", str(tier), str(version), int(content), points):
            rollout = Rollout(basis_points=points, salt="s") if isinstance(points, int) else None
            made = entry(version, content)
            return edits.release(log, channel="stable", tier=tier, entry=made, rollout=rollout, now=NOW)
        case ("set_rollout", str(tier), int(points)):
            return edits.set_rollout(log, tier=tier, basis_points=points, now=NOW)
        case ("rollback", str(tier), str() | None as to, str(reason)):
            return edits.rollback(log, tier=tier, to=to, reason=reason, now=NOW)
        case ("withdraw", str(tier), str(version)):
            return edits.withdraw(log, tier=tier, version=version, reason="bad", now=NOW)
    raise AssertionError(what)


def check(before: edits.Log, after: Manifest) -> None:
    log = (after, *before)
    assert after.sequence == len(log)
    if before:
        assert after.models.keys() >= before[0].models.keys()
        assert after.withdrawn[: len(before[0].withdrawn)] == before[0].withdrawn
    assert len({(w.tier, w.sha256) for w in after.withdrawn}) == len(after.withdrawn)
    for tier, stands in after.models.items():
        assert compare(after.current_version, version_of(stands)) >= 0
        for one in (stands, stands.rollback, stands.candidate):
            assert one is None or after.withdrawal(tier, id_of(one, tier)) is None
        if stands.rollback is not None:
            assert compare(version_of(stands.rollback), version_of(stands)) < 0
            assert stands.rollback.sha256 != stands.sha256
        if stands.candidate is not None:
            assert compare(version_of(stands.candidate), version_of(stands)) > 0
        for known in everything(log, tier):
            same = [e for e in everything(log, tier) if compare(version_of(e), version_of(known)) == 0]
            assert {e.sha256 for e in same} == {known.sha256}
    assert any(version_of(stands) == after.current_version for stands in after.models.values())


@given(st.lists(STEPS, max_size=12))
@settings(max_examples=150, deadline=None)
def test_every_manifest_that_a_publisher_can_make_keeps_the_rules(steps: list[tuple[object, ...]]) -> None:
    log: edits.Log = ()
    for what in steps:
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
