"""A publisher that dies, that runs out of disk, or that is not alone."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from overair.errors import LockedError, NoSpaceError, StorageError
from overair.model.manifest import Manifest, parse_manifest
from overair.publish.repository import Repository
from overair.trust import dsse
from support.disks import fill
from support.published import BASE_URL, Clock, FolderDevice, files_below, model_file

CHILD = """
import sys
from datetime import UTC, datetime
from overair.errors import OverairError
from overair.publish.repository import Repository
_, folder, command, model, keys = sys.argv
clock = lambda: datetime(2026, 11, 23, 11, tzinfo=UTC)
passphrase = lambda name: "secret of " + name
try:
    if command == "init":
        Repository.init(
            folder, base_url="https://cdn.example.com/models", keys=keys, passphrase=passphrase, clock=clock
        )
        sys.exit(0)
    repo = Repository(folder, keys=keys, passphrase=passphrase, clock=clock)
    if command.startswith("rotate "):
        repo.rotate(command.partition(" ")[2])
    elif command == "publish":
        repo.publish(model, tier="1b", version="1.2.0", probe=False)
    else:
        repo.rollback(tier="1b", reason="bad")
except OverairError as error:
    sys.exit(error.exit_code)
"""
CHANGING_CALLS = ("write", "fsync", "rename", "mkdir", "unlink", "openat")
KILLED = 137
# A file is six calls, so every fifth meets each of them in turn. `make sweep` tries them all.
EVERY = 1 if os.environ.get("OVERAIR_SWEEP") else 5

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_file(tmp_path / "new.gguf", 3, floats=300_000)


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A repository with two releases, and its one open key in `start-keys`."""
    return with_two_releases(Repository.init(tmp_path / "start", base_url=BASE_URL, dev=True, clock=Clock()), tmp_path)


@pytest.fixture
def start_of_many_keys(tmp_path: Path) -> Path:
    """The same, with real keys."""
    repo = Repository.init(tmp_path / "start", base_url=BASE_URL, passphrase=secret_of, clock=Clock())
    return with_two_releases(repo, tmp_path)


def with_two_releases(repo: Repository, tmp_path: Path) -> Path:
    for number in (1, 2):
        repo.publish(model_file(tmp_path / "m.gguf", number), tier="1b", version=f"1.{number - 1}.0", probe=False)
    return repo.folder


def secret_of(name: str) -> str:
    return f"secret of {name}"


def keys_of(folder: Path) -> Path:
    return folder.with_name("start-keys")


def copy_of(start: Path, place: Path) -> Path:
    """A copy of a repository, with its keys, in a folder of its own."""
    place.mkdir()
    for folder in (start, keys_of(start)):
        if folder.exists():
            shutil.copytree(folder, place / folder.name)
    return place / start.name


def run_child(folder: Path, command: str, model: Path, *strace: str) -> int:
    """Run a publisher under strace; returns its exit status, 137 if it was killed."""
    program = [sys.executable, "-B", "-c", CHILD, str(folder), command, str(model), str(keys_of(folder))]
    calls = f"trace={','.join(CHANGING_CALLS)}"
    tracer = ["strace", "-qq", "-f", "-o", "/dev/null", "-e", calls, *strace]
    done = subprocess.run(tracer + program, capture_output=True, timeout=60, check=False)
    assert done.stderr == b""
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def calls_of(start: Path, command: str, model: Path, tmp_path: Path) -> list[tuple[str, int]]:
    """Every changing call that a publisher makes to the tree and the keys: its name and its number in the process."""
    place, trace = tmp_path / "traced", tmp_path / "trace"
    assert run_child(copy_of(start, place), command, model, "-y", "-o", str(trace)) == 0
    shutil.rmtree(place)
    counts = dict.fromkeys(CHANGING_CALLS, 0)
    found = []
    for line in trace.read_text().splitlines():
        name = re.sub(r"^\d+\s+", "", line).partition("(")[0]
        if name in counts:
            counts[name] += 1
            if str(place) in line and not (name == "openat" and "O_CREAT" not in line):
                found.append((name, counts[name]))
    return found


def read(path: Path) -> Manifest:
    """What a reader makes of a plain copy."""
    return whole(path.read_bytes(), path.parent if (path.parent / "blobs").exists() else path.parent.parent)


def whole(data: bytes, folder: Path) -> Manifest:
    """A manifest, and every blob that it names is there."""
    manifest = parse_manifest(data)
    for entry in manifest.models.values():
        for one in (entry, entry.rollback, entry.candidate):
            if one is not None:
                blob = folder / one.url.removeprefix(BASE_URL + "/")
                assert hashlib.sha256(blob.read_bytes()).hexdigest() == one.sha256
    return manifest


def device_of(start: Path, folder: Path, store: Path) -> FolderDevice:
    """A device that has seen the state of `start`, and looks at `folder` now."""
    root = (keys_of(start) / "root.json").read_bytes()
    assert whole(FolderDevice(start, store, root).manifest(), start).sequence == 2
    return FolderDevice(folder, store)


def assert_readable(folder: Path, device: FolderDevice, versions: set[str]) -> None:
    """What is signed is the old or the new manifest, and plain copies and envelopes are not ahead of it."""
    states = {(2, "1.1.0"), *((3, version) for version in versions)}
    signed = whole(device.manifest(), folder)
    assert (signed.sequence, signed.current_version) in states
    for copy in (folder / "manifest.json", folder / "stable" / "manifest.json"):
        for manifest in (read(copy), whole(dsse.payload(envelope_of(copy).read_bytes()), folder)):
            assert (manifest.sequence, manifest.current_version) in states
            assert manifest.sequence <= signed.sequence


def envelope_of(copy: Path) -> Path:
    return copy.with_name("manifest.dsse.json")


def assert_finished(folder: Path, device: FolderDevice, version: str) -> None:
    repo = Repository(folder, keys=keys_of(folder), clock=Clock())
    assert [finding for finding in repo.check(deep=True) if finding.level == "error"] == []
    assert [entry.sequence for entry in repo.log()] == [3, 2, 1]
    assert not [name for name, _ in files_below(folder) if name.endswith(".tmp")]
    data = device.manifest()
    assert whole(data, folder).current_version == version
    for copy in (folder / "manifest.json", folder / "stable" / "manifest.json"):
        assert copy.read_bytes() == dsse.payload(envelope_of(copy).read_bytes()) == data


@needs_strace
def test_every_name_is_given_after_its_bytes_are_durable_and_before_the_next_step(
    start: Path, model: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    assert run_child(start, "publish", model, "-y", "-o", str(trace)) == 0
    root = re.escape(str(start))
    line = re.compile(rf'(write|fsync|rename)\((?:\d+<|")({root}[^">]*)(?:>|", "([^"]*)")')
    steps = [match.groups() for match in line.finditer(trace.read_text())]
    renames = [index for index, (call, _, _) in enumerate(steps) if call == "rename"]
    for index, following in zip(renames, [*renames[1:], len(steps)], strict=True):
        _, source, target = steps[index]
        about = [call for call, path, _ in steps[:index] if path == source]
        assert about[-1] == "fsync", f"{source} is renamed before it is synced"
        after = [path for call, path, _ in steps[index:following] if call == "fsync"]
        assert str(Path(target).parent) in after, f"the folder of {target} is not synced before the next step"
    targets = [Path(steps[index][2]).relative_to(start).as_posix() for index in renames]
    digest = hashlib.sha256((start / "manifest.json").read_bytes()).hexdigest()
    assert [re.sub(r"[0-9a-f]{2}/[0-9a-f]{64}$", "", target) for target in targets] == [
        "blobs/sha256/",
        "metadata/4.stable.json",
        "metadata/4.snapshot.json",
        f"targets/stable/{digest}.manifest.json",
        "metadata/timestamp.json",
        "stable/manifest.dsse.json",
        "manifest.dsse.json",
        "stable/manifest.json",
        "manifest.json",
    ]


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize(("command", "version"), [("publish", "1.2.0"), ("rollback", "1.0.0")])
def test_a_publisher_killed_at_any_call_leaves_a_whole_state_and_the_same_command_finishes(
    start: Path, model: Path, tmp_path: Path, command: str, version: str
) -> None:
    calls = calls_of(start, command, model, tmp_path)
    assert len(calls) > 50
    for name, number in calls[::EVERY]:
        folder = copy_of(start, tmp_path / "killed")
        rc = run_child(folder, command, model, "-e", f"inject={name}:signal=SIGKILL:when={number}")
        assert rc == KILLED, f"{name} {number} was not reached"
        device = device_of(start, folder, tmp_path / f"device-{name}-{number}")
        assert_readable(folder, device, {version})
        # At another time of day, so that the same command makes another manifest.
        repo = Repository(folder, keys=keys_of(start), clock=Clock())
        if command == "publish":
            repo.publish(model, tier="1b", version=version, probe=False)
        else:
            repo.rollback(tier="1b", reason="bad")
        assert_finished(folder, device, version)
        shutil.rmtree(folder.parent)


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("role", ["root", "targets", "online", "channel"])
def test_a_rotation_killed_at_any_step_leaves_devices_with_what_they_had_and_can_be_repeated(
    start_of_many_keys: Path, model: Path, tmp_path: Path, role: str
) -> None:
    start, command = start_of_many_keys, f"rotate {role}"
    for name, number in calls_of(start, command, model, tmp_path)[::5]:
        folder = copy_of(start, tmp_path / "killed")
        assert run_child(folder, command, model, "-e", f"inject={name}:signal=SIGKILL:when={number}") == KILLED
        device = device_of(start, folder, tmp_path / f"device-{name}-{number}")
        assert_readable(folder, device, set())
        assert run_child(folder, command, model) == 0
        assert_readable(folder, device, set())
        Repository(folder, passphrase=secret_of, clock=Clock()).publish(model, tier="1b", version="1.2.0", probe=False)
        assert_finished(folder, device, "1.2.0")
        shutil.rmtree(folder.parent)


@needs_strace
@pytest.mark.slow
def test_an_init_killed_at_any_step_can_be_repeated(tmp_path: Path, model: Path) -> None:
    nothing = tmp_path / "start"
    calls = calls_of(nothing, "init", model, tmp_path)
    assert len(calls) > 100
    for name, number in calls[::5]:
        folder = copy_of(nothing, tmp_path / "killed")
        assert run_child(folder, "init", model, "-e", f"inject={name}:signal=SIGKILL:when={number}") == KILLED
        assert run_child(folder, "init", model) == 0
        repo = Repository(folder, passphrase=secret_of, clock=Clock())
        repo.publish(model, tier="1b", version="1.0.0", probe=False)
        device = FolderDevice(folder, tmp_path / f"device-{name}-{number}", repo.root_path.read_bytes())
        assert device.manifest() == (folder / "manifest.json").read_bytes()
        repo.rotate("root")  # there are as many root keys as it takes
        assert [finding for finding in repo.check(deep=True) if finding.level == "error"] == []
        shutil.rmtree(folder.parent)


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "error"), [("write", "ENOSPC"), ("fsync", "EIO"), ("rename", "EIO"), ("openat", "EACCES")]
)
def test_a_call_that_fails_is_a_storage_error_and_the_same_command_finishes(
    start: Path, model: Path, tmp_path: Path, name: str, error: str
) -> None:
    for number in [number for called, number in calls_of(start, "publish", model, tmp_path) if called == name][::EVERY]:
        folder = copy_of(start, tmp_path / "failed")
        rc = run_child(folder, "publish", model, "-e", f"inject={name}:error={error}:when={number}")
        # The note of who holds the lock is the one thing that may fail.
        assert rc in {0, StorageError.exit_code}
        device = device_of(start, folder, tmp_path / f"device-{number}")
        assert_readable(folder, device, {"1.2.0"})
        assert not list(folder.glob("blobs/*.tmp"))
        Repository(folder, keys=keys_of(start), clock=Clock()).publish(model, tier="1b", version="1.2.0", probe=False)
        assert_finished(folder, device, "1.2.0")
        shutil.rmtree(folder.parent)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    if shutil.which("mount") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root mounts a small disk")
    tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)], check=False)
    if tried.returncode != 0:
        pytest.skip("this machine mounts no tmpfs")
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_full_disk_is_reported_and_what_was_published_stays(small_disk: Path, tmp_path: Path) -> None:
    repo = Repository.init(small_disk / "repo", base_url=BASE_URL, dev=True)
    repo.publish(model_file(tmp_path / "m.gguf", 1), tier="1b", version="1.0.0", probe=False)
    before = list(files_below(repo.folder))
    large = model_file(tmp_path / "large.gguf", 2, floats=1_000_000)
    with pytest.raises(NoSpaceError, match="No space left"):
        repo.publish(large, tier="1b", version="1.1.0", probe=False)
    assert list(files_below(repo.folder)) == before
    assert repo.check(deep=True) == []
    repo.publish(model_file(tmp_path / "small.gguf", 2), tier="1b", version="1.1.0", probe=False)
    assert read(repo.folder / "manifest.json").current_version == "1.1.0"


def test_a_disk_that_fills_at_any_page_leaves_a_whole_state(small_disk: Path, tmp_path: Path) -> None:
    folder, keys = small_disk / "repo", tmp_path / "start-keys"
    repo = Repository.init(folder, base_url=BASE_URL, keys=keys, dev=True, clock=Clock())
    for number in (1, 2):
        repo.publish(model_file(tmp_path / "m.gguf", number), tier="1b", version=f"1.{number - 1}.0", probe=False)
    device = FolderDevice(folder, tmp_path / "device", repo.root_path.read_bytes())
    new = model_file(tmp_path / "new.gguf", 3)
    pages, reserve = 0, small_disk / "reserve"
    while True:
        reserve.write_bytes(b"x" * 4096 * pages)
        filler = fill(small_disk)
        reserve.unlink()
        try:
            repo.publish(new, tier="1b", version="1.2.0", probe=False)
            break
        except NoSpaceError:
            pages += 1
        finally:
            filler.unlink()
        assert_readable(folder, device, {"1.2.0"})
    assert pages >= 3
    repo = Repository(folder, keys=keys, clock=Clock())
    assert [finding for finding in repo.check(deep=True) if finding.level == "error"] == []
    assert whole(device.manifest(), folder).current_version == "1.2.0"


HOLDER = """
import sys
from overair.publish.repository import Repository
def wait(done, total):
    print("copying", flush=True)
    sys.stdin.readline()
Repository(sys.argv[1]).publish(sys.argv[2], tier="1b", version="1.2.0", probe=False, on_progress=wait)
"""


def test_of_two_publishers_one_wins_and_the_other_is_told_who(start: Path, model: Path, tmp_path: Path) -> None:
    small = model_file(tmp_path / "small.gguf", 9)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(start), str(small)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "copying\n"
        repo = Repository(start)
        with pytest.raises(LockedError, match=f"process {other.pid}") as caught:
            repo.publish(model, tier="1b", version="1.3.0", probe=False)
        assert caught.value.exit_code == 26
        assert read(start / "manifest.json").current_version == "1.1.0"
        assert repo.log()[0].sequence == 2
        other.communicate("go on\n", timeout=30)
    assert other.returncode == 0
    assert repo.publish(model, tier="1b", version="1.3.0", probe=False).sequence == 4
    assert [entry.current_version for entry in repo.log()] == ["1.3.0", "1.2.0", "1.1.0", "1.0.0"]


def test_the_lock_of_a_killed_publisher_holds_nobody_up(start: Path, model: Path, tmp_path: Path) -> None:
    small = model_file(tmp_path / "small.gguf", 9)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(start), str(small)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "copying\n"
        assert list(start.glob("blobs/*.tmp"))
        other.kill()
    device = device_of(start, start, tmp_path / "device")
    Repository(start, clock=Clock()).publish(model, tier="1b", version="1.2.0", probe=False)
    assert_finished(start, device, "1.2.0")


def test_publishers_at_the_same_moment_lose_nothing(start: Path, tmp_path: Path) -> None:
    child = "import sys; from overair.publish.repository import Repository as R; "
    child += "R(sys.argv[1]).publish(sys.argv[2], tier=sys.argv[3], version='1.0.0', probe=False)"
    model = model_file(tmp_path / "m.gguf", 7)
    tiers = ("3b", "7b", "12b")
    running = [subprocess.Popen([sys.executable, "-c", child, str(start), str(model), tier]) for tier in tiers]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
    repo = Repository(start)
    assert [entry.sequence for entry in repo.log()] == [5, 4, 3, 2, 1]
    assert set(read(start / "manifest.json").models) == {"1b", *tiers}
    assert repo.check(deep=True) == []
