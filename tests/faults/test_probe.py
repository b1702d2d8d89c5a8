"""Whatever an engine does to its process, a probe gives a verdict with a reason, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from overair.engines.probe import probe
from overair.errors import CancelledError, EngineMissingError, UsageError
from overair.model.probe import Expectation, ProbeCause, ProbeLimits, ProbePolicy, ProbeResult
from support.tiny_model import bundle_of

GONE_SECONDS = 10.0
SHORT = ProbeLimits(load_s=1.0, answer_s=1.0, unload_s=1.0)
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")


def run(
    name: str,
    folder: Path,
    *,
    limits: ProbeLimits | None = None,
    policy: ProbePolicy | None = None,
    baseline: float | None = None,
) -> ProbeResult:
    model = folder / "secret-folder" / "model.gguf"
    model.parent.mkdir(exist_ok=True)
    model.write_bytes(b"what these engines load")
    result = probe(
        bundle_of(model),
        engine=f"support.bad_engines:{name}",
        limits=limits,
        policy=policy,
        baseline_tokens_per_second=baseline,
    )
    assert psutil.Process().children(recursive=True) == []
    assert "\n" not in result.reason
    assert "secret-folder" not in result.reason
    assert bool(result.reason) is not result.passed
    return result


def test_a_good_engine_of_the_apps_own_passes_and_what_it_cannot_tell_is_skipped(tmp_path: Path) -> None:
    result = run("Good", tmp_path, policy=ProbePolicy(min_tokens_per_second=5.0, min_speed_ratio=0.5))
    assert (result.passed, result.engine, result.cause) == (True, "good 1", None)
    assert [line.partition(":")[0] for line in result.skipped] == [
        "values that are not numbers",
        "speed compared to the current model",
        "speed",
    ]
    assert result.figures.peak_bytes is not None
    assert result.figures.peak_bytes > 1_000_000


@POSIX
@pytest.mark.parametrize(
    ("name", "where"),
    [("SegfaultsAtLoad", "at load"), ("SegfaultsAtFirstAnswer", "at answer 1"), ("SegfaultsAtUnload", "at unload")],
)
def test_a_segmentation_fault_is_a_verdict(name: str, where: str, tmp_path: Path) -> None:
    result = run(name, tmp_path)
    assert (result.passed, result.cause) == (False, ProbeCause.CRASH)
    assert result.reason == f"it ended {where}, by SIGSEGV"


@POSIX
def test_the_fiftieth_answer_is_reached_when_fifty_prompts_are_given(tmp_path: Path) -> None:
    prompts = tuple(f"prompt {number}" for number in range(50))
    result = run("SegfaultsAtFiftiethAnswer", tmp_path, policy=ProbePolicy(prompts=prompts))
    assert result.reason == "it ended at answer 50, by SIGSEGV"
    assert run("SegfaultsAtFiftiethAnswer", tmp_path).passed


@POSIX
@pytest.mark.parametrize("name", ["AbortsWithWords", "AbortsWhileItIsCaptured"])
def test_the_last_words_are_the_reason(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = run(name, tmp_path)
    assert result.reason == "it ended at load, by SIGABRT: /src/ggml.c:42: GGML_ASSERT(nb00 == sizeof(float)) failed"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "where"),
    [("HangsAtLoad", "at load"), ("HangsAtFirstAnswer", "at answer 1"), ("HangsAtUnload", "at unload")],
)
def test_a_hang_is_a_verdict_in_time(name: str, where: str, tmp_path: Path) -> None:
    started = time.monotonic()
    result = run(name, tmp_path, limits=SHORT)
    assert time.monotonic() - started < GONE_SECONDS
    assert (result.passed, result.cause) == (False, ProbeCause.HANG)
    assert result.reason == f"it hangs {where}: nothing came in 1 s"


def test_the_publishers_time_limit_and_that_of_the_whole_probe_hold(tmp_path: Path) -> None:
    result = run("HangsAtLoad", tmp_path, policy=ProbePolicy(timeout_s=0.5))
    assert result.reason == "it hangs at load: nothing came in 0.5 s"
    result = run("HangsAtLoad", tmp_path, limits=ProbeLimits(total_s=0.5))
    assert result.reason == "the probe took more than 0.5 s; it was at load"


def test_more_memory_than_the_limit_is_a_verdict(tmp_path: Path) -> None:
    limit = 150_000_000
    result = run("NeedsMuchMemory", tmp_path, limits=ProbeLimits(memory_bytes=limit))
    assert (result.passed, result.cause) == (False, ProbeCause.MEMORY)
    assert f"and {limit} are the limit" in result.reason
    assert result.figures.peak_bytes is not None
    assert limit < result.figures.peak_bytes < 2 * limit


def test_an_endless_log_is_a_verdict(tmp_path: Path) -> None:
    result = run("LogsForEver", tmp_path)
    assert (result.passed, result.cause) == (False, ProbeCause.LOAD)
    assert result.reason.startswith("it logged more than 16777216 bytes at load: tensor 'x': an error")


@pytest.mark.parametrize(
    ("name", "cause", "reason"),
    [
        ("LeavesAtLoad", ProbeCause.CRASH, "it ended at load, by exit code 0"),
        ("RaisesAtLoad", ProbeCause.LOAD, "KeyError: 'no such\\nlayer'"),
        ("SaysNothing", ProbeCause.OUTPUT, "its answer is empty (prompt 1, 2, 3 of 3)"),
        ("RepeatsItself", ProbeCause.OUTPUT, "it says one token over and over"),
        ("SaysNoText", ProbeCause.OUTPUT, "its answers are not valid UTF-8"),
    ],
)
def test_what_it_does_wrong_is_the_reason(name: str, cause: ProbeCause, reason: str, tmp_path: Path) -> None:
    result = run(name, tmp_path)
    assert (result.passed, result.cause, result.reason) == (False, cause, reason)


def test_what_an_engine_prints_is_no_message_and_is_seen_by_nobody(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("PrintsToOutput", tmp_path).engine == "good 1"
    assert capfd.readouterr() == ("", "")


def skip_if_busy(result: ProbeResult) -> None:
    if any(line.startswith("speed: other programs") for line in result.skipped):
        pytest.skip("this machine is too busy to tell a slow model")


def test_a_model_five_times_slower_than_the_current_one_fails(tmp_path: Path) -> None:
    policy = ProbePolicy(prompts=("a",), max_tokens=8, min_speed_ratio=0.5)
    before = run("Measuring", tmp_path, policy=policy).figures.tokens_per_second
    assert before is not None
    result = run("FiveTimesSlower", tmp_path, policy=policy, baseline=before)
    skip_if_busy(result)
    assert (result.passed, result.cause) == (False, ProbeCause.SPEED)
    assert "tokens a second, and" in result.reason
    assert run("FiveTimesSlower", tmp_path, policy=policy, baseline=before / 5).passed


def test_among_busy_programs_speed_is_not_judged(tmp_path: Path) -> None:
    policy = ProbePolicy(prompts=("a",), max_tokens=4, min_tokens_per_second=60.0)
    result = run("SlowAmongOthers", tmp_path, policy=policy)
    assert result.passed, result.reason
    assert any(line.startswith("speed: other programs took") for line in result.skipped)


def test_a_machine_that_was_busy_for_a_while_is_no_slow_model(tmp_path: Path) -> None:
    policy = ProbePolicy(prompts=("a", "b"), max_tokens=4, min_tokens_per_second=60.0)
    result = run("SlowAtFirst", tmp_path, policy=policy)
    assert result.passed, result.reason


def test_a_regular_expression_that_takes_for_ever_is_ended(tmp_path: Path) -> None:
    endless = Expectation(prompt="p", matches=r"^(.|.|.|.)+x$")
    result = run("Good", tmp_path, policy=ProbePolicy(expect=(endless,)), limits=SHORT)
    assert (result.passed, result.cause) == (False, ProbeCause.HANG)
    assert result.reason == "it hangs while it was judged: nothing came in 1 s"


def test_an_expectation_that_is_not_met_is_told_without_the_answer(tmp_path: Path) -> None:
    expect = (Expectation(prompt="p", one_of=("Berlin",)), Expectation(prompt="p", matches="("))
    result = run("Good", tmp_path, policy=ProbePolicy(expect=expect))
    assert (result.passed, result.cause) == (False, ProbeCause.EXPECTATION)
    assert result.reason == "the answer to expectation 1 is not one of the answers allowed"
    assert any(line.startswith("expectation 2: not a regular expression") for line in result.skipped)


def test_an_engine_that_is_missing_is_no_verdict(tmp_path: Path) -> None:
    for name in ("IsNotInstalled", "NoSuchClass"):
        with pytest.raises(EngineMissingError):
            run(name, tmp_path)
    with pytest.raises(EngineMissingError, match="no_such_module"):
        probe(bundle_of(tmp_path / "none"), engine="no_such_module:Engine")


def test_a_process_that_does_not_begin_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(EngineMissingError, match="cannot be started"):
        run("Good", tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(EngineMissingError, match="did not begin: exit code 1"):
        run("Good", tmp_path)


def test_a_cancelled_probe_ends_and_is_no_verdict(tmp_path: Path) -> None:
    cancel = threading.Event()
    timer = threading.Timer(0.3, cancel.set)
    timer.start()
    started = time.monotonic()
    with pytest.raises(CancelledError):
        probe(bundle_of(tmp_path / "none"), engine="support.bad_engines:HangsAtLoad", cancel=cancel)
    assert time.monotonic() - started < GONE_SECONDS
    assert psutil.Process().children(recursive=True) == []
    timer.join()


@POSIX
def test_a_probe_that_is_asked_to_end_from_outside_is_no_verdict(tmp_path: Path) -> None:
    def end_it() -> None:
        deadline = time.monotonic() + GONE_SECONDS
        while not psutil.Process().children() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)  # until it hangs in its load
        psutil.Process().children()[0].send_signal(signal.SIGTERM)

    thread = threading.Thread(target=end_it)
    thread.start()
    with pytest.raises(CancelledError, match="SIGTERM"):
        run("HangsInPythonAtLoad", tmp_path)
    thread.join()


@POSIX
@pytest.mark.parametrize(
    ("name", "cause"), [("StartsOthers", ProbeCause.HANG), ("StartsOthersAndDies", ProbeCause.CRASH)]
)
def test_what_the_engine_started_is_ended_too(name: str, cause: ProbeCause, tmp_path: Path) -> None:
    result = run(name, tmp_path, limits=ProbeLimits(load_s=2.5))
    assert result.cause is cause
    number = int((tmp_path / "secret-folder" / "model.gguf.pid").read_text(encoding="ascii"))
    assert not psutil.pid_exists(number) or psutil.Process(number).status() == psutil.STATUS_ZOMBIE


APP = """
import sys
from pathlib import Path
sys.path[:] = sys.argv[2:]
from overair.engines.probe import probe
from support.tiny_model import bundle_of
probe(bundle_of(Path("none")), engine=sys.argv[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process whose Python is blocked with its parent")
def test_a_killed_app_leaves_no_probe_behind() -> None:
    command = [sys.executable, "-c", APP, "support.bad_engines:HangsAtLoad", *sys.path]
    with subprocess.Popen(command) as app:
        deadline = time.monotonic() + GONE_SECONDS
        while not (family := psutil.Process(app.pid).children(recursive=True)):
            assert time.monotonic() < deadline, "no probe was started"
            time.sleep(0.01)
        time.sleep(0.3)  # until it hangs in its load
        assert family[0].is_running()
        app.kill()
        _, alive = psutil.wait_procs(family, timeout=GONE_SECONDS)
    assert alive == []


CGROUP = Path("/sys/fs/cgroup/memory")
IN_GROUP = """
import os, sys
from pathlib import Path
(Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
sys.path[:] = sys.argv[2:]
from overair.engines.probe import probe
from support.tiny_model import bundle_of
held = b"x" * 170_000_000  # more than the probe holds when memory runs out
result = probe(bundle_of(Path("none")), engine="support.bad_engines:NeedsMuchMemory")
print(result.passed, result.cause, result.reason, sep="|")
"""


@pytest.fixture
def small_group() -> Iterator[Path]:
    group = CGROUP / f"overair-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text("300000000", encoding="ascii")
    except OSError as error:
        pytest.skip(f"no control group for memory: {error}")
    yield group
    group.rmdir()


def test_when_memory_runs_out_the_system_ends_the_probe_and_not_the_app(small_group: Path) -> None:
    command = [sys.executable, "-c", IN_GROUP, str(small_group), *sys.path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    passed, cause, reason = done.stdout.strip().split("|")
    assert (passed, cause) == ("False", "memory")
    assert reason.startswith("the system ran out of memory and ended it at load")


def test_no_engine_of_that_name_is_an_error_of_the_call(tmp_path: Path) -> None:
    with pytest.raises((UsageError, EngineMissingError), match="nonesuch"):
        probe(bundle_of(tmp_path / "none"), engine="nonesuch")
