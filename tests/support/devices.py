"""Stores with releases in them, and other processes that use them."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from overair.device.download import stage
from overair.model.release import Artifact, Release
from overair.store.store import Store

SUPPORT = Path(__file__).resolve().parent


def new_store(folder: Path) -> Store:
    store = Store(folder)
    store.create()
    return store


def bring(store: Store, version: str, script: str = "", *, adapter: str | None = None) -> Release:
    """Put the blobs of a release of scripted text into a store."""
    texts = {"model": f"model {version}\n{script}"} | ({"adapter": adapter} if adapter is not None else {})
    artifacts: list[Artifact] = []
    for role, text in texts.items():
        data = text.encode()
        digest = hashlib.sha256(data).hexdigest()
        arrived = store.layout.partial / digest
        arrived.write_bytes(data)
        artifact = Artifact(
            role="adapter" if role == "adapter" else "model",
            name=f"{role}.gguf",
            url=f"https://cdn.example.com/{digest}",
            size_bytes=len(data),
            sha256=digest,
        )
        store.blobs.adopt(arrived, artifact)
        artifacts.append(artifact)
    return Release(tier="1b", version=version, artifacts=tuple(artifacts))


def staged(store: Store, version: str, script: str = "", *, adapter: str | None = None) -> Release:
    release = bring(store, version, script, adapter=adapter)
    stage(store, release)
    return release


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start `child.py` with these arguments; it says `ready` when it is where the test wants it."""
    environment = os.environ | {"PYTHONPATH": str(SUPPORT.parent)}
    command = [sys.executable, str(SUPPORT / "child.py"), *arguments]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def start_ready(*arguments: str) -> subprocess.Popen[str]:
    child = start(*arguments)
    assert child.stdout is not None
    line = child.stdout.readline()
    if line != "ready\n":
        raise AssertionError(f"the child did not get ready: {line!r} {child.communicate(timeout=30)[1]}")
    return child


def kill(child: subprocess.Popen[str]) -> None:
    """End a child that waits, without any chance to clean up."""
    child.kill()
    child.communicate(timeout=30)
    assert child.returncode == -signal.SIGKILL


def finish(child: subprocess.Popen[str]) -> None:
    """Let a child that waits go on to its end."""
    _, errors = child.communicate("go on\n", timeout=30)
    assert child.returncode == 0, errors


def dies_in_session(store: Store, *what: str) -> None:
    """Run a session in a process whose model kills it."""
    child = start("session", str(store.layout.root), *what)
    child.communicate(timeout=30)
    assert child.returncode == -signal.SIGKILL
