"""A check stays cheap: at most so many requests and bytes, whatever a repository grows to."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "check.py"


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    """What the benchmark measures, in one run of each kind: bytes do not vary."""
    command = [sys.executable, str(SCRIPT), "--runs", "1", "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode in {0, 1}, done.stderr
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def test_a_warm_check_is_two_requests_and_a_kilobyte(figures: dict[str, Any]) -> None:
    warm = figures["warm"]
    assert 1 <= warm["requests"] <= 2
    assert 0 < warm["metadata_bytes"] <= 1_000
    assert warm["manifest_bytes"] == 0


def test_a_cold_check_is_eight_requests_and_twenty_kilobytes(figures: dict[str, Any]) -> None:
    cold = figures["cold"]
    assert figures["tiers"] == 60
    assert 5 <= cold["requests"] <= 8
    assert 1_000 < cold["metadata_bytes"] <= 20_000
    assert cold["manifest_bytes"] > 60 * 200
