"""What must hold after an accident: the model that runs, what was acknowledged, and which files are there."""

import contextlib
from pathlib import Path

from overair.device.updater import Updater
from overair.errors import IllegalEventError, OverairError, StateUnreadableError, UsageError
from overair.model.state import State
from overair.store.layout import LINKS
from overair.store.store import Store
from support.sweep_journeys import Journey
from support.sweep_process import Ended, run
from support.sweep_scene import NEW, DigestEngine, Scene

_LOCKS = ("lock", "lock.pid", "trust.lock", "trust.lock.pid", "partial/lock", "partial/lock.pid")
# The stores that have the new release in a slot: they go back from it only with a quarantine.
HAD_NEW = frozenset({"pending", "trial", "confirmed", "crashed", "damaged", "rubbish"})
# Files that a store has once something happened that writes them; nothing is decided by their absence.
_OPTIONAL = (*_LOCKS, "history.jsonl", "manifest.cache", "clock.json", "last_check.json", "trust/root_history")
_OPTIONAL_TRUST = ("root", "timestamp", "snapshot", "targets", "stable", "root_history/1.root", "root_history/2.root")


def check(
    scene: Scene, journey: Journey, said: tuple[str, ...], store: Path, twin: Path, *, blunt: bool = False
) -> str:
    """What is wrong with a store after a journey was interrupted that had said this much; empty: nothing is.

    Args:
        scene: The repository.
        journey: What was interrupted.
        said: What it had acknowledged.
        store: What it left.
        twin: A copy of that, on which the journey is run again.
        blunt: Two accidents have happened, so that a release on trial may have lost its tries.
    """
    for what, ended in (
        ("afterwards", run(lambda _say: _look(scene, journey, said, store, blunt=blunt))),
        ("run again", run(lambda _say: _again(scene, journey, twin, blunt=blunt))),
    ):
        if ended.code:
            return f"{what}: {_short(ended)}"
    return ""


def _short(ended: Ended) -> str:
    return " | ".join(ended.error.splitlines()[-7:]) or f"ended with {ended.code}"


def _look(scene: Scene, journey: Journey, said: tuple[str, ...], path: Path, *, blunt: bool) -> None:
    """Status, what was acknowledged, a session, and the files after a garbage collection."""
    store = Store(path)
    try:
        with store.lock() if path.exists() else contextlib.nullcontext():
            Updater(path).status()
    except UsageError:
        assert "set up" not in said, "the device was set up, and has forgotten it"
        assert journey.start is None
        return
    except StateUnreadableError:
        assert journey.start == "lost", "the settings or the state cannot be read"
        assert not said, "the state was recovered, and is lost again"
        return
    _check_acknowledged(store, said, blunt=blunt)
    ran = run_session(scene, journey, path)
    allowed = journey.runs | ({journey.falls_back_to} if blunt else set())
    assert ran in allowed, f"{ran or 'nothing'} runs, allowed is {sorted(allowed)}"
    check_files(store, journey)


def _again(scene: Scene, journey: Journey, path: Path, *, blunt: bool) -> None:
    """The interrupted journey, run again, completes."""
    try:
        journey.steps(scene, path, lambda _line: None)
    except OverairError as error:
        text = f"{type(error).__name__}: {error.message}"
        empty = blunt and not journey.falls_back_to and "nothing is installed yet" in text
        assert empty or (journey.again and text.startswith(journey.again)), text
    check_files(Store(path), journey)
    ran = run_session(scene, journey, path)
    allowed = {journey.ends} | ({journey.falls_back_to} if blunt else set())
    assert ran in allowed, f"{ran or 'nothing'} runs in the end, expected {sorted(allowed)}"


def run_session(scene: Scene, journey: Journey, path: Path) -> str:
    """The version that a new session runs, byte for byte as it was published; empty when nothing is installed."""
    engine = DigestEngine(journey.refused)
    with Updater(path) as updater:
        if journey.start == "damaged":
            updater.verify(repair=True, folder=scene.site)
        try:
            with updater.session(engine) as session:
                assert session.generate("hello").startswith(engine.ran)
        except IllegalEventError as error:
            if "nothing is installed yet" in error.message:
                return ""
            raise
    assert engine.digests == scene.releases[engine.ran], f"{engine.ran} is not what was published"
    barred = {entry.version for entry in Store(path).read().quarantine}
    assert engine.ran == NEW or journey.start not in HAD_NEW or NEW in barred, (
        f"back to {engine.ran}, and {NEW} is free"
    )
    return engine.ran


def _check_acknowledged(store: Store, said: tuple[str, ...], *, blunt: bool) -> None:
    state = store.read()
    barred = {entry.version for entry in state.quarantine}
    for line in said:
        what, _, version = line.partition(" ")
        excused = blunt and version in barred
        slots = {name: getattr(state, name) for name in LINKS}
        named = {name for name, slot in slots.items() if slot and slot.release.version == version}
        if what == "staged":
            assert excused or named & {"current", "pending"}, f"{line}, and it is lost"
        elif what in {"swapped", "current"}:
            assert excused or "current" in named, f"{line}, and it is not current"
        elif what == "confirmed":
            assert any(slots[name].proven for name in named), f"{line}, and it is not proven"
        elif what == "quarantined":
            assert version in barred, f"{line}, and it is forgotten"
        elif line == "sound":
            with Updater(store.layout.root) as updater:
                assert not updater.verify().damaged, "repaired, and damaged again"
        else:
            assert line in {"set up", "collected", "recovered"}, line


def check_files(store: Store, journey: Journey) -> None:
    """After one garbage collection, exactly those files are there that the state calls for, each what its name says."""
    with Updater(store.layout.root) as updater:
        updater.collect_garbage()
    state = store.read()
    needed, allowed = expected_files(store, state)
    if journey.start == "lost":
        allowed |= {f"state.{number}.json.damaged" for number in (0, 1)}
    root = store.layout.root
    found = {path.relative_to(root).as_posix() for path in root.rglob("*")}
    assert not found - needed - allowed, f"rubbish: {sorted(found - needed - allowed)}"
    assert not needed - found, f"missing: {sorted(needed - found)}"
    copies = {path.read_bytes() for path in store.layout.state_copies if path.exists()}
    assert len(copies) == bool(state.generation), "the copies of the state differ"
    for blob in store.layout.blobs.iterdir():
        assert blob.stat().st_mode & 0o777 == 0o444, f"{blob.name} can be written"
    _check_installed(store, state, journey)


def _check_installed(store: Store, state: State, journey: Journey) -> None:
    for slot in state.slots():
        for artifact in slot.release.artifacts:
            wrong = store.blobs.verify(artifact) or store.blobs.verify_installed(slot.release, artifact)
            assert journey.start == "damaged" or wrong is None, f"{artifact.name} of {slot.release.version} is {wrong}"
    for name in LINKS:
        slot = getattr(state, name)
        if slot is not None:
            model = store.layout.release(slot.id) / slot.release.model.name
            assert store.layout.link(name).read_bytes() == model.read_bytes(), f"the link {name} leads elsewhere"


def expected_files(store: Store, state: State) -> tuple[set[str], set[str]]:
    """The paths that a state calls for, and those that may be there besides."""
    needed = {"device.json", "trust/root.json"}
    needed |= {"state.0.json", "state.1.json"} if state.generation else set()
    needed |= {path.relative_to(store.layout.root).as_posix() for path in store.layout.folders()}
    for slot in state.slots():
        folder = f"releases/{slot.id}"
        needed |= {folder, f"{folder}/.release.json"}
        needed |= {f"{folder}/{artifact.name}" for artifact in slot.release.artifacts}
        needed |= {f"blobs/{artifact.sha256}" for artifact in slot.release.artifacts}
    needed |= {f"model-{name}.gguf" for name in LINKS if getattr(state, name) is not None}
    allowed = {*_OPTIONAL, *(f"trust/{name}.json" for name in _OPTIONAL_TRUST)}
    for path in store.layout.partial.iterdir():
        if (store.layout.partial / f"{path.name}.json").exists() and not (store.layout.blobs / path.name).exists():
            allowed |= {f"partial/{path.name}", f"partial/{path.name}.json"}
    return needed, allowed
