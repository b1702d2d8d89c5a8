"""A server is gone when its parent is, however the parent ended."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from overair.engines import watcher

GONE_SECONDS = 10.0
WATCHED = [sys.executable, "-I", "-S", str(Path(watcher.__file__))]
SLEEPER = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(20)"]

PARENT = """
import subprocess, sys, time
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
print(child.pid, flush=True)
time.sleep(20)
"""


def wait_for_child(pid: int) -> psutil.Process:
    deadline = time.monotonic() + GONE_SECONDS
    while not (children := psutil.Process(pid).children()):
        assert time.monotonic() < deadline, "the watcher did not start its command"
        time.sleep(0.01)
    return children[0]


def test_a_killed_parent_takes_the_server_with_it() -> None:
    command = [sys.executable, "-c", PARENT, *WATCHED, *SLEEPER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server = wait_for_child(int(parent.stdout.readline()))
        assert server.is_running()
        parent.kill()
        server.wait(GONE_SECONDS)
    assert not server.is_running()


def test_the_end_of_the_pipe_ends_the_server() -> None:
    with subprocess.Popen([*WATCHED, *SLEEPER], stdin=subprocess.PIPE) as process:
        server = wait_for_child(process.pid)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(GONE_SECONDS)
    assert not server.is_running()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
def test_a_terminated_watcher_ends_the_server() -> None:
    with subprocess.Popen([*WATCHED, *SLEEPER], stdin=subprocess.PIPE) as process:
        server = wait_for_child(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(GONE_SECONDS) == 143
    assert not server.is_running()


def test_the_exit_code_is_that_of_the_command() -> None:
    command = [*WATCHED, sys.executable, "-c", "import sys; sys.exit(7)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.wait(GONE_SECONDS) == 7
