"""Lets each system call of the journeys fail, lets writes lie, and turns bits round on the disk.

- Each call that opens or changes fails once with each of six errors; those that only look fail with two. Where a disk
  stays broken, all later calls of that name fail as well.
- A lying write says that it has written three bytes, and has written none: the file that comes of it is shorter than
  it should be, or begins with a hole. No program can see that at once, so what counts is what comes afterwards: the
  state is read from its other copy, metadata is fetched again, a blob is refused or found and fetched again by
  `verify --repair`.
- A bit that turns round on the disk is found when the file is read with a checksum or a signature: the state, the
  metadata, a continued download. In a model it is found by `verify`; sessions do not read gigabytes twice.

In all of them the process ends well or with an error of ours, never with another, and what holds after a kill holds.

One point in so many:  PYTHONPATH=src:tests python tests/faults/sweep_calls.py
All of them:           PYTHONPATH=src:tests python tests/faults/sweep_calls.py --full
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from support.sweep_flips import flips, try_flip
from support.sweep_journeys import JOURNEYS
from support.sweep_points import (
    READS,
    WRITES,
    Point,
    Table,
    calls_to_try,
    file_system_of,
    on_the_store,
    sweep,
    try_point,
)
from support.sweep_scene import Scene, make_scene

ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EACCES", "EMFILE")
LOOKING = ("EIO", "EACCES")
# What a disk that stays broken does to all calls of a name.
BROKEN = {"write": "ENOSPC", "fsync": "EIO", "rename": "EROFS", "unlink": "EROFS", "link": "ENOSPC", "mkdir": "EROFS"}
# How many points the quick sweep takes one of; a prime, so that it meets every kind.
QUICK = {"a call fails": 97, "calls go on failing": 11, "a write lies": 7, "a bit turns round": 7}


def failing(scene: Scene, folder: Path) -> list[Point]:
    """Each call of each journey, with each error."""
    return [
        Point(journey=journey.name, call=call, fault=f"error={error}")
        for journey in JOURNEYS.values()
        for call in calls_to_try(scene, journey, [*WRITES, *READS], folder)
        for error in (ERRORS if call.name in {*WRITES, "openat"} else LOOKING)
    ]


def staying_broken(scene: Scene, folder: Path) -> list[Point]:
    """Each call of each journey that changes the disk, and all of its name that follow."""
    return [
        Point(journey=journey.name, call=call, fault=f"error={BROKEN[call.name]}", onwards=True)
        for journey in JOURNEYS.values()
        for call in on_the_store(calls_to_try(scene, journey, list(BROKEN), folder), folder)
    ]


def lying(scene: Scene, folder: Path) -> list[Point]:
    """Each write of each journey."""
    return [
        Point(journey=journey.name, call=call, fault="retval=3")
        for journey in JOURNEYS.values()
        for call in on_the_store(calls_to_try(scene, journey, ["write"], folder), folder)
        if ".pid" not in call.line
    ]


def main(arguments: Sequence[str]) -> int:
    """Sweep; the exit code says whether all was well."""
    parser = argparse.ArgumentParser(description="Let every system call fail that touches a store.")
    parser.add_argument("--full", action="store_true", help="every point, not a few of them")
    parser.add_argument("--at", type=Path, help="a folder on the file system to try it on")
    parser.add_argument("--kind", choices=QUICK, help="one kind of fault")
    chosen = parser.parse_args(arguments)
    failed = 0
    with tempfile.TemporaryDirectory(dir=chosen.at) as name:
        folder = Path(name).resolve()
        scene = make_scene(folder / "scene")
        for kind, every in QUICK.items():
            if chosen.kind in {None, kind}:
                failed |= _sweep(kind, scene, folder, 1 if chosen.full else every)
    return failed


def _sweep(kind: str, scene: Scene, folder: Path, every: int) -> int:
    table = Table(file_system_of(folder))
    if kind == "a bit turns round":
        sweep(scene, flips(scene)[::every], table, try_flip)
    else:
        make = {"a call fails": failing, "calls go on failing": staying_broken, "a write lies": lying}[kind]
        sweep(scene, make(scene, folder)[::every], table, try_point)
    failed = table.show(kind)
    print("    ended:", ", ".join(f"{count} {how}" for how, count in sorted(table.ends.items())))
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
