"""Real file systems that are small, for tests as root."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(point: Path) -> Iterator[Path]:
    """A real file system of 1 MB, mounted at `point`; the test is skipped where that is not possible."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a file system")
    point.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(point)], check=False, timeout=10)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let us mount")
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True, timeout=10)


def fill(folder: Path) -> Path:
    """Leave no byte free on the disk of a folder; returns the file that takes the space."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    assert shutil.disk_usage(folder).free == 0
    return filler
