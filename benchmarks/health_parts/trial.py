"""What becomes of a case on a device that does not probe: real sessions, each in a process of its own."""

import atexit
import functools
import json
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from health_parts.cases import GOOD_ENGINE, App, Case

from overair.core.fit import adapters_on_another_base
from overair.device.download import stage
from overair.device.updater import Updater
from overair.model.release import Artifact, Bundle, Release, Role
from overair.store.store import Store
from support.published import sha256_of
from support.tiny_model import bundle_of, write_tiny_model

TIER: Final = "1b"
GOOD_VERSION: Final = "1.0.0"
VERSION: Final = "2.0.0"
SILENCE_SECONDS: Final = 4.0
MAX_STARTS: Final = 6
APP: Final = Path(__file__).with_name("app.py")


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of a release.

    Args:
        caught: The device went back and quarantined it.
        starts: How often it was started until then, or in all.
        reason: What the quarantine says.
        unfit: Why no device would have downloaded it, or an empty text.
    """

    caught: bool
    starts: int
    reason: str = ""
    unfit: str = ""


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of the app.

    Args:
        loaded: It came to the load of the release that the case is about.
        version: What answered, or None when it did not come so far.
        came: The answers.
        failed: The answers that failed.
        errors: What it wrote to descriptor 2.
    """

    loaded: bool
    version: str | None
    came: int
    failed: int
    errors: str


def on_trial(case: Case) -> Trial:
    """Put a good release on a device, then that of the case, and start the app until the device goes back.

    Raises:
        RuntimeError: The good release does not answer, before or after.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = copy_of_the_good_device(folder)
        release = brought(store, case.build(folder), VERSION, case.base_sha256)
        stage(store, release)
        unfit, starts, looked_good = adapters_on_another_base(release), 0, 0
        for _ in range(max(case.app.starts, MAX_STARTS)):
            ran = run_app(store, case.engine, VERSION, case.app)
            starts += ran.loaded
            reason = next((q.reason for q in store.read().quarantine if q.release_id == release.id), None)
            if reason is not None:
                require_good(run_app(store, case.engine, VERSION, App()), GOOD_VERSION)
                return Trial(True, starts, reason, unfit)
            looked_good += ran.version == VERSION
            if max(looked_good, starts if case.good else 0) >= case.app.starts:
                break
        current = store.read().current
        return Trial(current is None or current.id != release.id, starts, unfit=unfit)


def copy_of_the_good_device(folder: Path) -> Store:
    """A device whose current release is proven; made once, since it is the same each time."""
    return Store(shutil.copytree(good_device(), folder / "device"))


@functools.cache
def good_device() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="health-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # whoever tests this may have cleaned up
    Updater(folder / "device", url="https://cdn.example.com/manifest.json", tier=TIER, insecure=True)
    store = Store(folder / "device")
    stage(store, brought(store, bundle_of(write_tiny_model(folder / "good.gguf", seed=7)), GOOD_VERSION))
    require_good(run_app(store, GOOD_ENGINE, GOOD_VERSION, App()), GOOD_VERSION)
    return store.layout.root


def require_good(ran: Ran, version: str) -> None:
    if ran.version != version or ran.failed:
        raise RuntimeError(f"{version} does not answer: {ran}")


def brought(store: Store, bundle: Bundle, version: str, base_sha256: str | None = None) -> Release:
    """Put the files of a bundle into a store, as a download does that has verified them."""
    roles: list[tuple[Role, Path | None]] = [("model", bundle.model), ("template", bundle.template)]
    roles += [("adapter", path) for path in bundle.adapters]
    artifacts = tuple(adopted(store, role, path, base_sha256) for role, path in roles if path is not None)
    return Release(tier=TIER, version=version, artifacts=artifacts)


def adopted(store: Store, role: Role, path: Path, base_sha256: str | None) -> Artifact:
    digest = sha256_of(path)
    artifact = Artifact(
        role=role,
        name=path.name,
        url=f"https://cdn.example.com/{digest}",
        size_bytes=path.stat().st_size,
        sha256=digest,
        base_sha256=base_sha256 if role == "adapter" else None,
    )
    if not store.blobs.has(artifact):
        arrived = store.layout.partial / digest
        shutil.copyfile(path, arrived)
        store.blobs.adopt(arrived, artifact)
    return artifact


def run_app(store: Store, engine: str, version: str, app: App) -> Ran:
    """Run the app once; when it says nothing for longer than it may take, it is killed, as by a user."""
    options = {
        "answers": app.answers,
        "max_tokens": app.max_tokens,
        "crashes": app.crashes,
        "memory_bytes": app.memory_bytes,
        "timeout_s": app.timeout_s,
    }
    command = [sys.executable, str(APP), str(store.layout.root), engine, version, json.dumps(options)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        said = follow(process, app)
        errors.seek(0)
        text = errors.read().decode(errors="replace")
    last = json.loads(said[-1]) if said and said[-1].startswith("{") else {"version": None, "came": 0, "failed": 0}
    return Ran("loading" in said, errors=text[-2000:], **last)


def follow(process: subprocess.Popen[str], app: App) -> list[str]:
    """What the app says until its end."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=put_lines, args=(cast("IO[str]", process.stdout), lines), daemon=True).start()
    said: list[str] = []
    try:
        while (line := lines.get(timeout=app.timeout_s + SILENCE_SECONDS)) is not None:
            said.append(line.strip())
            if said[-1] in app.signal_at:
                process.send_signal(app.signal_at[said[-1]])
    except queue.Empty:
        pass
    process.kill()
    process.wait()
    return said


def put_lines(stream: IO[str], lines: "queue.SimpleQueue[str | None]") -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)
