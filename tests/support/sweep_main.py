"""The command of a sweep: which kinds of accidents, how many of their points, and on which file system."""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.sweep_points import Table, Try, file_system_of, sweep
from support.sweep_scene import Scene, make_scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of accident.

    Args:
        points: All its points, or one of so many.
        attempt: Tries one.
        every: How many points the quick sweep takes one of.
    """

    points: Callable[[Scene, Path, int], Sequence[Any]]
    attempt: Try[Any]
    every: int


def main(kinds: Mapping[str, Kind], description: str, arguments: Sequence[str]) -> int:
    """Sweep; the exit code says whether all was well."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--full", action="store_true", help="every point, not one in so many")
    parser.add_argument("--at", type=Path, help="a folder on the file system to try it on")
    parser.add_argument("--kind", choices=kinds, help="one kind of accident")
    chosen = parser.parse_args(arguments)
    failed = 0
    with tempfile.TemporaryDirectory(dir=chosen.at) as name:
        folder = Path(name).resolve()
        scene = make_scene(folder / "scene")
        for title, kind in kinds.items():
            if chosen.kind in {None, title}:
                table = Table(title, file_system_of(folder))
                points = kind.points(scene, folder, 1 if chosen.full else kind.every)
                failed |= sweep(scene, points, table, kind.attempt).show()
    return failed
