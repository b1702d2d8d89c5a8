"""The quick part of the sweeps: power cuts on real file systems, and many processes on one store.

The whole of it takes minutes: `sweep_power.py --full`, `sweep_contention.py --full`, `sweep_detectors.py --full`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.power import IMAGE_BYTES, why_not

HERE = Path(__file__).resolve().parent


def run(*command: str) -> str:
    """Run a sweep in a process of its own, which forks and traces others; returns what it prints."""
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(
        [sys.executable, str(HERE / command[0]), *command[1:]],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def _can_cut() -> None:
    if reason := why_not():
        pytest.skip(reason)


@pytest.mark.usefixtures("_can_cut")
@pytest.mark.parametrize("file_system", IMAGE_BYTES)
def test_a_power_cut_loses_nothing_that_was_acknowledged(file_system: str) -> None:
    table = run("sweep_power.py", "--file-system", file_system, "--every", "40")
    calls, cuts, failures = table.splitlines()[-1].split()[-3:]
    assert int(calls) > 500
    assert int(cuts) > 20
    assert failures == "0"


def test_eight_processes_on_one_store_break_nothing() -> None:
    table = run("sweep_contention.py", "--seconds", "8")
    assert " 0 failures" in table.splitlines()[-1]
    done = {line.split()[0]: int(line.split()[1]) for line in table.splitlines()[1:-1]}
    assert done.keys() == {"check", "collect", "look", "roll_back", "session", "stage"}
    assert done["session"] > 8


def test_every_bit_of_a_state_counts() -> None:
    assert "0 failures" in run("sweep_detectors.py", "--flips")
