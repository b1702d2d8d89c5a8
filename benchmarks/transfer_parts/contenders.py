"""Who downloads: Overair, curl, aria2 and the libraries of Python, each in a process of its own."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transfer_parts.site import Served, Site

LIMIT_S = 600
SCRIPT = Path(__file__).with_name("download.py")


@dataclass(frozen=True, slots=True)
class Job:
    """What a contender is told."""

    url: str
    served: Served
    destination: Path
    site: Site


@dataclass(frozen=True, slots=True)
class Run:
    """What one process took: seconds of wall, of the transfer alone and of CPU, bytes of memory at its peak."""

    wall_s: float
    transfer_s: float
    cpu_s: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to download, and the program, or the module of Python, that it needs."""

    name: str
    command: Callable[[Job], list[str]]
    program: str = ""
    module: str = ""

    def is_here(self, site: Site) -> bool:
        if self.program:
            return shutil.which(self.program) is not None
        if not self.module:
            return True
        command = [site.peers, "-c", f"import {self.module}"]
        return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 0


def overair(connections: int | None = None) -> Contender:
    """Overair with a fixed number of connections, or with as many as it finds useful."""
    name = f"overair-{connections}" if connections else "overair"
    return Contender(name, lambda job: _python(sys.executable, name, job))


def library(name: str) -> Contender:
    return Contender(name, lambda job: _python(job.site.peers, name, job), module=name)


def _python(python: str, who: str, job: Job) -> list[str]:
    certificate = str(job.site.certificate) if job.url.startswith("https:") else ""
    about = [job.url, str(job.destination), str(job.served.size_bytes), job.served.sha256, certificate]
    return [python, str(SCRIPT), who, *about, str(job.served.index)]


def _curl(job: Job) -> list[str]:
    return ["curl", "-q", "-sSk", "-o", str(job.destination), job.url]


def _aria2(job: Job) -> list[str]:
    to = ["-d", str(job.destination.parent), "-o", job.destination.name]
    options = ["-q", "--no-conf", "--check-certificate=false", f"--checksum=sha-256={job.served.sha256}"]
    return ["aria2c", *options, "-x4", "-s4", *to, job.url]


CURL = Contender("curl", _curl, program="curl")
ARIA2 = Contender("aria2c", _aria2, program="aria2c")
HUGGINGFACE = library("huggingface_hub")
OBSTORE, HTTPX, URLLIB3 = library("obstore"), library("httpx"), library("urllib3")
OTHERS = [URLLIB3, OBSTORE, library("requests"), HTTPX, library("aiohttp"), library("pooch")]


def run_once(contender: Contender, job: Job, *, look: bool) -> Run:
    """Download into a new folder, with nothing left to write from before; with `look`, see that the file is right."""
    job.destination.parent.mkdir()
    os.sync()
    began = time.perf_counter()
    process = subprocess.Popen(contender.command(job), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = Peak(process.pid)
    timer = threading.Timer(LIMIT_S, process.kill)
    timer.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    output, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{contender.name} failed with {process.returncode}: {errors[-2000:]}")
    if look and _sha256(job.destination) != job.served.sha256:
        raise SystemExit(f"{contender.name} wrote another file")
    shutil.rmtree(job.destination.parent)
    return Run(wall, wall if contender.program else float(output), usage.ru_utime + usage.ru_stime, peak.bytes)


class Peak:
    """Watches the most memory that a process has had: `ru_maxrss` of a child begins with that of its parent."""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._status = Path(f"/proc/{pid}/status")
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        with contextlib.suppress(OSError):  # it has ended
            while line := next((x for x in self._status.read_text().splitlines() if x.startswith("VmHWM")), ""):
                self.bytes = int(line.split()[1]) * 1024
                time.sleep(0.01)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
