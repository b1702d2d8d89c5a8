"""What a swap costs: the start of a session that makes a staged model current, without the load of the model.

    swap.py [--runs 51] [--json]

A swap is one durable write of the state, so a model of 1 GB must cost what one of 1 MB costs. Both take turns, each in
a store of its own, going to and fro between two models. The models are sparse files: a swap reads none of their bytes.
"""

import argparse
import hashlib
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from overair.device.download import stage
from overair.device.session import Session
from overair.model.release import Artifact, Release
from overair.store.store import Store

SIZES = {"1 MB": 1_000_000, "1 GB": 1_000_000_000}
TARGET_MS = 20.0
WARM_UP_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Figure:
    """The wall time of the start of a session that swaps, in milliseconds, over all rounds."""

    median_ms: float
    min_ms: float
    max_ms: float


class Device:
    """A store with two models of one size, one of them current.

    Args:
        folder: Where the store is made.
        size_bytes: The length of each model.
    """

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self._store = Store(folder)
        self._store.create()
        self._releases: list[Release] = []
        for version in ("1.0.0", "1.1.0"):
            # A confirm collects what no slot names: the second model comes after that of the first.
            self._releases.insert(0, self._bring(version, size_bytes))
            self._swap_in(self._releases[0])

    def swap(self) -> float:
        """Stage the model that is not current, and swap it in; returns the milliseconds of the swap alone."""
        self._releases.reverse()
        return self._swap_in(self._releases[0])

    def _swap_in(self, release: Release) -> float:
        stage(self._store, release)
        session = Session(self._store, None)
        started = time.perf_counter()
        with session:
            taken = (time.perf_counter() - started) * 1000
            if session.bundle.version != release.version:
                raise AssertionError(f"{session.bundle.version} runs, and {release.version} was staged")
            session.confirm()
        return taken

    def _bring(self, version: str, size_bytes: int) -> Release:
        arrived = self._store.layout.partial / version
        with arrived.open("xb") as file:
            file.write(version.encode())
            file.truncate(size_bytes)
        with arrived.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        url = f"https://cdn.example.com/{digest}"
        artifact = Artifact(role="model", name="model.gguf", url=url, size_bytes=size_bytes, sha256=digest)
        self._store.blobs.adopt(arrived, artifact)
        return Release(tier="1b", version=version, artifacts=(artifact,))


def measure(folder: Path, runs: int) -> dict[str, list[float]]:
    """Milliseconds of every swap, in rounds of one of each size; which comes first changes from round to round."""
    devices = {name: Device(folder / str(size), size) for name, size in SIZES.items()}
    times: dict[str, list[float]] = {name: [] for name in SIZES}
    for number in range(WARM_UP_ROUNDS + runs):
        for name in sorted(devices, reverse=number % 2 == 1):
            times[name].append(devices[name].swap())
    return {name: taken[WARM_UP_ROUNDS:] for name, taken in times.items()}


def table(figures: dict[str, Figure], runs: int, ratio: float) -> str:
    lines = [f"{runs} swaps each, ms    median     min     max"]
    lines += [f"model of {name:12}{f.median_ms:8.1f}{f.min_ms:8.1f}{f.max_ms:8.1f}" for name, f in figures.items()]
    return "\n".join([*lines, f"1 GB to 1 MB: {ratio:.2f}x; target: < {TARGET_MS:.0f} ms on an idle machine"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of a swap, by the size of the model")
    parser.add_argument("--runs", type=int, default=51, help="rounds that count, after the warm-up (default: 51)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times = measure(Path(folder), options.runs)
    figures = {name: Figure(median(taken), min(taken), max(taken)) for name, taken in times.items()}
    small, large = (figures[name].median_ms for name in SIZES)
    if options.json:
        sizes = {name: asdict(f) for name, f in figures.items()}
        print(json.dumps({"runs": options.runs, "target_ms": TARGET_MS, "ratio": large / small, "models": sizes}))
    else:
        print(table(figures, options.runs, large / small))


if __name__ == "__main__":
    main()
