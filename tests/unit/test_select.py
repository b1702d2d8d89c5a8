"""What a check answers: every reason, and every way to an older version."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from overair.core.select import Device, select
from overair.model.manifest import CandidateEntry, Manifest, ReleaseEntry, Rollout, TierEntry, Withdrawal
from overair.model.offer import Answer, Deferred, Offer, Reason, UpToDate
from overair.model.state import Quarantined, Slot, State
from support.states import AT, digest_of, release, slot

NOW = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
DEVICE = Device(id="6f1c2d3e-4a5b-4c6d-8e7f-000000000100", tier="1b", app_version="3.0.0")
SALT = "r-2026-11-23a"
IN, OUT = 3418, 3417


def fields(version: str, *, content: str | None = None, min_app: str | None = None) -> dict[str, Any]:
    digest = digest_of(content if content is not None else version)
    return {
        "url": f"blobs/{digest}",
        "size_bytes": 10,
        "sha256": digest,
        "version": version,
        "min_app_version": min_app,
    }


def candidate(version: str, basis_points: int = IN, **more: Any) -> CandidateEntry:
    rollout = Rollout(basis_points=basis_points, salt=SALT, starts_at=more.pop("starts_at", None))
    return CandidateEntry(**fields(version, **more), rollout=rollout)


def manifest(
    version: str,
    *,
    by_hand: bool = False,
    cand: CandidateEntry | None = None,
    rollback: str | None = None,
    withdrawn: tuple[str, ...] = (),
    **more: Any,
) -> Manifest:
    entry = TierEntry(
        **fields(version, **more), candidate=cand, rollback=ReleaseEntry(**fields(rollback)) if rollback else None
    )
    return Manifest(
        schema=None if by_hand else 1,
        current_version=version,
        models={"1b": entry},
        withdrawn=tuple(Withdrawal(tier="1b", version=v, sha256=digest_of(v), reason="bad") for v in withdrawn),
    )


def quarantine(version: str, *, app_version: str | None = "3.0.0", engine: str | None = "e 1") -> Quarantined:
    return Quarantined(
        release_id=digest_of(version),
        tier="1b",
        version=version,
        reason="does not load",
        at=AT,
        app_version=app_version,
        engine=engine,
    )


def state(current: Slot | None = None, *, pending: Slot | None = None, bad: tuple[Quarantined, ...] = ()) -> State:
    return State(current=current, pending=pending, quarantine=bad, engine="e 1")


def answer(m: Manifest, s: State, device: Device = DEVICE, now: datetime = NOW) -> tuple[type[Answer], Reason, str]:
    """The kind, the reason, and the version that is offered."""
    given = select(m, s, device, now)
    assert given.explanation
    assert "{" not in given.explanation
    return type(given), given.reason, given.release.version if isinstance(given, Offer) else ""


# --- newer and not newer --------------------------------------------------------------------------------------------


def test_first_install() -> None:
    assert answer(manifest("1.0.0"), state()) == (Offer, Reason.FIRST_INSTALL, "1.0.0")


@pytest.mark.parametrize(("old", "new"), [("2.9.0", "2.10.0"), ("1.0.0-rc.1", "1.0.0"), ("9.0.0", "10.0.0")])
def test_a_newer_version_is_offered(old: str, new: str) -> None:
    assert answer(manifest(new), state(slot(old))) == (Offer, Reason.NEWER, new)


@pytest.mark.parametrize(("old", "new"), [("2.10.0", "2.9.0"), ("1.0.0", "1.0.0-rc.1"), ("10.0.0", "9.0.0")])
def test_an_older_version_is_not(old: str, new: str) -> None:
    assert answer(manifest(new), state(slot(old))) == (UpToDate, Reason.NEWER_INSTALLED, "")


def test_what_is_installed_is_up_to_date() -> None:
    assert answer(manifest("1.0.0"), state(slot("1.0.0"))) == (UpToDate, Reason.UP_TO_DATE, "")


def test_what_is_downloaded_is_not_offered_again() -> None:
    staged = state(slot("1.0.0"), pending=slot("1.1.0", proven=False))
    assert answer(manifest("1.1.0"), staged) == (UpToDate, Reason.STAGED, "")
    assert answer(manifest("1.2.0"), staged) == (Offer, Reason.NEWER, "1.2.0")


# --- when does a device go to an older version? ---------------------------------------------------------------------


def test_a_withdrawn_release_leads_to_the_one_that_is_current_now() -> None:
    m = manifest("1.0.0", withdrawn=("1.1.0",))
    assert answer(m, state(slot("1.1.0", withdrawn=True))) == (Offer, Reason.WITHDRAWN, "1.0.0")


def test_a_withdrawn_release_that_is_still_the_tiers_leads_to_the_rollback() -> None:
    m = manifest("1.1.0", rollback="1.0.0", withdrawn=("1.1.0",))
    assert answer(m, state(slot("1.1.0", withdrawn=True))) == (Offer, Reason.WITHDRAWN, "1.0.0")


def test_a_withdrawn_release_without_a_way_back_stays() -> None:
    m = manifest("1.1.0", withdrawn=("1.1.0",))
    assert answer(m, state(slot("1.1.0", withdrawn=True))) == (UpToDate, Reason.WITHDRAWN, "")


def test_a_withdrawn_release_leads_forward_when_there_is_a_newer_one() -> None:
    m = manifest("1.2.0", rollback="1.0.0", withdrawn=("1.1.0",))
    assert answer(m, state(slot("1.1.0", withdrawn=True))) == (Offer, Reason.NEWER, "1.2.0")


def test_a_withdrawn_release_does_not_lead_to_a_quarantined_one() -> None:
    m = manifest("1.0.0", withdrawn=("1.1.0",))
    bad = state(slot("1.1.0", withdrawn=True), bad=(quarantine("1.0.0"),))
    assert answer(m, bad) == (UpToDate, Reason.QUARANTINED, "")


def test_a_withdrawn_release_is_never_offered() -> None:
    assert answer(manifest("1.1.0", withdrawn=("1.1.0",)), state()) == (UpToDate, Reason.WITHDRAWN, "")
    assert answer(manifest("1.1.0", withdrawn=("1.1.0",)), state(slot("1.0.0")))[:2] == (UpToDate, Reason.WITHDRAWN)


def test_the_rollback_alone_is_no_reason_to_go_back() -> None:
    m = manifest("1.1.0", rollback="1.0.0")
    assert answer(m, state(slot("1.1.0"))) == (UpToDate, Reason.UP_TO_DATE, "")
    assert answer(m, state(slot("1.2.0"))) == (UpToDate, Reason.NEWER_INSTALLED, "")


def test_a_manifest_by_hand_that_names_an_older_version_is_a_remote_rollback() -> None:
    m = manifest("2.9.0", by_hand=True)
    assert answer(m, state(slot("2.10.0"))) == (Offer, Reason.REMOTE_ROLLBACK, "2.9.0")


def test_a_manifest_by_hand_that_names_the_same_version_with_other_bytes_replaces_it() -> None:
    m = manifest("1.0.0", by_hand=True, content="again")
    assert answer(m, state(slot("1.0.0"))) == (Offer, Reason.NEWER, "1.0.0")


def test_a_manifest_by_hand_does_not_bring_back_what_is_quarantined() -> None:
    m = manifest("2.9.0", by_hand=True)
    assert answer(m, state(slot("2.10.0"), bad=(quarantine("2.9.0"),)))[:2] == (UpToDate, Reason.QUARANTINED)


@pytest.mark.parametrize("basis_points", [OUT, 0])
def test_a_rollout_that_shrinks_downgrades_nobody(basis_points: int) -> None:
    m = manifest("1.0.0", cand=candidate("1.1.0", basis_points))
    assert answer(m, state(slot("1.1.0"))) == (UpToDate, Reason.NEWER_INSTALLED, "")


def test_a_candidate_that_is_gone_downgrades_nobody() -> None:
    assert answer(manifest("1.0.0"), state(slot("1.1.0"))) == (UpToDate, Reason.NEWER_INSTALLED, "")


# --- rollouts -------------------------------------------------------------------------------------------------------


def test_a_candidate_is_offered_inside_the_cohort() -> None:
    m = manifest("1.0.0", cand=candidate("1.1.0", IN))
    assert answer(m, state(slot("1.0.0"))) == (Offer, Reason.ROLLOUT, "1.1.0")
    assert answer(m, state()) == (Offer, Reason.FIRST_INSTALL, "1.1.0")
    assert answer(m, state(slot("1.1.0"))) == (UpToDate, Reason.UP_TO_DATE, "")


def test_outside_the_cohort_the_stable_release_is_offered() -> None:
    m = manifest("1.0.0", cand=candidate("1.1.0", OUT))
    assert answer(m, state()) == (Offer, Reason.FIRST_INSTALL, "1.0.0")
    assert answer(m, state(slot("0.9.0"))) == (Offer, Reason.NEWER, "1.0.0")
    assert answer(m, state(slot("1.0.0"))) == (UpToDate, Reason.NOT_IN_COHORT, "")


def test_the_share_of_a_rollout_is_explained() -> None:
    m = manifest("1.0.0", cand=candidate("1.1.0", 1250))
    assert "12.5% of the devices" in select(m, state(slot("1.0.0")), DEVICE, NOW).explanation


def test_a_rollout_has_a_start() -> None:
    m = manifest("1.0.0", cand=candidate("1.1.0", 10_000, starts_at=AT))
    early = NOW - timedelta(seconds=1)
    assert answer(m, state(slot("1.0.0")), now=early) == (UpToDate, Reason.NOT_IN_COHORT, "")
    assert answer(m, state(slot("1.0.0")), now=NOW) == (Offer, Reason.ROLLOUT, "1.1.0")


@pytest.mark.parametrize("current", [None, "0.9.0"])
def test_a_candidate_in_quarantine_leaves_the_stable_release(current: str | None) -> None:
    m = manifest("1.0.0", cand=candidate("1.1.0"))
    before = state(slot(current) if current else None, bad=(quarantine("1.1.0"),))
    assert answer(m, before)[::2] == (Offer, "1.0.0")
    assert answer(m, state(slot("1.0.0"), bad=before.quarantine)) == (UpToDate, Reason.QUARANTINED, "")


def test_a_candidate_for_newer_apps_leaves_the_stable_release() -> None:
    m = manifest("1.0.0", cand=candidate("1.1.0", min_app="4.0.0"))
    assert answer(m, state()) == (Offer, Reason.FIRST_INSTALL, "1.0.0")
    assert answer(m, state(slot("1.0.0"))) == (Deferred, Reason.APP_TOO_OLD, "")


# --- obstacles ------------------------------------------------------------------------------------------------------


def test_a_missing_tier_is_named_with_those_that_there_are() -> None:
    given = select(manifest("1.0.0"), state(slot("1.0.0")), Device(id="d", tier="7b"), NOW)
    assert isinstance(given, Deferred)
    assert given.reason is Reason.TIER_MISSING
    assert "7b" in given.explanation
    assert "1b" in given.hint


@pytest.mark.parametrize(
    ("least", "app", "reason"),
    [
        ("3.0.1", "3.0.0", Reason.APP_TOO_OLD),
        ("3.10.0", "3.9.0", Reason.APP_TOO_OLD),
        ("3.0.0", "3.0.0", Reason.NEWER),
        ("3.9.0", "3.10.0", Reason.NEWER),
        ("9.0.0", None, Reason.NEWER),
        (None, "0.0.1", Reason.NEWER),
    ],
)
def test_the_apps_version_is_compared_by_precedence(least: str | None, app: str | None, reason: Reason) -> None:
    device = Device(id="d", tier="1b", app_version=app)
    assert answer(manifest("1.1.0", min_app=least), state(slot("1.0.0")), device)[1] is reason


def test_what_is_quarantined_is_not_offered() -> None:
    bad = state(slot("1.0.0"), bad=(quarantine("1.1.0"),))
    given = select(manifest("1.1.0"), bad, DEVICE, NOW)
    assert isinstance(given, UpToDate)
    assert given.reason is Reason.QUARANTINED
    assert "does not load" in given.explanation


def test_a_quarantine_ends_with_another_app_or_another_engine() -> None:
    for entry in (quarantine("1.1.0", app_version="2.0.0"), quarantine("1.1.0", engine="e 0")):
        assert answer(manifest("1.1.0"), state(slot("1.0.0"), bad=(entry,))) == (Offer, Reason.NEWER, "1.1.0")


def test_a_republished_release_has_another_digest_and_is_free() -> None:
    bad = state(slot("1.0.0"), bad=(quarantine("1.1.0"),))
    assert answer(manifest("1.1.0", content="fixed"), bad) == (Offer, Reason.NEWER, "1.1.0")


def test_the_offer_is_the_release_of_the_manifest() -> None:
    given = select(manifest("1.0.0", min_app="1.0.0"), state(), DEVICE, NOW)
    assert isinstance(given, Offer)
    assert given.release == release("1.0.0", min_app="1.0.0")


def test_every_reason_of_a_check_is_tested_here() -> None:
    """A new reason needs a test; `conditions` is said by a download, not by a check."""
    source = Path(__file__).read_text(encoding="utf-8")
    assert [r.name for r in Reason if f"Reason.{r.name}" not in source and r is not Reason.CONDITIONS] == []
