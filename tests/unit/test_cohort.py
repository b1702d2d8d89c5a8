"""Which devices a rollout reaches."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from overair.core.cohort import bucket, in_cohort, reach
from overair.model.manifest import Rollout

START = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
DEVICES = [str(UUID(int=i * 0x9E3779B97F4A7C15)) for i in range(20_000)]


def test_the_vector_of_the_design() -> None:
    assert bucket("r-2026-11-23a", "6f1c2d3e-4a5b-4c6d-8e7f-000000000100") == 3417


def test_the_boundary_is_exclusive() -> None:
    device = "6f1c2d3e-4a5b-4c6d-8e7f-000000000100"
    assert not in_cohort(Rollout(basis_points=3417, salt="r-2026-11-23a"), device, START)
    assert in_cohort(Rollout(basis_points=3418, salt="r-2026-11-23a"), device, START)


@pytest.mark.parametrize("basis_points", [1, 100, 1000, 5000, 9999])
def test_a_share_of_devices_is_reached(basis_points: int) -> None:
    share = sum(bucket("salt", device) < basis_points for device in DEVICES) / len(DEVICES)
    expected = basis_points / 10_000
    # Five standard deviations of a binomial distribution, so chance alone does not fail this.
    assert abs(share - expected) <= 5 * (expected * (1 - expected) / len(DEVICES)) ** 0.5


def test_nobody_and_everybody_are_exact() -> None:
    assert not any(in_cohort(Rollout(basis_points=0, salt="s"), d, START) for d in DEVICES[:2000])
    assert all(in_cohort(Rollout(basis_points=10_000, salt="s"), d, START) for d in DEVICES[:2000])


def test_a_rollout_that_grows_keeps_those_it_had() -> None:
    reached = [
        {d for d in DEVICES[:2000] if in_cohort(Rollout(basis_points=b, salt="s"), d, START)} for b in (500, 2000)
    ]
    assert reached[0] < reached[1]


def test_a_fresh_salt_draws_other_devices() -> None:
    first = {d for d in DEVICES if bucket("one", d) < 1000}
    second = {d for d in DEVICES if bucket("two", d) < 1000}
    # Independent draws of 10% share 10% of a draw; the same devices each time would share all of it.
    assert 0.07 < len(first & second) / len(first) < 0.13


def test_salt_and_device_do_not_run_into_each_other() -> None:
    assert bucket("ab", "c") != bucket("a", "bc")


@pytest.mark.parametrize(
    ("after_s", "expected"),
    [(-1, 0), (0, 0), (1, 1), (1800, 2000), (3599, 3998), (3600, 4000), (10**9, 4000)],
)
def test_a_ramp_grows_evenly_from_none(after_s: int, expected: int) -> None:
    rollout = Rollout(basis_points=4000, salt="s", starts_at="2026-11-23T10:00:00Z", ramp_seconds=3600)
    assert reach(rollout, START + timedelta(seconds=after_s)) == expected


def test_without_a_ramp_the_share_is_whole_from_the_start() -> None:
    rollout = Rollout(basis_points=4000, salt="s", starts_at="2026-11-23T10:00:00Z")
    assert reach(rollout, START - timedelta(seconds=1)) == 0
    assert reach(rollout, START) == 4000
    assert reach(Rollout(basis_points=4000, salt="s"), START) == 4000
