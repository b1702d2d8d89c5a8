"""How fast, and in how much memory, Overair downloads, beside what people use today.

    transfer.py [CASE …] [--quick] [--rounds 5] [--sparse-gb 4] [--peers PYTHON] [--json FILE]

An nginx of our own on loopback serves random bytes. In each round every contender downloads them once, in a fresh
process, in turn; the next round begins with another. A ratio is one of two contenders in the same round, and the
table has the median and the extremes of all rounds. Wall is that of the whole process, the start of Python included;
transfer is without it. Overair verifies SHA-256 and ends with fsync; aria2c, huggingface_hub and pooch verify; curl
and the others do neither. CPU is user and system, peak memory is VmHWM.

nginx, curl and aria2 come from Debian (nginx-light, curl, aria2, openssl), the Python libraries from
`benchmarks/peers.txt`, in an environment whose Python `--peers` names. What is not there is left out, and named.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from transfer_parts import contenders
from transfer_parts.contenders import CURL, Contender, Job, Run, overair, run_once
from transfer_parts.device_check import Check, check_once_warm
from transfer_parts.site import MIB, ROUND_TRIP_MS, WINDOW_BYTES, Served, Site, make_site

MB = 1_000_000
MAX_CHECK_REQUESTS = 2


@dataclass(frozen=True, slots=True)
class Case:
    """Contenders that download the same file, in turn."""

    title: str
    contenders: list[Contender]
    url: Callable[[Site], str]
    served: Callable[[Site], Served]
    rounds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound on the ratio between two contenders of a case, or on the most memory of one in MB."""

    case: str
    what: str
    ours: str
    theirs: str = ""
    metric: str = "wall_s"
    bound: float
    at_least: bool = False

    def values(self, runs: dict[str, list[Run]]) -> list[float]:
        """One value a round; none where a contender is not here."""
        mine = [getattr(run, self.metric) for run in runs.get(self.ours, [])]
        if not self.theirs:
            return [value / MB for value in mine]
        others = [getattr(run, self.metric) for run in runs.get(self.theirs, [])]
        return [a / b for a, b in zip(mine, others, strict=bool(others))]

    def met(self, values: list[float]) -> bool:
        if not self.theirs:
            return max(values) <= self.bound
        return median(values) >= self.bound if self.at_least else median(values) <= self.bound


CASES = {
    "plain": Case(
        "HTTP, nginx on loopback",
        [overair(1), CURL, overair(4), contenders.ARIA2, contenders.HUGGINGFACE, overair(), *contenders.OTHERS],
        lambda site: f"{site.http}/{site.full.name}",
        lambda site: site.full,
    ),
    "https": Case(
        "HTTPS, nginx on loopback",
        [overair(1), CURL, overair(4), contenders.OBSTORE, contenders.HTTPX, contenders.URLLIB3],
        lambda site: f"{site.https}/{site.full.name}",
        lambda site: site.full,
    ),
    "limited": Case(
        "nginx allows 20 MiB/s to each connection (`limit_rate 20m`)",
        [overair(), overair(1)],
        lambda site: f"{site.http}/limited/{site.part.name}",
        lambda site: site.part,
    ),
    "far": Case(
        f"a relay delays: {ROUND_TRIP_MS} ms a round trip, {WINDOW_BYTES // MIB} MiB under way in each connection",
        [overair(), overair(1)],
        lambda site: f"{site.far}/{site.part.name}",
        lambda site: site.part,
    ),
    "sparse": Case(
        "a large file, for the memory that it takes",
        [overair(), overair(4), overair(1)],
        lambda site: f"{site.http}/{site.sparse.name}",
        lambda site: site.sparse,
        rounds=1,
    ),
}

TARGETS = [
    Target(case="plain", what="one connection, wall to curl", ours="overair-1", theirs="curl", bound=0.75),
    Target(
        case="plain", what="one connection, CPU to curl", ours="overair-1", theirs="curl", metric="cpu_s", bound=1.0
    ),
    Target(case="plain", what="four connections, wall to curl", ours="overair-4", theirs="curl", bound=0.5),
    Target(case="plain", what="four connections, wall to aria2c", ours="overair-4", theirs="aria2c", bound=0.2),
    Target(
        case="plain",
        what="four connections, wall to huggingface_hub",
        ours="overair-4",
        theirs="huggingface_hub",
        bound=0.2,
    ),
    Target(case="https", what="HTTPS, four connections, wall to curl", ours="overair-4", theirs="curl", bound=0.9),
    *(
        Target(
            case=case,
            what=f"{what}, rate to one connection",
            ours="overair-1",
            theirs="overair",
            metric="transfer_s",
            bound=3.5,
            at_least=True,
        )
        for case, what in (("limited", "20 MiB/s a connection"), ("far", f"{ROUND_TRIP_MS} ms round trip"))
    ),
    *(
        Target(case=name, what=f"peak MB, {name}, {c.name}", ours=c.name, metric="peak_bytes", bound=48)
        for name, case in CASES.items()
        for c in case.contenders
        if c.name.startswith("overair")
    ),
]


def measure(case: Case, site: Site, rounds: int) -> dict[str, list[Run]]:
    """All runs of a case by contender."""
    here = [contender for contender in case.contenders if contender.is_here(site)]
    runs: dict[str, list[Run]] = {contender.name: [] for contender in here}
    for number in range(case.rounds or rounds):
        first = number % len(here)
        for contender in here[first:] + here[:first]:
            job = Job(case.url(site), case.served(site), site.folder / "arrived" / "model.bin", site)
            run = run_once(contender, job, look=number == 0)
            runs[contender.name].append(run)
            print(f"  {contender.name:16}{run.wall_s:7.2f} s", file=sys.stderr, flush=True)
    return runs


def spread(values: list[float], digits: int = 2) -> str:
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def case_table(case: Case, served: Served, runs: dict[str, list[Run]]) -> str:
    base = "curl" if "curl" in runs else "overair-1"
    rounds = len(runs["overair-1"])
    lines = [
        f"\n{case.title}; {served.size_bytes / MIB:.0f} MiB, {rounds} round{'s' * (rounds > 1)}\n",
        f"| | wall, s | transfer, s | wall to {base} | CPU, s | CPU to {base} | peak, MB |",
        "|-|-|-|-|-|-|-|",
    ]
    for name, done in runs.items():
        wall = [a.wall_s / b.wall_s for a, b in zip(done, runs[base], strict=True)]
        cpu = [a.cpu_s / b.cpu_s for a, b in zip(done, runs[base], strict=True)]
        seconds = [spread([getattr(r, m) for r in done]) for m in ("wall_s", "transfer_s")]
        cells = [*seconds, spread(wall), f"{median(r.cpu_s for r in done):.2f}", spread(cpu)]
        lines.append(f"| {name} | {' | '.join(cells)} | {max(r.peak_bytes for r in done) / MB:.0f} |")
    if missing := [c.name for c in case.contenders if c.name not in runs]:
        lines.append(f"\nNot installed here: {', '.join(missing)}.")
    return "\n".join(lines)


def target_table(results: dict[str, dict[str, list[Run]]], check: Check | None) -> str:
    lines = ["\n| figure | target | measured | |", "|-|-|-|-|"]
    for target in TARGETS:
        if values := target.values(results.get(target.case, {})):
            bound = f"{'at least' if target.at_least else 'at most'} {target.bound:g}"
            verdict = "met" if target.met(values) else "NOT MET"
            lines.append(f"| {target.what} | {bound} | {spread(values, 0 if target.bound > 9 else 2)} | {verdict} |")
    if check:
        met = "met" if len(check.requests) <= MAX_CHECK_REQUESTS and not check.heavy_modules else "NOT MET"
        measured = f"{len(check.requests)} requests, {', '.join(check.heavy_modules) or 'none of them'}"
        what = "warm `device check`: requests; imports of numpy, rich, obstore"
        lines.append(f"| {what} | at most {MAX_CHECK_REQUESTS}, none | {measured} | {met} |")
    return "\n".join(lines)


def machine(peers: str) -> str:
    def version(*command: str) -> str:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        return (done.stdout or done.stderr).splitlines()[0]

    programs = {"curl": ["curl", "-V"], "aria2c": ["aria2c", "-v"], "nginx": ["nginx", "-v"], "peers": [peers, "-V"]}
    found = [version(*command)[:40] for command in programs.values() if shutil.which(command[0])]
    load = os.getloadavg()[0]
    about = f"Linux {platform.release()}, {os.cpu_count()} cores, load {load:.1f}, Python {platform.python_version()}"
    return f"{about}, overair {importlib.metadata.version('overair')}; {'; '.join(found)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}, check (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="2 rounds of 256 MiB, to see that all works")
    parser.add_argument("--sparse-gb", type=int, default=4, help="the large file (default: 4)")
    parser.add_argument(
        "--peers", default=default_peers(), metavar="PYTHON", help="one that has the libraries of others"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run there")
    options = parser.parse_args()
    chosen = options.cases or [*CASES, "check"]
    if unknown := set(chosen) - {*CASES, "check"}:
        parser.error(f"no such case: {', '.join(unknown)}")
    if shutil.which("nginx") is None or shutil.which("openssl") is None:
        parser.error("nginx and openssl are needed: apt install nginx-light openssl")
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    scale, rounds = (4, 2) if options.quick else (1, options.rounds)
    sizes = {"full": 1024 * MIB // scale, "part": 256 * MIB // scale, "sparse": options.sparse_gb * 1000 * MB // scale}
    if "sparse" not in chosen:
        sizes["sparse"] = MIB
    print(machine(options.peers), flush=True)
    with tempfile.TemporaryDirectory() as folder, make_site(Path(folder), options.peers, **sizes) as site:
        report(site, chosen, rounds, options.json)


def report(site: Site, chosen: list[str], rounds: int, to: Path | None) -> None:
    results: dict[str, dict[str, list[Run]]] = {}
    for name in [name for name in CASES if name in chosen]:
        results[name] = measure(CASES[name], site, rounds)
        print(case_table(CASES[name], CASES[name].served(site), results[name]), flush=True)
    check = check_once_warm(site, rounds) if "check" in chosen else None
    print(target_table(results, check))
    if to:
        plain: dict[str, Any] = {
            case: {who: [asdict(run) for run in done] for who, done in runs.items()} for case, runs in results.items()
        }
        to.write_text(
            json.dumps({"machine": machine(site.peers), "cases": plain, "check": asdict(check) if check else None})
        )


def default_peers() -> str:
    """The environment that README.md makes for them, or this one."""
    python = Path(__file__).resolve().parents[1] / ".venv-peers" / "bin" / "python"
    return str(python) if python.exists() else sys.executable


if __name__ == "__main__":
    main()
