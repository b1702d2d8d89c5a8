"""Kills a process at each of its system calls that touch a store, and looks at what is left.

A kill takes effect before its call is executed. Besides the calls that change the disk or a lock, those that open and
close files are tried: they leave the same disk as the next call that changes it, and cost little.

The double crash kills a second time, in the session that finds what the first kill left. There, only the calls count
before which the disk is another than before.

One point in so many:  PYTHONPATH=src:tests python tests/faults/sweep_kill.py
All of them:           PYTHONPATH=src:tests python tests/faults/sweep_kill.py --full
"""

import sys
from pathlib import Path

from support.sweep_journeys import JOURNEYS
from support.sweep_main import Kind, main
from support.sweep_points import WRITES, Point, calls_to_try, changing, on_the_store, recovery_calls, try_point
from support.sweep_scene import Scene

CHANGES = [*WRITES, "openat"]
TWICE = ("swap", "rollback")


def once(scene: Scene, folder: Path, every: int) -> list[Point]:
    """A kill at each call of each journey."""
    points = [
        Point(journey=journey.name, call=call)
        for journey in JOURNEYS.values()
        for call in on_the_store(calls_to_try(scene, journey, [*CHANGES, "close"], folder), folder)
    ]
    return points[::every]


def twice(scene: Scene, folder: Path, every: int) -> list[Point]:
    """A second kill at each call of the session after each first kill of a swap or a rollback."""
    points: list[Point] = []
    for name in TWICE:
        calls = changing(on_the_store(calls_to_try(scene, JOURNEYS[name], CHANGES, folder), folder))
        # Every first kill costs a counting run: a sample takes some of them, and some of the second kills of each.
        for call in calls[:: max(1, every // 10)]:
            first = Point(journey=name, call=call)
            again = changing(recovery_calls(scene, first, CHANGES, folder))
            points += [Point(journey=name, call=call, then=then) for then in again]
    return points[:: min(every, 10)]


KINDS = {
    "killed once": Kind(points=once, attempt=try_point, every=10),
    "killed twice": Kind(points=twice, attempt=try_point, every=100),
}

if __name__ == "__main__":
    sys.exit(main(KINDS, "Kill a process at every system call that touches a store.", sys.argv[1:]))
