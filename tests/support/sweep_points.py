"""The points of a sweep: which calls of which journey, tried on copies of the prepared stores, two at once."""

import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import overair.trust.client  # noqa: F401 - every process is a fork of this one, and finds it loaded
from overair.errors import TrustError
from support.sweep_check import check
from support.sweep_journeys import JOURNEYS, Journey
from support.sweep_process import BUG, Call, Ended, Say, Work, calls_of, run_injected
from support.sweep_scene import DigestEngine, Scene, copy_store

AT_ONCE: Final = 2
# The calls that change a disk or a lock.
_NAMES: Final = ("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir")
_BYTES: Final = ("write", "pwrite64", "ftruncate", "fsync", "fdatasync")
WRITES: Final = (*_BYTES, *_NAMES, "chmod", "fchmod", "fchmodat", "utimensat", "flock")
# Those that can fail, and those that are cheap to be killed at as well.
READS: Final = ("openat", "close", "read", "pread64", "getdents64", "newfstatat", "fstat", "statx", "lseek", "statfs")
_CHANGES_NOTHING: Final = frozenset({"fsync", "fdatasync", "flock", *READS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One accident: a journey, the call at which it happens, and what happens.

    Args:
        journey: The name of the journey.
        call: The call.
        fault: As strace spells it: `signal=SIGKILL`, `error=EIO`, `retval=3`.
        onwards: It happens to all later calls of this name as well.
        then: A second accident, in the session that follows.
    """

    journey: str
    call: Call
    fault: str = "signal=SIGKILL"
    onwards: bool = False
    then: Call | None = None

    @property
    def blunt(self) -> bool:
        """Whether a release on trial may have lost its tries: it died twice, or the engine could not read it."""
        return self.then is not None or ("/releases/" in self.call.line and "error=" in self.fault)

    def __str__(self) -> str:
        """What to say of it when it failed."""
        then = f", then {self.then.name} {self.then.number}" if self.then else ""
        again = "+" if self.onwards else ""
        return f"{self.journey}: {self.fault} at {self.call.name} {self.call.number}{again}{then}: {self.call.line}"


@dataclass(slots=True)
class Table:
    """What was tried, and what failed."""

    title: str
    file_system: str
    tried: dict[str, int] = field(default_factory=dict)
    failed: dict[str, list[str]] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def add(self, journey: str, ended: str, wrong: str) -> None:
        """Count a point."""
        self.tried[journey] = self.tried.get(journey, 0) + 1
        self.ends[ended] = self.ends.get(ended, 0) + 1
        if wrong:
            self.failed.setdefault(journey, []).append(wrong)

    def show(self) -> int:
        """Print it; the exit code of the sweep."""
        for wrongs in self.failed.values():
            print("\n".join(wrongs))
        print(f"{self.title:24} {'file system':12} {'points':>7} {'failures':>9}")
        for journey, count in self.tried.items():
            print(f"  {journey:22} {self.file_system:12} {count:7} {len(self.failed.get(journey, [])):9}")
        failures = sum(map(len, self.failed.values()))
        total = sum(self.tried.values())
        seconds = time.monotonic() - self.began
        print(f"  {'all':22} {self.file_system:12} {total:7} {failures:9}   in {seconds:.0f} s")
        print("  ended:", ", ".join(f"{count} {how}" for how, count in sorted(self.ends.items())), flush=True)
        return 1 if failures or not total else 0


def file_system_of(folder: Path) -> str:
    """The type of the file system that holds a folder."""
    ran = subprocess.run(
        ["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=True, timeout=10
    )
    return ran.stdout.strip()


def begin(scene: Scene, journey: Journey, store: Path) -> Path:
    """The store that a journey starts from."""
    if journey.start is not None:
        return copy_store(scene.start(journey.start), store)
    if store.exists():
        shutil.rmtree(store)
    return store


def calls_to_try(scene: Scene, journey: Journey, names: Sequence[str], folder: Path) -> list[Call]:
    """The calls of these names that a journey makes on its store or on the repository."""
    store = begin(scene, journey, folder / "counted")
    return _calls_in(lambda say: journey.steps(scene, store, say), names, store, scene.site)


def on_the_store(calls: Iterable[Call], folder: Path) -> list[Call]:
    """Those of the calls that `calls_to_try` found that touch the store."""
    return [call for call in calls if str(folder / "counted") in call.line]


def _calls_in(work: Work, names: Sequence[str], *below: Path) -> list[Call]:
    """The calls of these names in a piece of work that touch these folders."""
    ended, calls = calls_of(work, tuple(names), below[0].with_name("calls.log"))
    if ended.code:
        raise RuntimeError(f"the journey does not end well by itself: {ended.code} {ended.error}")
    return [call for call in calls if any(str(folder) in call.line for folder in below)]


def changing(calls: Iterable[Call]) -> list[Call]:
    """The calls before which the disk is another than before the call before: the others leave the same behind."""
    return [c for c in calls if c.name not in _CHANGES_NOTHING or (c.name == "openat" and "O_CREAT" in c.line)]


def try_point(scene: Scene, point: Point, folder: Path) -> tuple[str, str]:
    """How the process ended, and what is wrong afterwards."""
    journey, log = JOURNEYS[point.journey], folder / "log"
    store = begin(scene, journey, folder / "store")
    ended = run_injected(
        lambda say: journey.steps(scene, store, say), point.call, point.fault, log, onwards=point.onwards
    )
    wrong = _unexpected(point, ended)
    if not wrong and point.then is not None:
        second = run_injected(lambda say: _recovery(scene, journey, store, say), point.then, point.fault, log)
        wrong = _unexpected(point, second)
        ended = Ended(second.code, (*ended.said, *second.said), second.error)
    if not wrong:
        twin = folder / "twin"
        if twin.exists():
            shutil.rmtree(twin)
        if store.exists():
            copy_store(store, twin)
        wrong = check(scene, journey, ended.said, store, twin, blunt=point.blunt)
    kind = "killed" if ended.code < 0 else ended.error.partition(":")[0] or "succeeded"
    return kind, f"{point}\n    {wrong}" if wrong else ""


def _recovery(scene: Scene, journey: Journey, store: Path, say: Say) -> None:
    """What an app does when it is started again."""
    engine = DigestEngine(journey.refused)
    with scene.open(store) as updater, updater.session(engine) as session:
        session.generate("hello")
        say(f"current {engine.ran}")


def recovery_calls(scene: Scene, point: Point, names: Sequence[str], folder: Path) -> list[Call]:
    """The calls that the session after an accident makes on the store."""
    journey = JOURNEYS[point.journey]
    store = begin(scene, journey, folder / "counted")
    run_injected(lambda say: journey.steps(scene, store, say), point.call, point.fault, folder / "log")
    return _calls_in(lambda say: _recovery(scene, journey, store, say), names, store)


def _unexpected(point: Point, ended: Ended) -> str:
    """What is wrong with the way in which the process ended."""
    if ended.code == -9:
        return "" if "SIGKILL" in point.fault and not ended.error else f"ended by a signal: {ended.error}"
    if "SIGKILL" in point.fault:
        return f"was not killed: {ended.code} {ended.error}"
    if ended.code == 0 or (ended.code >= TrustError.exit_code and ended.code != BUG):
        return ""
    return f"ended with {ended.code}: {' | '.join(ended.error.splitlines()[-9:])}"


class Placed(Protocol):
    """Something to try that belongs to a line of the table."""

    @property
    def journey(self) -> str:
        """The line."""


P = TypeVar("P", bound=Placed)
Try = Callable[[Scene, P, Path], tuple[str, str]]


def sweep(scene: Scene, points: Sequence[P], table: Table, attempt: Try[P]) -> Table:
    """Try all points, and count them in the table."""
    processes = multiprocessing.get_context("fork")
    with processes.Pool(AT_ONCE, _begin_worker, (scene, attempt)) as pool:
        for journey, kind, wrong in pool.imap_unordered(_try_in_worker, points, chunksize=8):
            table.add(journey, kind, wrong)
    return table


_worker: list[tuple[Scene, Any, Path]] = []


def _begin_worker(scene: Scene, attempt: Try[Any]) -> None:
    folder = scene.folder.parent / f"worker-{os.getpid()}"
    folder.mkdir()
    _worker.append((scene, attempt, folder))


def _try_in_worker(point: Placed) -> tuple[str, str, str]:
    scene, attempt, folder = _worker[0]
    kind, wrong = attempt(scene, point, folder)
    return point.journey, kind, wrong
