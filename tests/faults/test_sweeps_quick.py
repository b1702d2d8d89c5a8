"""A share of every sweep, the same points each time; `sweep_kill.py --full` and `sweep_calls.py --full` try all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.sweep_process import can_trace

HERE = Path(__file__).resolve().parent
SWEEPS = [
    ("sweep_kill.py", "killed once"),
    ("sweep_kill.py", "killed twice"),
    ("sweep_calls.py", "a call fails"),
    ("sweep_calls.py", "calls go on failing"),
    ("sweep_calls.py", "a write lies"),
    ("sweep_calls.py", "a bit turns round"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("script", "kind"), SWEEPS, ids=[kind for _, kind in SWEEPS])
def test_nothing_breaks_a_store(script: str, kind: str, tmp_path: Path) -> None:
    if not can_trace():
        pytest.skip("strace is not here, or may not attach to a process")
    ran = subprocess.run(
        [sys.executable, str(HERE / script), "--kind", kind, "--at", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
