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

import sys
from pathlib import Path

from support.sweep_flips import flips, try_flip
from support.sweep_journeys import JOURNEYS
from support.sweep_main import Kind, main
from support.sweep_points import READS, WRITES, Point, calls_to_try, on_the_store, try_point
from support.sweep_scene import Scene

ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EACCES", "EMFILE")
LOOKING = ("EIO", "EACCES")
# What a disk that stays broken does to all calls of a name.
BROKEN = {"write": "ENOSPC", "fsync": "EIO", "rename": "EROFS", "unlink": "EROFS", "link": "ENOSPC", "mkdir": "EROFS"}


def failing(scene: Scene, folder: Path, every: int) -> list[Point]:
    """Each call of each journey, with each error."""
    points = [
        Point(journey=journey.name, call=call, fault=f"error={error}")
        for journey in JOURNEYS.values()
        for call in calls_to_try(scene, journey, [*WRITES, *READS], folder)
        for error in (ERRORS if call.name in {*WRITES, "openat"} else LOOKING)
    ]
    return points[::every]


def staying_broken(scene: Scene, folder: Path, every: int) -> list[Point]:
    """Each call of each journey that changes the disk, and all of its name that follow."""
    points = [
        Point(journey=journey.name, call=call, fault=f"error={BROKEN[call.name]}", onwards=True)
        for journey in JOURNEYS.values()
        for call in on_the_store(calls_to_try(scene, journey, list(BROKEN), folder), folder)
    ]
    return points[::every]


def lying(scene: Scene, folder: Path, every: int) -> list[Point]:
    """Each write of each journey."""
    points = [
        Point(journey=journey.name, call=call, fault="retval=3")
        for journey in JOURNEYS.values()
        for call in on_the_store(calls_to_try(scene, journey, ["write"], folder), folder)
        if ".pid" not in call.line
    ]
    return points[every // 2 :: every]


# The shares of the quick sweep are primes, so that it meets every error and every call.
KINDS = {
    "a call fails": Kind(points=failing, attempt=try_point, every=131),
    "calls go on failing": Kind(points=staying_broken, attempt=try_point, every=11),
    "a write lies": Kind(points=lying, attempt=try_point, every=2),
    "a bit turns round": Kind(points=flips, attempt=try_flip, every=7),
}

if __name__ == "__main__":
    sys.exit(main(KINDS, "Let every system call fail that touches a store.", sys.argv[1:]))
