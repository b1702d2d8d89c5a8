"""The journeys of the sweeps: each begins at a prepared store, and says what it has done as soon as a call returned."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from overair.device.updater import Updater
from support.sweep_process import Say
from support.sweep_scene import GOOD, NEW, DigestEngine, Scene

BAD_NEW: Final = frozenset({NEW})


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """A journey.

    Args:
        name: What it is called.
        start: The prepared store that it begins at; None: no folder at all.
        steps: The journey itself.
        runs: The versions of which one runs when it was interrupted anywhere and a session starts.
        ends: The version that runs once it was completed.
        refused: The versions that do not load, in it and after it.
        again: When it had done its work before it was interrupted, running it again may end in this error.
    """

    name: str
    start: str | None
    steps: Callable[[Scene, Path, Say], None]
    runs: frozenset[str]
    ends: str
    refused: frozenset[str] = field(default=frozenset())
    again: str = ""

    @property
    def falls_back_to(self) -> str:
        """The version that runs when what is on trial has no tries left; empty: none."""
        return "" if self.start is None else GOOD


def _install(scene: Scene, store: Path, say: Say) -> None:
    with scene.set_up(store):
        say("set up")
        _update(scene, store, say)
    _use(scene, store, say)


def _update(scene: Scene, store: Path, say: Say) -> None:
    with scene.open(store) as updater:
        scene.update(updater)
        pending = updater.status().pending
    if pending is not None:
        say(f"staged {pending.version}")


def _swap(scene: Scene, store: Path, say: Say) -> None:
    with scene.open(store) as updater, updater.session(DigestEngine()) as session:
        say(f"swapped {session.bundle.version}")


def _use(scene: Scene, store: Path, say: Say) -> None:
    engine = DigestEngine()
    with scene.open(store) as updater, updater.session(engine) as session:
        session.generate("hello")
        if not updater.status().trial:
            say(f"confirmed {engine.ran}")


def _failed_load(scene: Scene, store: Path, say: Say) -> None:
    with scene.open(store) as updater, updater.session(DigestEngine(BAD_NEW)) as session:
        if any(entry.version == NEW for entry in updater.status().quarantine):
            say(f"quarantined {NEW}")
        session.generate("hello")


def _rollback(scene: Scene, store: Path, say: Say) -> None:
    with scene.open(store) as updater:
        status = updater.rollback()
        say(f"quarantined {status.quarantine[-1].version}")
        if status.current is not None:
            say(f"current {status.current.version}")


def _after_crash(scene: Scene, store: Path, say: Say) -> None:
    with scene.open(store) as updater, updater.session(DigestEngine()) as session:
        say(f"current {session.bundle.version}")
        say(f"quarantined {NEW}")
        session.generate("hello")


def _repair(scene: Scene, store: Path, say: Say) -> None:
    with scene.open(store) as updater:
        found = updater.verify(repair=True, folder=scene.site)
        if not found.damaged:
            say("sound")


def _collect(scene: Scene, store: Path, say: Say) -> None:
    with scene.open(store) as updater:
        updater.collect_garbage()
        say("collected")


def _recover(scene: Scene, store: Path, say: Say) -> None:
    with scene.open(store) as updater:
        updater.recover()
        say("recovered")
        say(f"quarantined {NEW}")


def _settings(_scene: Scene, store: Path, say: Say) -> None:
    with Updater(store, app_version="3.0.0"):
        say("set up")


def _external(scene: Scene, store: Path, say: Say) -> None:
    with scene.open(store) as updater:
        say(f"swapped {updater.swap().bundle.version}")
        updater.confirm()
        say(f"confirmed {NEW}")


def _both(*versions: str) -> frozenset[str]:
    return frozenset(versions)


JOURNEYS: Final = {
    journey.name: journey
    for journey in (
        Journey(name="install", start=None, steps=_install, runs=_both("", NEW), ends=NEW),
        Journey(name="update", start="proven", steps=_update, runs=_both(GOOD, NEW), ends=NEW),
        Journey(name="continue", start="half", steps=_update, runs=_both(GOOD, NEW), ends=NEW),
        Journey(name="swap", start="pending", steps=_swap, runs=_both(NEW), ends=NEW),
        Journey(name="confirm", start="trial", steps=_use, runs=_both(NEW), ends=NEW),
        Journey(
            name="rollback",
            start="confirmed",
            steps=_rollback,
            runs=_both(GOOD, NEW),
            ends=GOOD,
            again="IllegalEventError: there is no previous release",
        ),
        Journey(name="failed load", start="pending", steps=_failed_load, runs=_both(GOOD), ends=GOOD, refused=BAD_NEW),
        Journey(name="crash recovery", start="crashed", steps=_after_crash, runs=_both(GOOD), ends=GOOD),
        Journey(name="repair", start="damaged", steps=_repair, runs=_both(NEW), ends=NEW),
        Journey(name="garbage", start="rubbish", steps=_collect, runs=_both(NEW), ends=NEW),
        Journey(
            name="recover",
            start="lost",
            steps=_recover,
            runs=_both(GOOD),
            ends=GOOD,
            again="UsageError: the state can be read",
        ),
        Journey(name="settings", start="confirmed", steps=_settings, runs=_both(NEW), ends=NEW),
        Journey(name="external", start="pending", steps=_external, runs=_both(NEW), ends=NEW),
    )
}
