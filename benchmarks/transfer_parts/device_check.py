"""What `overair device check` asks of a repository that has not changed, and what it imports."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from transfer_parts.site import Site

HEAVY = {"numpy", "rich", "obstore"}
WRITE_MODEL = """
import sys
from pathlib import Path
from overair.cli.tiny_model import write_tiny_model
write_tiny_model(Path(sys.argv[1]))
"""


@dataclass(frozen=True, slots=True)
class Check:
    """Requests of a warm check, which of them were answered with a body, and the heavy modules that it imported."""

    requests: list[str]
    seconds: list[float]
    heavy_modules: list[str]


def overair(*arguments: str, importtime: bool = False) -> str:
    """Run a command of Overair; returns its standard error."""
    options = ["-X", "importtime"] if importtime else []
    environment = os.environ | {"OVERAIR_PASSPHRASE": "benchmark"}
    command = [sys.executable, *options, "-m", "overair", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=environment)
    if done.returncode:
        raise SystemExit(f"overair {' '.join(arguments)} failed: {done.stderr[-2000:]}")
    return done.stderr


def check_once_warm(site: Site, rounds: int) -> Check:
    """Publish a small model, let a device install it, and watch it ask again."""
    model, repository, store = site.folder / "model.gguf", site.folder / "served" / "repository", site.folder / "store"
    url = f"{site.http}/repository"
    subprocess.run([sys.executable, "-c", WRITE_MODEL, str(model)], check=True, timeout=60)
    overair("repo", "init", "--repo", str(repository), "--base-url", url, "--dev")
    overair("repo", "publish", str(model), "--repo", str(repository), "--tier", "1b", "--version", "1.0.0")
    root = next(repository.rglob("*root.json"))
    overair("device", "init", "--store", str(store), "--url", url, "--root", str(root), "--tier", "1b")
    overair("device", "check", "--store", str(store))
    log, seconds = site.folder / "access.log", []
    for _ in range(rounds):
        log.write_text("")
        began = time.perf_counter()
        overair("device", "check", "--store", str(store))
        seconds.append(time.perf_counter() - began)
    requests = lines_of(log)
    imports = overair("device", "check", "--store", str(store), importtime=True)
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in imports.splitlines()}
    return Check(requests, seconds, sorted(modules & HEAVY))


def lines_of(log: Path) -> list[str]:
    """What the server wrote down, once it has written for a while; a line follows its answer."""
    known: list[str] = []
    while not known or known != log.read_text().splitlines():
        known = log.read_text().splitlines()
        time.sleep(0.1)
    return [line.split('"')[1] + " " + line.split('"')[2].split()[0] for line in known]
