"""What becomes of bad models, and of good ones: before the swap, by the probe; and on trial, by real sessions.

    health.py [--quick] [--starts 30] [--rounds 5] [--json FILE]

Every case is a real file for real llama.cpp, an engine that really does what its name says, or an app that really dies.
Each is probed; and each is put on a device that does not probe, beside a good release that is proven, and an app is
started in a process of its own until the device goes back, or the model has answered in three starts. False alarms are
also counted over good starts of SmolLM2 and of Gemma 3, each on a device of its own: published, downloaded, probed,
swapped in, asked three times. A probe is compared with one load and the same prompts (24 tokens each) in a process that
runs already, with these and the sentence that a probe asks for as well, and with a process that does just that.
"""

import argparse
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from health_parts.cases import CASES, GEMMA3, SMOLLM2, Case  # noqa: E402  # the builders of bad models are with the tests
from health_parts.costs import Costs, costs, memory  # noqa: E402
from health_parts.starts import false_alarms  # noqa: E402
from health_parts.trial import Trial, on_trial  # noqa: E402

from overair.engines.base import create  # noqa: E402
from overair.engines.probe import probe  # noqa: E402
from overair.model.probe import ProbeResult  # noqa: E402

QUICK_STARTS: Final = 3
MAX_CELL_CHARACTERS: Final = 120
HEADER: Final = "| case | caught before the swap | caught on trial, not probed | missed | false alarm | why |"


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one case."""

    case: Case
    probed: ProbeResult
    trial: Trial

    @property
    def cells(self) -> tuple[str, ...]:
        name, probed, trial = self.case.name, self.probed, self.trial
        found = not probed.passed or bool(trial.unfit)
        starts = f"{trial.starts} start{'s' if trial.starts > 1 else ''}"
        if self.case.good:
            alarm = "**yes**" if found or trial.caught else "no"
            became = "goes back" if trial.caught else "stays"
            return name, "-", f"{became}, {starts}", "-", alarm, probed.reason or trial.reason
        before = "yes, before the download" if trial.unfit else "yes" if found else "no"
        caught = f"yes, after {starts}" if trial.caught else "no"
        missed = "no" if found or trial.caught else "**missed**"
        return name, before, caught, missed, "-", trial.unfit or probed.reason or trial.reason or self.case.note


def probed(case: Case) -> ProbeResult:
    with tempfile.TemporaryDirectory() as folder:
        baseline = None
        if case.current is not None:
            baseline = probe(case.current(Path(folder)), engine=case.engine).figures.tokens_per_second
        return probe(
            case.build(Path(folder)),
            engine=case.engine,
            policy=case.policy,
            limits=case.limits,
            baseline_tokens_per_second=baseline,
        )


def judged(case: Case) -> Row:
    row = Row(case, probed(case), on_trial(case))
    print(*row.cells, sep=" | ", file=sys.stderr, flush=True)
    return row


def table(rows: list[Row], alarms: Mapping[str, list[str]], starts: int) -> str:
    lines = [HEADER, "|-|-|-|-|-|-|"]
    lines += [f"| {' | '.join(map(shortened, row.cells))} |" for row in rows]
    lines += [
        f"| {starts} good starts of {name} | - | - | - | {len(found)} of {starts} | {'; '.join(found)} |"
        for name, found in alarms.items()
    ]
    return "\n".join(lines)


def shortened(cell: str) -> str:
    """One line for a cell; of a digest its first characters."""
    words = re.sub(r"\b([0-9a-f]{8})[0-9a-f]{56}\b", r"\1…", " ".join(cell.split()).replace("|", "/"))
    return words if len(words) <= MAX_CELL_CHARACTERS else words[: MAX_CELL_CHARACTERS - 1] + "…"


def costs_text(found: tuple[Costs, Costs], memory_bytes: Mapping[str, int], rounds: int) -> str:
    app = f"{memory_bytes['before'] / 1e6:.1f} MB before a probe, {memory_bytes['after'] / 1e6:.1f} MB after"
    lines = [f"SmolLM2, {rounds} rounds, in seconds:", "", "| what | least disturbed | median |", "|-|-|-|"]
    rows = [tuple(cost_cells(cost).values()) for cost in found]
    lines += [f"| {name} | {least} | {usual} |" for name, least, usual in zip(cost_cells(found[0]), *rows, strict=True)]
    memory_line = f"Memory of the app: {app}; of the probe's process: {memory_bytes['probe'] / 1e6:.0f} MB at most."
    return "\n".join([*lines, "", memory_line])


def cost_cells(cost: Costs) -> dict[str, str]:
    asked = cost.load_s + cost.prompts_s
    return {
        "a load; the three prompts; the sentence of which a probe takes the perplexity": f"{cost.load_s:.2f}; "
        f"{cost.prompts_s:.2f}; {cost.sentence_s:.2f}",
        "a probe, its process, the check of all weights and the unload included": f"{cost.probe_s:.2f}",
        "ratio to one load and the prompts": f"{cost.probe_s / asked:.2f}",
        "ratio to one load and all that is asked": f"{cost.probe_s / (asked + cost.sentence_s):.2f}",
        "ratio to a process that loads and asks the same": f"{cost.probe_s / cost.process_s:.2f}",
        "added to an update and the start after it, the file not in memory before; ratio to one load and the prompts": (
            f"{cost.added_cold_s:.2f}; {cost.added_cold_s / asked:.2f}"
        ),
    }


def machine() -> str:
    load = "/".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{platform.machine()}, {os.cpu_count()} processors, load average {load}, {create('xllamacpp').version}"


def main() -> None:
    parser = argparse.ArgumentParser(description="What becomes of bad models, and what good ones cost")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STARTS} good starts of each model")
    parser.add_argument("--starts", type=int, default=30, help="good starts of each real model (default: 30)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the times (default: 5)")
    parser.add_argument("--case", default="", help="only the cases whose names have this in them")
    parser.add_argument("--json", type=Path, help="write all that was found to this file")
    options = parser.parse_args()
    starts = QUICK_STARTS if options.quick else options.starts
    before = machine()
    cost, held = costs(SMOLLM2, options.rounds), memory(SMOLLM2)
    rows = [judged(case) for case in CASES if options.case in case.name]
    alarms = {model.stem: false_alarms(model, starts) for model in (SMOLLM2, GEMMA3) if model.is_file() and starts}
    print(table(rows, alarms, starts), costs_text(cost, held, options.rounds), sep="\n\n")
    print(f"\n{before} at the start; at the end: {machine()}")
    if options.json:
        found = {row.case.name: asdict(row.trial) | {"probe": row.probed.reason} for row in rows}
        report = {
            "cases": found,
            "alarms": alarms,
            "starts": starts,
            "costs": {"least": asdict(cost[0]), "median": asdict(cost[1])},
            "memory": held,
        }
        options.json.write_text(json.dumps(report | {"machine": before}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
