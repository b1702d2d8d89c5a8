"""Turns one bit of one file of a store round, lets a day pass, and then does what the error messages say."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overair.errors import OverairError
from overair.store.store import Store
from support.sweep_check import check_files, run_session
from support.sweep_journeys import JOURNEYS, Journey
from support.sweep_process import BUG, Say, run
from support.sweep_scene import GOOD, NEW, DigestEngine, Scene, copy_store, flip

# Where the device is in the end, when it has done all that it is offered.
_ENDS: Final = {"proven": NEW, "half": NEW, "pending": NEW, "trial": NEW, "confirmed": NEW} | {
    "quarantined": GOOD,
    "crashed": GOOD,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """A bit to turn round.

    Args:
        journey: The prepared store, as the table calls it.
        path: The file, relative to the store.
        offset: The byte.
    """

    journey: str
    path: str
    offset: int


def flips(scene: Scene, _folder: Path, every: int) -> list[Flip]:
    """Bytes of each file of each store, the first and the last among them."""
    points = [
        Flip(journey=name, path=path.relative_to(scene.start(name)).as_posix(), offset=offset)
        for name in _ENDS
        for path in sorted(scene.start(name).rglob("*"))
        if path.is_file() and path.stat().st_size
        for offset in _offsets(path)
    ]
    return points[::every]


def _offsets(path: Path) -> list[int]:
    """More of the state than of other files: it decides."""
    last, steps = path.stat().st_size - 1, 11 if path.name.startswith("state.") else 2
    return sorted({last * step // steps for step in range(steps + 1)})


def try_flip(scene: Scene, point: Flip, folder: Path) -> tuple[str, str]:
    """How the worst call of the day ended, and what is wrong in the end."""
    store = copy_store(scene.start(point.journey), folder / "store")
    flip(store / point.path, point.offset)
    if Store(store).read() != Store(scene.start(point.journey)).read():
        return "another state", f"{point}\n    the state is another: nothing says so"
    worst = ""
    for what in (_status, _use, _update, _verify, _collect):
        ended = run(lambda say, what=what: what(scene, store, say))  # type: ignore[misc]
        if ended.code == BUG or ended.code < 0:
            return "bug", f"{point}: {what.__name__} {' | '.join(ended.error.splitlines()[-9:])}"
        worst = worst or (ended.error.partition(":")[0] if ended.code else "")
    ended = run(lambda _say: _mend(scene, point, store))
    wrong = f"{point}\n    {' | '.join(ended.error.splitlines()[-9:])}" if ended.code else ""
    shutil.rmtree(store)
    return worst or "succeeded", wrong


def _status(scene: Scene, store: Path, _say: Say) -> None:
    scene.open(store).status()


def _use(scene: Scene, store: Path, _say: Say) -> None:
    with scene.open(store) as updater, updater.session(DigestEngine()) as session:
        session.generate("hello")


def _update(scene: Scene, store: Path, _say: Say) -> None:
    with scene.open(store) as updater:
        scene.update(updater)


def _verify(scene: Scene, store: Path, _say: Say) -> None:
    with scene.open(store) as updater:
        updater.verify(repair=True, folder=scene.site)


def _collect(scene: Scene, store: Path, _say: Say) -> None:
    with scene.open(store) as updater:
        updater.collect_garbage()


def _mend(scene: Scene, point: Flip, store: Path) -> None:
    """Set the device up again, update, repair: then all is well."""
    try:
        with scene.set_up(store) as updater:
            scene.update(updater)
            updater.verify(repair=True, folder=scene.site)
    except OverairError as error:
        raise AssertionError(f"cannot be mended: {type(error).__name__}: {error.message}") from error
    like = JOURNEYS["swap"]
    journey = Journey(name=like.name, start="", steps=like.steps, runs=like.runs, ends=_ENDS[point.journey])
    ran = run_session(scene, journey, store)
    assert ran == journey.ends, f"{ran or 'nothing'} runs in the end, expected {journey.ends}"
    check_files(Store(store), journey)
