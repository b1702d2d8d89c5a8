"""Many processes on one store at once, some of them killed; needs no privileges.

    sweep_contention.py --full              8 processes for 2 minutes
    sweep_contention.py --seconds 8 --seed 7

Each process does at random what the programs of a device do, while a publisher publishes one release after the other.
At every step: the state can be read, what is current is whole byte for byte, a session's own files stay, and every
call ends in time, if with `LockedError`. At the end one more session and one more collection leave no rubbish.
"""

import argparse
import collections
import contextlib
import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

from overair import Conditions, Updater
from overair.errors import IllegalEventError, LockedError
from overair.model.state import State
from overair.publish.repository import Repository
from overair.store.store import Store
from support.power_journeys import Engine
from support.power_promises import rubbish
from support.published import BASE_URL, model_file, sha256_of
from support.tracing import Child, Say

PROCESSES: Final = 8
# A call waits 10 s for the store's lock and 30 s for that of the metadata; the rest is for a busy machine.
CALL_LIMIT_S: Final = 60.0
_SMALL: Final = Conditions(min_free_bytes=0)


class Program:
    """One of the processes: does this and that with the store until its time is over.

    Args:
        store: The device's disk.
        tree: The publisher's repository.
        log: Where it notes each call: its name, what came of it, and the seconds.
        chance: What decides.
    """

    def __init__(self, store: Path, tree: Path, log: Path, chance: random.Random) -> None:
        self._updater = Updater(store)
        self._store = Store(store)
        self._tree, self._log, self._chance = tree, log, chance
        self._calls: list[tuple[Callable[[], object], int]] = [
            (self._check, 2),
            (self._stage, 4),
            (self._session, 6),
            (self._roll_back, 1),
            (self._collect, 2),
            (self._look, 5),
        ]

    def run(self, until: float) -> None:
        calls, weights = zip(*self._calls, strict=True)
        with self._log.open("a", buffering=1, encoding="utf-8") as log:
            while time.monotonic() < until:
                (call,) = self._chance.choices(calls, weights)
                started = time.monotonic()
                result = self._outcome(call)
                seconds = time.monotonic() - started
                log.write(f"{call.__name__.strip('_')} {result} {seconds:.3f}\n")
                assert seconds < CALL_LIMIT_S, f"{call.__name__} took {seconds:.0f} s"
                self._look()

    @staticmethod
    def _outcome(call: Callable[[], object]) -> str:
        try:
            call()
        except LockedError:
            return "locked"
        except IllegalEventError:  # nothing to go back to, or another process was quicker
            return "refused"
        return "done"

    def _check(self) -> None:
        self._updater.check(folder=self._tree)

    def _stage(self) -> None:
        self._updater.update(folder=self._tree, conditions=_SMALL)

    def _session(self) -> None:
        with self._updater.session(Engine()) as session:
            bundle = session.bundle
            for _ in range(self._chance.randrange(4)):
                time.sleep(self._chance.random() / 10)  # a user thinks
                digest = sha256_of(bundle.model)
                assert digest == bundle.sha256, f"the file of a running session became {digest}"
                session.generate("hello")
            if self._chance.random() < 0.1:
                session.fail("on purpose")

    def _roll_back(self) -> None:
        self._updater.rollback(reason="on purpose")

    def _collect(self) -> None:
        self._updater.collect_garbage()

    def _look(self) -> None:
        """The state can be read, and what it names as current is whole, if it is still current."""
        while True:
            state = self._store.read()
            wrong = what_is_wrong(self._store, state)
            if wrong is None:
                return
            assert self._store.read().generation != state.generation, wrong


def what_is_wrong(store: Store, state: State) -> str | None:
    """What keeps a device in this state from running its model, or None."""
    if state.current is None:
        return "nothing is current"
    for artifact in state.current.release.artifacts:
        wrong = store.blobs.verify(artifact)
        if wrong is not None:
            return f"{artifact.name} of {state.current.release.version} is {wrong}"
    return None


class Publisher:
    """Publishes one release after the other.

    Args:
        folder: Where the repository is made.
    """

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        self._model = folder / "model.gguf"
        Repository.init(self.tree, base_url=BASE_URL, dev=True)
        self._repository = Repository(self.tree)
        self.published = 0

    def publish(self) -> None:
        self.published += 1
        model_file(self._model, self.published, floats=4096)
        self._repository.publish([self._model], tier="1b", version=f"1.{self.published}.0", probe=False)


def set_up(store: Path, publisher: Publisher) -> None:
    """A device with a first, proven release."""
    publisher.publish()
    root = (publisher.tree / "metadata" / "1.root.json").read_bytes()
    with Updater(store, url=BASE_URL, tier="1b", root=root) as updater:
        updater.update(folder=publisher.tree, conditions=_SMALL)
        with updater.session(Engine()) as session:
            session.generate("hello")


def contend(folder: Path, *, seconds: float, seed: int) -> tuple[list[str], int]:
    """Let the processes loose; returns what went wrong, and how many of them were killed."""
    chance = random.Random(seed)  # noqa: S311 - it has to be the same again
    publisher, store = Publisher(folder), folder / "store"
    set_up(store, publisher)
    until = time.monotonic() + seconds
    failures: list[str] = []
    killed = 0
    with contextlib.ExitStack() as stack:
        running: list[Child] = []

        def start(number: int) -> Child:
            log, luck = folder / f"log.{number}", random.Random(f"{seed} {number}")  # noqa: S311 - as above

            def work(_: Say) -> None:
                Program(store, publisher.tree, log, luck).run(until)

            return stack.enter_context(Child(work, limit_s=int(seconds + 2 * CALL_LIMIT_S)))

        running = [start(number) for number in range(PROCESSES)]
        while time.monotonic() < until - 1 and not failures:
            time.sleep(chance.random())
            victim = chance.randrange(PROCESSES)
            if not running[victim].has_ended():
                running[victim].kill()
                killed += 1
                running[victim] = start(PROCESSES + killed)
            publisher.publish()
            failures += [_last(child) for child in running if child.has_ended() and child.exit_code]
        for child in running:
            child.finish()
            if child.exit_code and _last(child) not in failures:
                failures.append(_last(child))
    return failures or at_the_end(store, publisher), killed


def _last(child: Child) -> str:
    said = child.said()
    return said[-1] if said else f"a process ended with {child.exit_code}"


def at_the_end(store: Path, publisher: Publisher) -> list[str]:
    """What is wrong once all the processes have ended, and the device went on alone for a moment."""
    publisher.publish()
    with Updater(store) as updater:
        updater.update(folder=publisher.tree, conditions=_SMALL)
        with updater.session(Engine()) as session:
            session.generate("hello")
        updater.collect_garbage()
    disk = Store(store)
    state = disk.read()
    wrong = [f"left behind: {path}" for path in rubbish(disk)]
    wrong += [f"session {session.id} never ends" for session in state.sessions]
    damage = what_is_wrong(disk, state)
    return wrong + ([damage] if damage else [])


def table(folder: Path) -> str:
    """The calls, by name: how many, what came of them, and how long they took."""
    outcomes: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    times: dict[str, list[float]] = collections.defaultdict(list)
    for log in sorted(folder.glob("log.*")):
        for entry in log.read_text(encoding="utf-8").splitlines():
            name, outcome, seconds = entry.split()
            outcomes[name][outcome] += 1
            times[name].append(float(seconds))
    lines = [f"{'call':12}{'done':>8}{'locked':>8}{'refused':>9}{'median s':>10}{'max s':>8}"]
    for name, counts in sorted(outcomes.items()):
        numbers = f"{counts['done']:8}{counts['locked']:8}{counts['refused']:9}"
        lines.append(f"{name:12}{numbers}{median(times[name]):10.3f}{max(times[name]):8.2f}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Many processes on one store")
    parser.add_argument("--full", action="store_true", help="two minutes")
    parser.add_argument("--seconds", type=float, default=8.0, help="so long (default: 8)")
    parser.add_argument("--seed", type=int, help="what decides, to do it again (default: another each time)")
    options = parser.parse_args()
    logging.getLogger("overair").setLevel(logging.CRITICAL)  # quarantines are what is asked for
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    seconds = 120.0 if options.full else options.seconds
    with tempfile.TemporaryDirectory() as folder:
        failures, killed = contend(Path(folder), seconds=seconds, seed=seed)
        print(table(Path(folder)))
    print(f"{PROCESSES} processes, {seconds:.0f} s, {killed} killed, seed {seed}: {len(failures)} failures")
    for failure in failures:
        print(f"  {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
