"""Kills a process at each of its system calls that touch a store, and looks at what is left.

A kill takes effect before its call is executed. Besides the calls that change the disk or a lock, those that open and
close files are tried: they leave the same disk as the next call that changes it, and cost little.

The double crash kills a second time, in the session that finds what the first kill left. There, only the calls count
before which the disk is another than before.

One point in ten:  PYTHONPATH=src:tests python tests/faults/sweep_kill.py
All of them:       PYTHONPATH=src:tests python tests/faults/sweep_kill.py --full
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from support.sweep_journeys import JOURNEYS
from support.sweep_points import (
    WRITES,
    Point,
    Table,
    calls_to_try,
    changing,
    file_system_of,
    on_the_store,
    recovery_calls,
    sweep,
    try_point,
)
from support.sweep_scene import Scene, make_scene

QUICK = 10
QUICK_TWICE = 100
TWICE = ("swap", "rollback")


def kill_points(scene: Scene, folder: Path, every: int) -> list[Point]:
    """One kill of so many at each call of each journey."""
    points = [
        Point(journey=journey.name, call=call)
        for journey in JOURNEYS.values()
        for call in on_the_store(calls_to_try(scene, journey, [*WRITES, "openat", "close"], folder), folder)
    ]
    return points[::every]


def double_points(scene: Scene, folder: Path, every: int) -> list[Point]:
    """One second kill of so many, after each first kill of a swap or a rollback."""
    points: list[Point] = []
    names = [*WRITES, "openat"]
    for name in TWICE:
        calls = on_the_store(calls_to_try(scene, JOURNEYS[name], names, folder), folder)
        first = [Point(journey=name, call=call) for call in changing(calls)]
        for point in first[:: max(1, every // 10)]:
            for then in changing(recovery_calls(scene, point, names, folder)):
                points.append(Point(journey=name, call=point.call, then=then))
    return points[:: min(every, 10)]


def main(arguments: Sequence[str]) -> int:
    """Sweep; the exit code says whether all was well."""
    parser = argparse.ArgumentParser(description="Kill a process at every system call that touches a store.")
    parser.add_argument("--full", action="store_true", help="every point, not one in ten")
    parser.add_argument("--at", type=Path, help="a folder on the file system to try it on")
    parser.add_argument("--only", choices=JOURNEYS, help="one journey")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=chosen.at) as name:
        folder = Path(name).resolve()
        scene = make_scene(folder / "scene")
        single = kill_points(scene, folder, 1 if chosen.full else QUICK)
        double = double_points(scene, folder, 1 if chosen.full else QUICK_TWICE)
        failed = 0
        for title, points in (("killed once", single), ("killed twice", double)):
            wanted = [point for point in points if chosen.only in {None, point.journey}]
            if wanted:
                failed |= sweep(scene, wanted, Table(file_system_of(folder)), try_point).show(title)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
