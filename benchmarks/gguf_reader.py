"""How much faster, and in how much less memory, Overair reads the head of a GGUF than `gguf.GGUFReader`.

Both read the same file in fresh processes, one after the other in turn, after a pair that warms the file cache.
A time is that of the reading alone: imports are not in it. A peak is that of the whole process.

    python benchmarks/gguf_reader.py [--json] [--pairs N] [MODEL.gguf …]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

MODELS = Path(__file__).resolve().parents[1] / ".models"
TIMEOUT_SECONDS = 600
MB = 1_000_000


class Reading(NamedTuple):
    """What one process took: seconds for reading, bytes of memory at its peak, tensors found."""

    seconds: float
    peak_bytes: int
    tensors: int


def peak_bytes() -> int:
    """Return the most memory that this process has had."""
    status = Path("/proc/self/status")
    if status.exists():  # the rusage of a child on Linux begins with the memory of its parent
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        import psutil  # only here, so that it is in no measurement elsewhere

        return int(psutil.Process().memory_info().peak_wset)
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def read_ours(path: Path) -> Reading:
    from overair.formats.gguf import read_gguf  # the other side must not pay for it

    start = time.perf_counter()
    with path.open("rb") as file:
        gguf = read_gguf(file, path.stat().st_size)
    return Reading(time.perf_counter() - start, peak_bytes(), len(gguf.tensors))


def read_theirs(path: Path) -> Reading:
    from gguf import GGUFReader  # the other side must not pay for it

    start = time.perf_counter()
    reader = GGUFReader(path)
    return Reading(time.perf_counter() - start, peak_bytes(), len(reader.tensors))


def in_a_fresh_process(side: str, path: Path) -> Reading:
    command = [sys.executable, __file__, "--child", side, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_SECONDS)
    return Reading(*json.loads(done.stdout))


def measure(path: Path, pairs: int) -> dict[str, Any]:
    readings: dict[str, list[Reading]] = {"ours": [], "theirs": []}
    for number in range(pairs + 1):
        for side, done in readings.items():
            reading = in_a_fresh_process(side, path)
            if number:  # the first pair warms the file cache
                done.append(reading)
    ours, theirs = readings["ours"], readings["theirs"]
    if {reading.tensors for reading in ours} != {reading.tensors for reading in theirs}:
        raise SystemExit(f"{path.name}: the two readers do not find the same tensors")
    ratios = [slow.seconds / fast.seconds for fast, slow in zip(ours, theirs, strict=True)]
    return {
        "model": path.name,
        "file_bytes": path.stat().st_size,
        "pairs": pairs,
        "times_faster": statistics.median(ratios),
        "times_faster_min": min(ratios),
        "times_faster_max": max(ratios),
        **{f"{side}_{name}": value for side, done in readings.items() for name, value in figures(done).items()},
    }


def figures(readings: list[Reading]) -> dict[str, float]:
    seconds = [reading.seconds for reading in readings]
    return {
        "seconds": statistics.median(seconds),
        "seconds_min": min(seconds),
        "seconds_max": max(seconds),
        "peak_bytes": max(reading.peak_bytes for reading in readings),
    }


def line(result: dict[str, Any]) -> str:
    def side(name: str) -> str:
        median, low, high, peak = (
            result[f"{name}_{f}"] for f in ("seconds", "seconds_min", "seconds_max", "peak_bytes")
        )
        return f"{median:.3f} s ({low:.3f} to {high:.3f}), peak {peak / MB:.1f} MB"

    ratio, low, high = (result[name] for name in ("times_faster", "times_faster_min", "times_faster_max"))
    return (
        f"{result['model']}: {ratio:.0f} times faster ({low:.0f} to {high:.0f}, {result['pairs']} pairs)\n"
        f"  overair     {side('ours')}\n"
        f"  GGUFReader  {side('theirs')}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, default=sorted(MODELS.glob("*.gguf")), metavar="MODEL.gguf")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--child", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.models:
        parser.error(f"no models: name some, or put some into {MODELS}")
    if arguments.child:
        read = read_ours if arguments.child == "ours" else read_theirs
        print(json.dumps(read(arguments.models[0])))
        return
    results = []
    for path in arguments.models:
        results.append(measure(path, arguments.pairs))
        if not arguments.json:
            print(line(results[-1]), flush=True)
    if arguments.json:
        print(json.dumps({"results": results}, indent=2))


if __name__ == "__main__":
    main()
