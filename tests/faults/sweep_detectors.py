"""Take one safeguard out of a copy of the source at a time, and see that a sweep notices.

    sweep_detectors.py --full
    sweep_detectors.py --only "the lock"

A safeguard that no sweep misses is either not needed or not watched: the table names it, and the exit code is 1.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent.parent
SWEEP_LIMIT_S: Final = 600
_KINDS: Final = ("ext4", "xfs")


@dataclass(frozen=True, slots=True)
class Safeguard:
    """A line of the source that something depends on.

    Args:
        name: What it is.
        file: Where it is, below `src/overair`.
        text: The source with it; it must be there exactly once.
        without: The source without it.
        sweeps: The commands of which one at least must fail then.
    """

    name: str
    file: str
    text: str
    without: str
    sweeps: tuple[tuple[str, ...], ...]


def _power(*journeys: str) -> tuple[tuple[str, ...], ...]:
    """What the order of the calls shows, and what the cuts show, up to the first failure."""
    chosen = [word for journey in journeys for word in ("--journey", journey)]
    cuts = [("sweep_power.py", "--cuts-only", "--until-failure", "--file-system", kind, *chosen) for kind in _KINDS]
    return (("sweep_power.py", "--order-only", "--file-system", "ext4", *chosen), *cuts)


SAFEGUARDS: Final = (
    Safeguard(
        "fsync of a small file before its rename",
        "store/durable.py",
        "            sync_file(file.fileno())\n",
        "",
        _power("swap and confirm"),
    ),
    Safeguard(
        "fsync of the folder after the rename of a small file",
        "store/durable.py",
        "        temporary.replace(path)\n    sync_directory(path.parent)\n",
        "        temporary.replace(path)\n",
        _power("install"),
    ),
    Safeguard(
        "fsync of the folder after the rename of a blob or a release",
        "store/durable.py",
        "        source.replace(target)\n    sync_directory(target.parent)\n",
        "        source.replace(target)\n",
        _power("install", "repair"),
    ),
    Safeguard(
        "fsync of the folder above a new one",
        "store/durable.py",
        "        sync_directory(created.parent)\n",
        "        pass\n",
        _power("install"),
    ),
    Safeguard(
        "fsync of a copy where there are no links",
        "store/durable.py",
        "            sync_file(writer.fileno())\n",
        "",
        _power("update without links"),
    ),
    Safeguard(
        "fsync of a download before its rename",
        "store/partial.py",
        "        self._sync()\n        self.close()\n",
        "        self.close()\n",
        _power("install"),
    ),
    Safeguard(
        "fsync of a download at a checkpoint",
        "store/partial.py",
        "        self._sync()\n        if self.source",
        "        if self.source",
        _power("interrupted download"),
    ),
    Safeguard(
        "the checksum of the state",
        "store/state_file.py",
        "len(body) != header.bytes or zlib.crc32(body) != header.crc32",
        "len(body) != header.bytes",
        (("sweep_detectors.py", "--flips"),),
    ),
    Safeguard(
        "the lock",
        "store/lock.py",
        "            lock.acquire(timeout=timeout_s)\n",
        "            pass\n",
        (("sweep_contention.py", "--seconds", "20", "--seed", "1"),),
    ),
    Safeguard(
        "the files of a running session",
        "core/retention.py",
        " + [session.release_id for session in state.sessions]",
        "",
        (("sweep_contention.py", "--seconds", "20", "--seed", "1"),),
    ),
    Safeguard(
        "the try that is taken before the load",
        "core/slots.py",
        "charged = state.tries_left > 0 and not (c.external and state.current.proven)",
        "charged = False",
        _power("swap and confirm"),
    ),
)


def mutate(folder: Path, safeguard: Safeguard) -> None:
    """Copy the source to a folder, without the safeguard.

    Raises:
        AssertionError: The source does not have it, or more than once.
    """
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "src" / "overair" / safeguard.file
    source = file.read_text(encoding="utf-8")
    assert source.count(safeguard.text) == 1, f"{safeguard.file} does not have {safeguard.text!r} once"
    file.write_text(source.replace(safeguard.text, safeguard.without), encoding="utf-8")


def noticed(safeguard: Safeguard, command: tuple[str, ...]) -> str | None:
    """The first thing that a sweep finds without the safeguard, or None when it finds nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mutate(folder, safeguard)
        environment = os.environ | {"PYTHONPATH": f"{folder / 'src'}{os.pathsep}{ROOT / 'tests'}"}
        script, *options = command
        done = subprocess.run(
            [sys.executable, str(HERE / script), *options],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=SWEEP_LIMIT_S,
        )
    if done.returncode == 0:
        return None
    found = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
    if done.returncode != 1 or not found:
        raise AssertionError(f"{' '.join(command)} could not run:\n{done.stdout}{done.stderr}")
    return found[0]


def flips() -> list[str]:
    """Turn each bit of a state round; what is read must be that state or an error, never a third thing."""
    from overair.errors import StateUnreadableError
    from overair.model.state import State
    from overair.store.state_file import load_state, save_state
    from support.power import scratch
    from support.states import slot

    state = State(generation=7, current=slot("1.1.0", proven=False), previous=slot("1.0.0"), tries_left=1)
    wrong: list[str] = []
    with scratch() as folder:
        path = folder / "state.0.json"
        save_state([path], state, first=0)
        data = path.read_bytes()
        for bit in range(8 * len(data)):
            path.write_bytes(data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :])
            try:
                read = load_state([path]).state
            except StateUnreadableError:
                continue
            if read != state:
                wrong.append(f"bit {bit} of {8 * len(data)} turned round makes another state")
    return wrong


def sweep(chosen: tuple[Safeguard, ...]) -> int:
    """Take each of these out; returns how many no sweep has noticed."""
    unnoticed = 0
    for safeguard in chosen:
        print(f"without {safeguard.name} ({safeguard.file})", flush=True)
        found: list[str | None] = []
        for command in safeguard.sweeps:
            started = time.monotonic()
            found.append(noticed(safeguard, command))
            print(f"  {' '.join(command)}\n    {time.monotonic() - started:6.1f} s  {found[-1] or '-'}", flush=True)
        unnoticed += not any(found)
        if not any(found):
            print("  NOTHING NOTICED", flush=True)
    print(f"{len(chosen)} safeguards taken out one at a time, {unnoticed} of them unnoticed")
    return unnoticed


def main() -> int:
    parser = argparse.ArgumentParser(description="See that each safeguard of the store is watched by a sweep")
    parser.add_argument("--full", action="store_true", help="all of them (the default)")
    parser.add_argument("--only", action="append", choices=[s.name for s in SAFEGUARDS], help="this one only")
    parser.add_argument("--flips", action="store_true", help="instead, the sweep of every bit of a state")
    options = parser.parse_args()
    if options.flips:
        wrong = flips()
        print(f"every bit of a state: {len(wrong)} failures")
        for line in wrong:
            print(f"  {line}")
        return 1 if wrong else 0
    return 1 if sweep(tuple(s for s in SAFEGUARDS if options.only is None or s.name in options.only)) else 0


if __name__ == "__main__":
    sys.exit(main())
