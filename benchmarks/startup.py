"""What it costs to start: `import overair` and `overair --help` against an empty Python, each in its own process.

    startup.py [--runs 15] [--json]

The commands take turns, so that what else the machine does hits all of them alike. The targets are for an idle core,
where the minimum and the median are close to each other.
"""

import argparse
import json
import subprocess
import sys
import sysconfig
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

OVERAIR = str(Path(sysconfig.get_path("scripts"), "overair"))
COMMANDS: dict[str, list[str]] = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import overair": [sys.executable, "-c", "import overair"],
    "overair --help": [OVERAIR, "--help"],
}
BASELINE = "python -c pass"
TARGETS_MS = {"import overair": 60.0, "overair --help": 250.0}
WARM_UP_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Figure:
    """The wall time of one command, in milliseconds, over all rounds; ratio and difference are between medians."""

    median_ms: float
    min_ms: float
    max_ms: float
    ratio: float
    difference_ms: float
    target_ms: float | None


def run_once(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, timeout=60)
    return (time.perf_counter() - started) * 1000


def measure(runs: int) -> dict[str, list[float]]:
    """Wall times in milliseconds of every command, in rounds of one process each."""
    rounds = [{name: run_once(command) for name, command in COMMANDS.items()} for _ in range(WARM_UP_ROUNDS + runs)]
    return {name: [times[name] for times in rounds[WARM_UP_ROUNDS:]] for name in COMMANDS}


def figure(name: str, times: dict[str, list[float]]) -> Figure:
    middle, base = median(times[name]), median(times[BASELINE])
    return Figure(
        median_ms=middle,
        min_ms=min(times[name]),
        max_ms=max(times[name]),
        ratio=middle / base,
        difference_ms=middle - base,
        target_ms=TARGETS_MS.get(name),
    )


def table(figures: dict[str, Figure], runs: int) -> str:
    lines = [f"{runs} runs each, ms         median     min     max   ratio   more   target"]
    for name, f in figures.items():
        target = f"< {f.target_ms:.0f}" if f.target_ms else "-"
        numbers = f"{f.median_ms:8.1f}{f.min_ms:8.1f}{f.max_ms:8.1f}{f.ratio:7.2f}x{f.difference_ms:7.1f}"
        lines.append(f"{name:24}{numbers} {target:>8}")
    return "\n".join([*lines, "targets: the wall time of the whole process on an idle core"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of import overair and overair --help against an empty Python")
    parser.add_argument("--runs", type=int, default=15, help="rounds that count, after the warm-up (default: 15)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    times = measure(options.runs)
    figures = {name: figure(name, times) for name in COMMANDS}
    if options.json:
        print(json.dumps({"runs": options.runs, "commands": {name: asdict(f) for name, f in figures.items()}}))
    else:
        print(table(figures, options.runs))


if __name__ == "__main__":
    main()
