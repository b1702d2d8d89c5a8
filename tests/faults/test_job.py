"""An update in the background: real processes, a real server that is slow, and whatever happens to them."""

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from overair import Conditions
from overair.device import background
from overair.device.background import Job
from overair.errors import IllegalEventError, OverairError, UsageError
from overair.model.job import Control, JobState, Want
from overair.store.job import MAX_BYTES, JobFiles
from overair.store.store import Store
from support.job_scene import (
    LIMIT_S,
    SLOW,
    STEADY,
    Scene,
    is_there,
    python,
    said_by,
    until,
    until_bytes_flow,
    until_state,
)
from support.misbehaving import NeverAnswer, Status

START = """
import sys
from pathlib import Path
from overair.device import background
print(background.start(Path(sys.argv[1])).progress().pid, flush=True)
"""
START_AND_STAY = f"{START}\nimport threading\nthreading.Event().wait()"
DO = """
import sys
from pathlib import Path
from overair.device import background
job = background.find(Path(sys.argv[1]))
print(getattr(job, sys.argv[2])().state, flush=True)
"""


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Scene(tmp_path) as scene:
        yield scene


def pending(scene: Scene) -> str | None:
    slot = Store(scene.store).read().pending
    return slot.release.version if slot else None


def test_a_job_brings_an_update_and_says_so(scene: Scene) -> None:
    size = scene.publish()
    job = scene.start()
    status = job.wait(LIMIT_S)
    assert (status.state, status.version, status.exit_code) == (JobState.STAGED, "1.0.0", 0)
    assert status.progress is not None
    assert status.progress.bytes_done == status.progress.bytes_total == size
    assert pending(scene) == "1.0.0"
    again = scene.start().wait(LIMIT_S)
    assert (again.state, again.exit_code) == (JobState.UP_TO_DATE, 0)
    assert again.id != status.id


def test_the_job_goes_on_when_the_app_and_its_terminal_are_killed(scene: Scene) -> None:
    scene.publish(fault=STEADY)
    scene.set_up().close()
    app = python(START_AND_STAY, str(scene.store))
    assert app.stdout is not None
    pid = int(app.stdout.readline())
    job = Job(scene.store)
    until_bytes_flow(job)
    os.killpg(app.pid, signal.SIGKILL)
    app.communicate(timeout=LIMIT_S)
    assert is_there(pid)
    status = job.wait(LIMIT_S)
    assert (status.state, status.pid) == (JobState.STAGED, pid)


def test_a_job_that_is_killed_has_died_and_the_next_one_continues(scene: Scene) -> None:
    size = scene.publish(fault=SLOW)
    job = scene.start()
    status = until_bytes_flow(job)
    assert status.state is JobState.DOWNLOADING
    os.kill(status.pid, signal.SIGKILL)
    died = until_state(job, JobState.DIED)
    assert "what came is kept" in died.message
    assert job.wait(0).state is JobState.DIED
    with pytest.raises(IllegalEventError, match="has ended: died"):
        job.pause()
    del scene.server.faults[scene.blob]
    assert scene.start().wait(LIMIT_S).state is JobState.STAGED
    assert scene.served() < 1.4 * size, "it began again"


def test_two_apps_that_start_at_once_get_one_job(scene: Scene) -> None:
    scene.publish(fault=SLOW)
    scene.set_up().close()
    apps = [python(START, str(scene.store)) for _ in range(4)]
    pids = {int(app.communicate(timeout=LIMIT_S)[0]) for app in apps}
    assert len(pids) == 1
    workers = [p.pid for p in psutil.process_iter(["cmdline"]) if is_worker_in(p, scene.store)]
    assert workers == list(pids)
    assert until_bytes_flow(Job(scene.store)).pid in pids


def is_worker_in(process: psutil.Process, store: Path) -> bool:
    try:
        return "overair.device.worker" in process.cmdline() and process.cwd() == str(store)
    except psutil.Error:
        return False


def test_a_start_finds_the_job_that_runs(scene: Scene) -> None:
    scene.publish(fault=SLOW)
    first = scene.start().progress()
    second = scene.start().progress()
    assert (first.id, first.pid) == (second.id, second.pid)


def test_another_process_pauses_and_resumes_while_bytes_flow(scene: Scene) -> None:
    size = scene.publish(fault=SLOW)
    job = scene.start()
    until_bytes_flow(job)
    assert said_by(DO, str(scene.store), "pause") == "paused"
    paused = job.progress()
    served = scene.served()
    assert paused.progress is not None
    assert 0 < paused.progress.bytes_done < size
    assert paused.progress.bytes_per_second is None
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        assert scene.served() <= served + 16 * SLOW.piece, "bytes flow in a pause"
        assert job.progress().state is JobState.PAUSED
        time.sleep(0.02)
    assert said_by(DO, str(scene.store), "resume") != "paused"
    del scene.server.faults[scene.blob]
    done = job.wait(LIMIT_S)
    assert (done.state, done.pid) == (JobState.STAGED, paused.pid)
    assert scene.served() < 1.4 * size, "it began again"


def test_a_pause_is_obeyed_within_a_second(scene: Scene) -> None:
    scene.publish(fault=SLOW)
    job = scene.start()
    until_bytes_flow(job)
    started = time.monotonic()
    assert job.pause().state is JobState.PAUSED
    assert time.monotonic() - started < 1.0
    assert job.cancel().state is JobState.CANCELLED


def test_another_process_cancels_and_what_came_is_kept(scene: Scene) -> None:
    size = scene.publish(fault=SLOW)
    job = scene.start()
    pid = until_bytes_flow(job).pid
    assert said_by(DO, str(scene.store), "cancel") == "cancelled"
    until(lambda: not is_there(pid), "the process is gone, and no zombie stays")
    assert job.progress().exit_code == 24
    assert pending(scene) is None
    served = scene.served()
    del scene.server.faults[scene.blob]
    assert scene.start().wait(LIMIT_S).state is JobState.STAGED
    assert scene.served() - served < 0.95 * size, "it began again"


def test_a_job_that_is_told_to_end_obeys_within_two_seconds(scene: Scene) -> None:
    scene.publish(fault=SLOW)
    job = scene.start()
    pid = until_bytes_flow(job).pid
    os.kill(pid, signal.SIGTERM)
    until(lambda: not is_there(pid), "the process is gone", 2.0)
    assert job.progress().state is JobState.CANCELLED


def test_a_job_obeys_also_while_a_server_is_silent(scene: Scene) -> None:
    scene.publish()
    scene.server.faults["/metadata/timestamp.json"] = NeverAnswer()
    job = scene.start()
    pid = until_state(job, JobState.CHECKING).pid
    os.kill(pid, signal.SIGTERM)
    until(lambda: not is_there(pid), "the process is gone", 2.0)
    assert job.progress().state is JobState.CANCELLED


def test_a_job_that_fails_says_why_and_what_to_do(scene: Scene) -> None:
    scene.publish(fault=Status(404))
    failed = scene.start().wait(LIMIT_S)
    assert (failed.state, failed.exit_code) == (JobState.FAILED, 24)
    assert "404" in failed.message
    assert failed.hint


def test_a_job_waits_while_another_process_downloads(scene: Scene) -> None:
    scene.publish()
    scene.set_up().close()
    with Store(scene.store).download_lock():
        job = scene.start()
        waiting = until_state(job, JobState.WAITING)
        assert f"process {os.getpid()}" in waiting.message
        assert waiting.version == "1.0.0"
    assert job.wait(LIMIT_S).state is JobState.STAGED


def test_a_job_waits_for_its_conditions_and_can_be_cancelled(scene: Scene) -> None:
    scene.publish()
    job = scene.start(Conditions(min_free_bytes=10**18))
    waiting = until_state(job, JobState.WAITING)
    assert "to stay free" in waiting.message
    started = time.monotonic()
    assert job.cancel().state is JobState.CANCELLED
    assert time.monotonic() - started < 2.0


def test_every_other_program_goes_first(scene: Scene) -> None:
    scene.publish(fault=SLOW)
    pid = until_bytes_flow(scene.start()).pid
    process = psutil.Process(pid)
    assert process.nice() >= min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    if sys.platform == "linux":
        assert process.ionice().value == 7


def test_damaged_files_are_no_job(scene: Scene) -> None:
    scene.publish()
    scene.start().wait(LIMIT_S)
    files = JobFiles(scene.store)
    sound = (files.folder / "status.json").read_bytes()
    damages = [b"", sound[:-9], b"\xff\xfe", sound.replace(b'"staged"', b'"mad"'), sound.ljust(MAX_BYTES + 1)]
    damages.append(re.sub(rb'"id":"[0-9a-f]*"', b'"id":"../../../x"', sound))
    for damaged in damages:
        (files.folder / "status.json").write_bytes(damaged)
        (files.folder / "control.json").write_bytes(damaged)
        assert background.find(scene.store) is None, damaged[:99]
        with pytest.raises(IllegalEventError, match="no background job"):
            Job(scene.store).pause()
    assert scene.start().wait(LIMIT_S).state is JobState.UP_TO_DATE


def test_a_job_that_ends_while_somebody_looks_has_not_died(scene: Scene) -> None:
    scene.publish()
    for _ in range(6):
        job = scene.start()
        while not (status := job.progress()).state.is_end:
            continue
        assert status.state in {JobState.STAGED, JobState.UP_TO_DATE}


def test_what_was_wanted_of_an_earlier_job_is_not_done_to_the_next(scene: Scene) -> None:
    scene.publish()
    files = JobFiles(scene.store)
    files.create()
    files.want(Control(id="0" * 32, want=Want.CANCEL))
    assert scene.start().wait(LIMIT_S).state is JobState.STAGED


def test_a_program_without_a_python_is_told_what_to_do(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(UsageError, match="no Python of its own") as caught:
        scene.start()
    assert "agent" in caught.value.hint


def test_a_python_that_cannot_run_it_is_reported(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    false = shutil.which("false")
    if false is None:
        pytest.skip("no program `false`")
    monkeypatch.setattr(sys, "executable", false)
    with pytest.raises(OverairError, match="did not begin: exit code 1"):
        scene.start()


def test_a_disk_that_refuses_is_reported(scene: Scene) -> None:
    scene.set_up().close()
    (scene.store / "job").mkdir()
    (scene.store / "job" / "status.json").mkdir()
    with pytest.raises(OverairError, match=r"did not begin: cannot rename"):
        scene.start()
    (scene.store / "job" / "status.json").rmdir()
