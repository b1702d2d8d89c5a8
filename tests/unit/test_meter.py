"""The bar of a download: one for a whole bundle, never backwards, not too often."""

import hashlib

from overair.device.meter import Meter
from overair.model.progress import Activity, Progress
from overair.model.release import Artifact, Release

A, B = (
    Artifact(role="model", name=name, url="u", size_bytes=size, sha256=hashlib.sha256(name.encode()).hexdigest())
    for name, size in (("a.gguf", 1000), ("b.gguf", 500))
)
RELEASE = Release(tier="1b", version="1.0.0", artifacts=(A, B))


def test_one_bar_goes_over_all_artifacts_and_ends_full() -> None:
    seen: list[Progress] = []
    meter = Meter(RELEASE, seen.append)
    meter.report(A, 400)
    meter.finish(A)
    meter.finish(B)
    assert seen[0].bytes_done == 400
    assert (seen[-1].bytes_done, seen[-1].bytes_total, seen[-1].name) == (1500, 1500, "b.gguf")
    assert {p.bytes_total for p in seen} == {1500}


def test_it_stands_still_while_a_damaged_chunk_is_fetched_again() -> None:
    seen: list[Progress] = []
    meter = Meter(RELEASE, seen.append)
    meter.report(A, 800)
    meter.turn_to(Activity.VERIFYING)
    meter._said_at = 0.0
    meter.report(A, 600)
    meter.finish(A)
    meter.finish(B)
    done = [p.bytes_done for p in seen]
    assert done == sorted(done)
    assert done[:3] == [800, 800, 800]


def test_a_thousand_reports_at_once_are_one_call() -> None:
    seen: list[Progress] = []
    meter = Meter(RELEASE, seen.append)
    for done in range(1000):
        meter.report(A, done)
    assert len(seen) == 1


def test_who_waits_says_for_what_and_has_no_rate() -> None:
    seen: list[Progress] = []
    meter = Meter(RELEASE, seen.append)
    meter.report(A, 10)
    meter.wait(("on battery",))
    assert seen[-1].activity is Activity.WAITING
    assert seen[-1].waiting_for == ("on battery",)
    assert (seen[-1].bytes_done, seen[-1].bytes_per_second) == (10, None)


def test_nobody_listens_and_nothing_happens() -> None:
    meter = Meter(RELEASE, None)
    meter.report(A, 10)
    meter.finish(A)
    meter.wait(("x",))
