"""What a check answers: every reason, and every way to an older version."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from overair.core.select import Device, select
from overair.model.manifest import CandidateEntry, Manifest, ReleaseEntry, Rollout, TierEntry, Withdrawal
from overair.model.offer import Answer, Deferred, Offer, Reason, UpToDate
from overair.model.release import Requirements
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


def test_what_a_probe_refused_is_offered_again_to_another_version_of_the_engine_that_probed() -> None:
    entry = Quarantined(
        release_id=digest_of("1.1.0"), tier="1b", version="1.1.0", reason="slow", at=AT, engine="p 1", probed=True
    )
    bad = state(slot("1.0.0"), bad=(entry,))
    for engine, reason in ((None, Reason.QUARANTINED), ("p 1", Reason.QUARANTINED), ("p 2", Reason.NEWER)):
        device = Device(id="d", tier="1b", engine=engine)
        assert answer(manifest("1.1.0"), bad, device)[1] is reason


def needing(**requires: Any) -> Manifest:
    m = manifest("1.1.0")
    return replace(m, models={"1b": replace(m.models["1b"], requires=Requirements(**requires))})


@pytest.mark.parametrize(
    ("wanted", "engine", "reason"),
    [
        ({"llama.cpp": ">=11000"}, "xllamacpp 2026.10.11549", Reason.NEWER),
        ({"llama.cpp": ">=12000"}, "xllamacpp 2026.10.11549", Reason.ENGINE_TOO_OLD),
        ({"llama.cpp": ">=6000"}, "llama_server 5999 (abc)", Reason.ENGINE_TOO_OLD),
        ({"llama.cpp": ">=6000"}, "llama_server 6000 (abc)", Reason.NEWER),
        ({"llama.cpp": ">=6000,<6100"}, "llama_server 6100 (abc)", Reason.ENGINE_TOO_OLD),
        ({"llama.cpp": ">=99999"}, "llama_cpp 0.3.36", Reason.NEWER),
        ({"llama_cpp": ">=0.4"}, "llama_cpp 0.3.36", Reason.ENGINE_TOO_OLD),
        ({"xllamacpp": ">=2026.9"}, "xllamacpp 2026.10.11549", Reason.NEWER),
        ({"llama.cpp": ">=99999"}, "llama_server of an unknown version", Reason.NEWER),
        ({"another": ">=7"}, "xllamacpp 2026.10.11549", Reason.NEWER),
        ({"llama.cpp": ">=99999"}, None, Reason.NEWER),
    ],
)
def test_the_engine_is_compared_with_what_the_release_needs(
    wanted: dict[str, str], engine: str | None, reason: Reason
) -> None:
    device = Device(id="d", tier="1b", engine=engine)
    given = select(needing(engines=wanted), state(slot("1.0.0")), device, NOW)
    assert given.reason is reason
    if reason is Reason.ENGINE_TOO_OLD:
        assert isinstance(given, Deferred)
        assert next(iter(wanted.values())) in given.explanation
        assert given.hint


def test_a_machine_with_too_little_memory_is_told_before_anything_is_downloaded() -> None:
    small = Device(id="d", tier="1b", memory_bytes=1_000_000_000)
    given = select(needing(ram_bytes=2_000_000_000), state(slot("1.0.0")), small, NOW)
    assert isinstance(given, Deferred)
    assert given.reason is Reason.TOO_LITTLE_MEMORY
    assert given.explanation == "1.1.0 needs 2.0 GB of memory, this machine has 1.0 GB"
    for device in (replace(small, memory_bytes=2_000_000_000), replace(small, memory_bytes=None)):
        assert select(needing(ram_bytes=2_000_000_000), state(slot("1.0.0")), device, NOW).reason is Reason.NEWER


@pytest.mark.parametrize(("base", "reason"), [("1.1.0", Reason.NEWER), ("other", Reason.UNFIT), (None, Reason.NEWER)])
def test_an_adapter_goes_on_the_base_that_it_names_and_on_no_other(base: str | None, reason: Reason) -> None:
    """llama.cpp accepts an adapter for another base of the same shape without a word."""
    m = manifest("1.1.0")
    entry = m.models["1b"]
    model = entry.release("1b", "1.1.0").model
    adapter = replace(
        model,
        role="adapter",
        name="lora.gguf",
        sha256=digest_of("lora"),
        base_sha256=digest_of(base) if base is not None else None,
    )
    given = select(
        replace(m, models={"1b": replace(entry, artifacts=(model, adapter))}), state(slot("1.0.0")), DEVICE, NOW
    )
    assert given.reason is reason
    if reason is Reason.UNFIT:
        assert digest_of("other") in given.explanation
        assert model.sha256 in given.explanation


def test_what_runs_already_is_up_to_date_whatever_its_manifest_asks_for() -> None:
    weak = Device(id="d", tier="1b", memory_bytes=1, engine="llama_server 1 (a)")
    m = needing(ram_bytes=2_000_000_000, engines={"llama.cpp": ">=2"})
    assert select(m, state(slot("1.1.0")), weak, NOW).reason is Reason.UP_TO_DATE


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
