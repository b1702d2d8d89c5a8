"""What a probe costs: its time beside that of one load and what it asks, and its memory."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from health_parts.cases import GOOD_ENGINE

from overair.engines.probe import probe
from support.tiny_model import bundle_of

# What loads and asks as a probe does, in a process of its own, without being one.
REFERENCE: Final = """
import json, sys, time
from pathlib import Path
from overair.core.verdict import BUILT_IN_PROMPTS, BUILT_IN_TEXT
from overair.engines.base import create
from overair.model.release import Bundle
bundle = Bundle(id="0" * 64, version="1.0.0", sha256="0" * 64, model=Path(sys.argv[1]))
engine = create("xllamacpp")
started = time.perf_counter()
engine.load(bundle)
loaded = time.perf_counter()
for prompt in BUILT_IN_PROMPTS:
    engine.generate(prompt, max_tokens=24)
asked = time.perf_counter()
engine.predict(BUILT_IN_TEXT)
predicted = time.perf_counter()
print(json.dumps({"load": loaded - started, "prompts": asked - loaded, "sentence": predicted - asked}))
engine.unload()
"""

# An app that probes: its own memory before and after, in bytes.
APP: Final = """
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


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds over rounds: the least disturbed, since what else runs only makes a round slower; or the medians.

    Args:
        load_s: One load.
        prompts_s: The answers to the built-in prompts.
        sentence_s: The perplexity of the built-in sentence, which a probe asks for as well.
        probe_s: A probe, from the call to its return: with its process, and with llama.cpp's check of all weights.
        process_s: A fresh Python that loads, asks the prompts and the sentence, and ends.
        added_cold_s: What a probe adds to an update and such a process after it, the file not in memory before.
    """

    load_s: float
    prompts_s: float
    sentence_s: float
    probe_s: float
    process_s: float
    added_cold_s: float


def costs(model: Path, rounds: int) -> tuple[Costs, Costs]:
    """The least and the median of each; a round takes all in turns."""
    found = list(zip(*(one_round(model) for _ in range(rounds)), strict=True))
    return Costs(*map(min, found)), Costs(*map(median, found))


def one_round(model: Path) -> tuple[float, ...]:
    bundle = bundle_of(model)
    started = time.perf_counter()
    said = run(REFERENCE, model)
    process = time.perf_counter() - started
    taken = timed(lambda: probe(bundle, engine=GOOD_ENGINE))
    forget(model)
    without = timed(lambda: run(REFERENCE, model))
    forget(model)
    added = timed(lambda: probe(bundle, engine=GOOD_ENGINE)) + timed(lambda: run(REFERENCE, model)) - without
    return said["load"], said["prompts"], said["sentence"], taken, process, added


def memory(model: Path) -> dict[str, int]:
    """Bytes: of the app before and after a probe, and of the probe at most."""
    return run(APP, model)


def run(program: str, model: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", program, str(model)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=600)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def forget(model: Path) -> None:
    """Let the system drop the file from its memory, as on a device that was started again."""
    if not hasattr(os, "posix_fadvise"):
        return
    descriptor = os.open(model, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def timed(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started
