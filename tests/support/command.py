"""The installed command `overair`, run as a user runs it."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = Path(sys.executable).with_name("overair")
TIMEOUT_S = 120


@dataclass(frozen=True)
class Ran:
    """What a command left: its exit code, what it printed, and its JSON object if it printed one."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


def run(*words: str | Path, env: dict[str, str] | None = None) -> Ran:
    """Run `overair WORDS`, whatever its exit code will be."""
    done = subprocess.run(
        [COMMAND, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def ask(*words: str | Path, code: int = 0) -> dict[str, Any]:
    """Run `overair WORDS --json`, expect an exit code, and return the object it prints."""
    ran = run(*words, "--json")
    assert ran.code == code, f"overair {' '.join(map(str, words))} ended with {ran.code}: {ran.err}"
    return ran.data


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(repo: Path, port: int) -> Iterator[None]:
    """`overair repo serve` in another process, for as long as the block runs."""
    words = [str(COMMAND), "repo", "serve", "--repo", str(repo), "--port", str(port)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert "serving" in server.stdout.readline()
            yield
        finally:
            server.terminate()
            server.wait(TIMEOUT_S)
