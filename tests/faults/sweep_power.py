"""Cut the power at every point of every journey, on real ext4 and xfs; needs root, loop devices, e2fsprogs, xfsprogs.

    sweep_power.py --full                   both file systems, before and after each call that changes the disk
    sweep_power.py --every 10               each tenth of these points, and the end
    sweep_power.py --journey update --file-system xfs --until-failure

After each cut the device starts again, and `support.power_journeys.Journey.check` says what must hold.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support.power import IMAGE_BYTES, Failure, Sweep, keep_mounts_to_ourselves, scratch, why_not
from support.power_journeys import JOURNEYS, Journey, Scene


@dataclass(frozen=True, slots=True)
class Row:
    """What the cuts of one journey on one file system found."""

    journey: str
    file_system: str
    calls: int
    cuts: int
    failures: tuple[Failure, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Choice:
    """How much of it: each `every`th point; the order of calls, the cuts, or both; no further than a first failure."""

    every: int = 1
    order: bool = True
    cuts: bool = True
    until_failure: bool = False


def sweep(folder: Path, file_system: str, journey: Journey, scene: Scene, choice: Choice) -> Row:
    """Check the order of one journey's calls, and cut it."""
    started = time.monotonic()
    folder.mkdir()
    cuts = Sweep(folder, file_system, journey, scene)
    stops, wrong = cuts.stops()
    failures = wrong if choice.order else []
    # Far from each other first: what is missed shows at many points, and not at the first.
    points = sorted([*stops[:: choice.every], None], key=lambda stop: _backwards(stop.number if stop else 0))
    tried = 0
    for point in points if choice.cuts else []:
        if failures and choice.until_failure:
            break
        tried += 1
        failure = cuts.cut(point)
        failures += [failure] if failure is not None else []
    seconds = time.monotonic() - started
    return Row(journey.name, file_system, max(stop.number for stop in stops), tried, tuple(failures), seconds)


def _backwards(number: int) -> str:
    return f"{number:012b}"[::-1]


def sweep_all(journeys: Sequence[Journey], file_systems: Sequence[str], choice: Choice) -> list[Row]:
    rows: list[Row] = []
    with scratch() as folder:
        scene = Scene(folder)
        for file_system in file_systems:
            for journey in journeys:
                place = folder / f"{len(rows)}"
                row = sweep(place, file_system, journey, scene, choice)
                rows.append(row)
                print(line(row), flush=True)
                for failure in row.failures:
                    print(f"  {failure}", flush=True)
    return rows


def line(row: Row) -> str:
    each = row.seconds / max(row.cuts, 1)
    figures = f"{row.calls:7}{row.cuts:7}{len(row.failures):10}{row.seconds:9.1f}{each:8.2f}"
    return f"{row.journey:26}{row.file_system:12}{figures}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Power cuts on real file systems")
    parser.add_argument("--full", action="store_true", help="every point (the default)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each Nth point only")
    parser.add_argument("--journey", action="append", choices=[j.name for j in JOURNEYS], help="this one only")
    parser.add_argument("--file-system", action="append", choices=list(IMAGE_BYTES), help="this one only")
    parser.add_argument("--order-only", action="store_true", help="look at the order of the calls, cut nothing")
    parser.add_argument("--cuts-only", action="store_true", help="cut, whatever the order of the calls")
    parser.add_argument("--until-failure", action="store_true", help="stop a journey at its first failure")
    options = parser.parse_args()
    if reason := why_not():
        print(f"power cuts: not here: {reason}", file=sys.stderr)
        return 2
    keep_mounts_to_ourselves()
    logging.getLogger("overair").setLevel(logging.CRITICAL)  # quarantines are what is asked for
    print(f"{'journey':26}{'file system':12}{'calls':>7}{'cuts':>7}{'failures':>10}{'seconds':>9}{'each':>8}")
    chosen = [j for j in JOURNEYS if options.journey is None or j.name in options.journey]
    choice = Choice(
        every=1 if options.full else options.every,
        order=not options.cuts_only,
        cuts=not options.order_only,
        until_failure=options.until_failure,
    )
    file_systems = options.file_system or list(IMAGE_BYTES)
    rows = sweep_all(chosen, file_systems, choice)
    for file_system in file_systems:
        of_it = [row for row in rows if row.file_system == file_system]
        calls, cuts = sum(row.calls for row in of_it), sum(row.cuts for row in of_it)
        print(f"{'all journeys':26}{file_system:12}{calls:7}{cuts:7}{sum(len(row.failures) for row in of_it):10}")
    return 1 if any(row.failures for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
