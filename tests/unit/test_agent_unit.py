"""What the agent and systemd say to each other, and the unit that it prints."""

import getpass
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from overair.device import systemd
from support.job_scene import ran, until
from support.models import ROOT
from support.notified import Notified

ANALYZE = shutil.which("systemd-analyze")

posix = pytest.mark.skipif(sys.platform == "win32", reason="sockets of POSIX")


@posix
@pytest.mark.parametrize("kind", ["path", "name"])
def test_what_is_said_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    address = tmp_path / "notify" if kind == "path" else f"@overair-test-{os.getpid()}"
    with Notified(address) as heard:
        monkeypatch.setenv("NOTIFY_SOCKET", heard.address)
        systemd.notify("READY=1", "STATUS=well")
        until(lambda: heard.messages, "it arrives")
    assert heard.messages == ["READY=1\nSTATUS=well"]


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "@nobody-listens"])
def test_nobody_who_listens_is_no_error(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    systemd.notify("READY=1")
    assert os.environ["NOTIFY_SOCKET"] == address


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("30000000", None, 30.0),
        ("30000000", "own", 30.0),
        ("30000000", "1", None),
        ("0", None, None),
        ("x", None, None),
    ],
)
def test_the_watchdog_is_that_of_this_process(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str | None, seconds: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    assert systemd.watchdog_s() == seconds


def test_no_watchdog_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert systemd.watchdog_s() is None


def printed(store: Path, *options: str) -> str:
    unit = json.loads(ran(["device", "agent", "--store", str(store), *options, "--print-unit", "--json"]))["unit"]
    assert isinstance(unit, str)
    return unit


def test_the_unit_runs_the_command_that_printed_it(tmp_path: Path) -> None:
    unit = printed(tmp_path, "--interval", "6h", "--charging", "--between", "01:00-05:00", "--min-battery", "40")
    command = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    assert command is not None
    words = shlex.split(command[1])  # systemd quotes as a shell does, as far as spaces go
    assert words[:5] == [sys.executable, "-m", "overair", "device", "agent"]
    expected = {"--store", str(tmp_path), "--interval", "6h", "--charging", "--between", "01:00-05:00"}
    assert set(words[5:]) == expected | {"--min-battery", "40"}
    assert f"ReadWritePaths={tmp_path}" in unit
    assert f"User={tmp_path.owner()}" in unit


def test_a_store_that_is_not_there_yet_will_be_that_of_this_user(tmp_path: Path) -> None:
    assert f"User={getpass.getuser()}" in printed(tmp_path / "not-there")


def test_a_path_may_have_spaces_and_signs() -> None:
    unit = systemd.unit(Path("/srv/my 100% $tore"), ["/usr/bin/x", "--store", "/srv/my 100% $tore"], user="u")
    assert 'ExecStart=/usr/bin/x --store "/srv/my 100%% $$tore"' in unit
    assert 'ReadWritePaths="/srv/my 100%% $tore"' in unit


@pytest.mark.parametrize(("store", "home"), [("/var/lib/x", "yes"), ("/home/u/x", "read-only"), ("/homes/x", "yes")])
def test_a_store_in_a_home_can_be_reached(store: str, home: str) -> None:
    assert f"ProtectHome={home}\n" in systemd.unit(Path(store), ["/usr/bin/x"], user="u")


def test_the_example_is_what_the_command_prints() -> None:
    store = Path("/var/lib/my-app/models")
    words = ["/opt/my-app/bin/python", "-m", "overair", "device", "agent", "--store", str(store)]
    expected = systemd.unit(store, [*words, "--between", "01:00-05:00"], user="my-app")
    assert (ROOT / "examples" / "agent" / "overair-agent.service").read_text(encoding="utf-8") == expected


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not here")
@pytest.mark.parametrize("name", ["store", "my 100% $tore"])
def test_systemd_takes_the_unit_and_finds_it_closed(tmp_path: Path, name: str) -> None:
    assert ANALYZE is not None
    (tmp_path / name).mkdir()
    path = tmp_path / "overair-agent.service"
    path.write_text(printed(tmp_path / name, "--charging"), encoding="utf-8")
    verified = subprocess.run(
        [ANALYZE, "verify", "--man=no", "--recursive-errors=no", str(path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (verified.returncode, verified.stderr) == (0, "")
    rated = subprocess.run(
        [ANALYZE, "security", "--offline=true", "--no-pager", str(path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", rated.stdout)
    assert exposure is not None, rated.stderr
    assert float(exposure[1]) < 2.0, rated.stdout
