"""What becomes of bad models: caught by the probe before the swap, on trial, or missed; and what good ones cost.

    health.py [--starts 30] [--runs 5] [--json]

Every case is a real file for real llama.cpp, or an engine that really does what its name says. False alarms are counted
over good starts of SmolLM2 and of Gemma 3. A probe's time is compared with that of one load and the same prompts in a
process of its own, in turns; and with what it adds to an update, where the load after it finds the file in memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from overair.engines.probe import probe  # noqa: E402  # the builders of bad models are with the tests
from overair.model.probe import ProbeLimits, ProbePolicy, ProbeResult  # noqa: E402
from overair.model.release import Bundle  # noqa: E402
from support import bad_models as bad  # noqa: E402
from support.tiny_model import bundle_of, with_architecture, write_adapter, write_tiny_model  # noqa: E402

SMOLLM2 = ROOT / ".models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
GEMMA3 = ROOT / ".models" / "gemma-3-270m-q4_k_m.gguf"
SHORT = ProbeLimits(load_s=15.0, answer_s=15.0, unload_s=3.0)
GOOD_ENGINE = "xllamacpp"


@dataclass(frozen=True, slots=True)
class Case:
    """Something bad: what is loaded, by which engine, and what is allowed to it.

    Args:
        name: What the table calls it.
        build: Writes what it needs into a folder.
        engine: See `overair.engines.base.create`.
        policy: What the publisher asks.
        limits: What the device allows.
        current: Builds the model that was current before, where that matters.
    """

    name: str
    build: Callable[[Path], Bundle]
    engine: str = GOOD_ENGINE
    policy: ProbePolicy | None = None
    limits: ProbeLimits = SHORT
    current: Callable[[Path], Bundle] | None = None


def of_smollm2(change: Callable[[Path, Path], Path]) -> Callable[[Path], Bundle]:
    return lambda folder: bundle_of(change(SMOLLM2, folder / "bad.gguf"))


def with_template(text: str) -> Callable[[Path], Bundle]:
    def build(folder: Path) -> Bundle:
        template = folder / "template.jinja"
        template.write_text(text, encoding="utf-8")
        return bundle_of(SMOLLM2, template=template)

    return build


def tiny(folder: Path) -> Bundle:
    return bundle_of(write_tiny_model(folder / "tiny.gguf"))


def adapted(folder: Path) -> Bundle:
    return bundle_of(write_tiny_model(folder / "tiny.gguf"), adapters=(write_adapter(folder / "adapter.gguf"),))


def slow(folder: Path) -> Bundle:
    return bundle_of(bad.write_slow_model(folder / "slow.gguf", layers=40))


def breaks(name: str) -> str:
    return f"support.bad_engines:{name}"


CASES = (
    Case("10,000 flipped bytes", of_smollm2(bad.flip_bytes)),
    Case("100 flipped bytes", of_smollm2(lambda source, target: bad.flip_bytes(source, target, count=100))),
    Case("all weights zero", of_smollm2(bad.zero_weights)),
    Case("the last third of the weights zero", of_smollm2(bad.zero_tail)),
    Case("one scale not a number", of_smollm2(bad.nan_scales)),
    Case("the last tensor cut, its header right", of_smollm2(bad.cut_tail)),
    Case("an architecture that nobody knows", lambda folder: bundle_of(with_architecture(folder / "a.gguf", "none"))),
    Case("a vocabulary of another length", of_smollm2(bad.lengthen_vocabulary)),
    Case("a vocabulary of another model", of_smollm2(bad.shuffle_vocabulary)),
    Case("a chat template that raises", with_template(bad.RAISING_TEMPLATE)),
    Case("a chat template that loops", with_template(bad.LOOPING_TEMPLATE)),
    Case("an adapter for another base of the same shape", adapted),
    Case(
        "more memory than the limit", of_smollm2(lambda source, _: source), limits=ProbeLimits(memory_bytes=100_000_000)
    ),
    Case("five times slower", slow, policy=ProbePolicy(min_speed_ratio=0.5), current=tiny),
    Case("the engine segfaults at load", tiny, engine=breaks("SegfaultsAtLoad")),
    Case("the engine segfaults at the first answer", tiny, engine=breaks("SegfaultsAtFirstAnswer")),
    Case("the engine segfaults at the 50th answer", tiny, engine=breaks("SegfaultsAtFiftiethAnswer")),
    Case("the engine hangs at load", tiny, engine=breaks("HangsAtLoad"), limits=ProbeLimits(load_s=3.0)),
    Case("the engine hangs at unload", tiny, engine=breaks("HangsAtUnload")),
)

# What loads and asks as a probe does, in a process of its own, without being one.
REFERENCE = """
import json, sys, time
from pathlib import Path
from overair.core.verdict import BUILT_IN_PROMPTS
from overair.engines.base import create
from overair.model.release import Bundle
bundle = Bundle(id="0" * 64, version="1.0.0", sha256="0" * 64, model=Path(sys.argv[1]))
engine = create("xllamacpp")
started = time.perf_counter()
engine.load(bundle)
loaded = time.perf_counter()
for prompt in BUILT_IN_PROMPTS:
    engine.generate(prompt, max_tokens=24)
print(json.dumps({"load_s": loaded - started, "prompts_s": time.perf_counter() - loaded}))
engine.unload()
"""

# An app that probes: its own memory before and after, in bytes.
APP = """
import json, sys
from pathlib import Path
import psutil
import overair, overair.device.updater
from overair.engines.probe import probe
from overair.model.release import Bundle
bundle = Bundle(id="0" * 64, version="1.0.0", sha256="0" * 64, model=Path(sys.argv[1]))
held = lambda: psutil.Process().memory_info().rss
before = held()
result = probe(bundle, engine="xllamacpp")
print(json.dumps({"before": before, "after": held(), "probe": result.figures.peak_bytes}))
"""


def caught_by_probe(case: Case) -> ProbeResult:
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


def false_alarms(model: Path, starts: int) -> list[str]:
    """The reasons of those of `starts` probes of a good model that did not pass."""
    results = [probe(bundle_of(model), engine=GOOD_ENGINE) for _ in range(starts)]
    return [result.reason for result in results if not result.passed]


def run(program: str, model: Path) -> tuple[dict[str, Any], float]:
    started = time.perf_counter()
    command = [sys.executable, "-c", program, str(model)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=600)
    found: dict[str, Any] = json.loads(done.stdout)
    return found, time.perf_counter() - started


def forget(model: Path) -> None:
    """Let the system drop the file from its memory, as on a device that was started again."""
    if not hasattr(os, "posix_fadvise"):
        return
    descriptor = os.open(model, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def costs(model: Path, runs: int) -> dict[str, float]:
    """Medians in seconds, each taken in turns with the others."""
    times: dict[str, list[float]] = {name: [] for name in ("load", "prompts", "probe", "without", "with")}
    bundle = bundle_of(model)
    for _ in range(runs):
        warm, _ = run(REFERENCE, model)
        times["load"].append(warm["load_s"])
        times["prompts"].append(warm["prompts_s"])
        times["probe"].append(timed(lambda: probe(bundle, engine=GOOD_ENGINE)))
        forget(model)
        times["without"].append(run(REFERENCE, model)[1])
        forget(model)
        added = timed(lambda: probe(bundle, engine=GOOD_ENGINE))
        times["with"].append(added + run(REFERENCE, model)[1])
    return {name: median(taken) for name, taken in times.items()}


def timed(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def table(found: dict[str, ProbeResult], on_trial: dict[str, str]) -> str:
    """Markdown: what the probe said, and what became of the case on a device that does not probe."""
    lines = ["| case | before the swap | on trial | the probe's reason |", "|-|-|-|-|"]
    for name, result in found.items():
        before = "missed" if result.passed else "caught"
        lines.append(f"| {name} | {before} | {on_trial.get(name, '-')} | {result.reason} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What becomes of bad models, and what good ones cost")
    parser.add_argument("--starts", type=int, default=30, help="good starts of each real model (default: 30)")
    parser.add_argument("--runs", type=int, default=5, help="rounds of the times (default: 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    found = {case.name: caught_by_probe(case) for case in CASES}
    alarms = {model.name: false_alarms(model, options.starts) for model in (SMOLLM2, GEMMA3) if model.is_file()}
    cost = costs(SMOLLM2, options.runs)
    memory, _ = run(APP, SMOLLM2)
    one = cost["load"] + cost["prompts"]
    if options.json:
        cases = {name: {"caught": not r.passed, "reason": r.reason} for name, r in found.items()}
        print(json.dumps({"cases": cases, "alarms": alarms, "seconds": cost, "memory": memory}))
        return
    print(table(found, {}))
    for name, reasons in alarms.items():
        print(f"\nfalse alarms in {options.starts} good starts of {name}: {len(reasons)}", *reasons)
    print(f"\nSmolLM2: a probe takes {cost['probe'] / one:.2f} of one load and its prompts ({one:.2f} s);")
    print(f"it adds {(cost['with'] - cost['without']) / one:.2f} of that to an update and the session after it")
    print(f"memory of the app: {memory['before'] / 1e6:.1f} MB before, {memory['after'] / 1e6:.1f} MB after; ", end="")
    print(f"of the probe: {memory['probe'] / 1e6:.0f} MB at most")


if __name__ == "__main__":
    main()
