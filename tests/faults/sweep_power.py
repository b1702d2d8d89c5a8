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

from support.power import IMAGE_BYTES, Failure, Sweep, scratch, why_not
from support.power_journeys import JOURNEYS, Journey, Scene


@dataclass(frozen=True, slots=True)
class Row:
    """What the cuts of one journey on one file system found."""

    journey: str
    file_system: str
    cuts: int
    failures: tuple[Failure, ...]
    seconds: float


def sweep(folder: Path, file_system: str, journey: Journey, scene: Scene, *, every: int, until_failure: bool) -> Row:
    """Cut one journey at each `every`th point and at its end."""
    started = time.monotonic()
    folder.mkdir()
    cuts = Sweep(folder, file_system, journey, scene)
    stops = [*cuts.stops()[::every], None]
    tried, failures = 0, []
    for stop in stops:
        tried += 1
        failure = cuts.cut(stop)
        if failure is not None:
            failures.append(failure)
            if until_failure:
                break
    return Row(journey.name, file_system, tried, tuple(failures), time.monotonic() - started)


def sweep_all(
    journeys: Sequence[Journey], file_systems: Sequence[str], *, every: int, until_failure: bool
) -> list[Row]:
    rows: list[Row] = []
    with scratch() as folder:
        scene = Scene(folder)
        for file_system in file_systems:
            for journey in journeys:
                place = folder / f"{len(rows)}"
                row = sweep(place, file_system, journey, scene, every=every, until_failure=until_failure)
                rows.append(row)
                print(line(row), flush=True)
                for failure in row.failures:
                    print(f"  {failure}", flush=True)
    return rows


def line(row: Row) -> str:
    each = row.seconds / row.cuts
    return f"{row.journey:26}{row.file_system:12}{row.cuts:6}{len(row.failures):10}{row.seconds:9.1f}{each:8.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Power cuts on real file systems")
    parser.add_argument("--full", action="store_true", help="every point (the default)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each Nth point only")
    parser.add_argument("--journey", action="append", choices=[j.name for j in JOURNEYS], help="this one only")
    parser.add_argument("--file-system", action="append", choices=list(IMAGE_BYTES), help="this one only")
    parser.add_argument("--until-failure", action="store_true", help="stop a journey at its first failure")
    options = parser.parse_args()
    if reason := why_not():
        print(f"power cuts: not here: {reason}", file=sys.stderr)
        return 2
    logging.getLogger("overair").setLevel(logging.CRITICAL)  # quarantines are what is asked for
    print(f"{'journey':26}{'file system':12}{'cuts':>6}{'failures':>10}{'seconds':>9}{'each':>8}")
    chosen = [j for j in JOURNEYS if options.journey is None or j.name in options.journey]
    every = 1 if options.full else options.every
    rows = sweep_all(chosen, options.file_system or list(IMAGE_BYTES), every=every, until_failure=options.until_failure)
    for file_system in IMAGE_BYTES:
        of_it = [row for row in rows if row.file_system == file_system]
        if of_it:
            failed = sum(len(row.failures) for row in of_it)
            print(f"{'all journeys':26}{file_system:12}{sum(row.cuts for row in of_it):6}{failed:10}")
    return 1 if any(row.failures for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
