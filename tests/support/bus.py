"""A system bus of our own, with a NetworkManager or a logind on it that does what a test says."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from jeepney import DBusAddress, MessageType, new_method_call
from jeepney.io.blocking import DBusConnection, prep_socket

START_S: Final = 10.0
PYTHON_WITH_DBUSMOCK: Final = "/usr/bin/python3"
_DAEMON: Final = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
_MOCK: Final = "org.freedesktop.DBus.Mock"
_CONFIG: Final = """<busconfig>
  <listen>unix:path={path}</listen><auth>EXTERNAL</auth><servicedir>{folder}</servicedir>
  <policy context="default">
    <allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/><allow user="*"/>
  </policy>
</busconfig>
"""


class Bus:
    """A bus; `address` belongs into DBUS_SYSTEM_BUS_ADDRESS."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "bus"
        self.address = f"unix:path={self.path}"

    def call(self, where: DBusAddress, method: str, signature: str = "", body: tuple[Any, ...] = ()) -> Any:
        """Call a method; its answer."""
        with DBusConnection(prep_socket(str(self.path))) as connection:
            question = new_method_call(where, method, signature or None, body)
            answer = connection.send_and_get_reply(question, timeout=START_S)
        assert answer.header.message_type is MessageType.method_return, answer.body
        return answer.body

    def start_on_demand(self, service: str, command: str) -> None:
        """Start a service with this command when somebody asks for it."""
        Path(self.folder, f"{service}.service").write_text(f"[D-BUS Service]\nName={service}\nExec={command}\n")
        self.call(_DAEMON, "ReloadConfig")

    def has(self, service: str) -> bool:
        """Whether a service is on the bus."""
        (found,) = self.call(_DAEMON, "NameHasOwner", "s", (service,))
        return bool(found)


class NetworkManager:
    """A NetworkManager on a bus of its own. Its values: 0 unknown, 1 yes, 2 no, 3 guessed yes, 4 guessed no."""

    name: Final = "org.freedesktop.NetworkManager"

    def __init__(self, bus: Bus, process: subprocess.Popen[bytes]) -> None:
        self.address = bus.address
        self._bus = bus
        self._process = process
        self._mock = DBusAddress("/org/freedesktop/NetworkManager", self.name, _MOCK)

    def add_metered(self, value: int) -> None:
        self._bus.call(self._mock, "AddProperty", "ssv", (self.name, "Metered", ("u", value)))

    def set_metered(self, value: int) -> None:
        """Say from now on that the network is metered, or not."""
        self._bus.call(self._mock, "UpdateProperties", "sa{sv}", (self.name, {"Metered": ("u", value)}))

    def stop(self) -> None:
        """Leave the bus, as a service does that is being upgraded."""
        _end(self._process)


@contextlib.contextmanager
def network_manager(metered: int | None = 2) -> Iterator[NetworkManager]:
    """A bus with a NetworkManager that says this; None is one that is too old to say anything."""
    with system_bus() as bus, _mocked(bus, "networkmanager", NetworkManager.name) as process:
        manager = NetworkManager(bus, process)
        if metered is not None:
            manager.add_metered(metered)
        yield manager


class Logind:
    """A logind on a bus of its own."""

    name: Final = "org.freedesktop.login1"

    def __init__(self, bus: Bus) -> None:
        self.address = bus.address
        self._bus = bus
        self._mock = DBusAddress("/org/freedesktop/login1", self.name, _MOCK)

    def set_idle(self, idle: bool) -> None:
        """Say from now on that all sessions are idle, or not."""
        self._bus.call(self._mock, "UpdateProperties", "sa{sv}", (f"{self.name}.Manager", {"IdleHint": ("b", idle)}))


@contextlib.contextmanager
def logind(*, idle: bool) -> Iterator[Logind]:
    """A bus with a logind that says this of its sessions."""
    with system_bus() as bus, _mocked(bus, "logind", Logind.name):
        service = Logind(bus)
        service.set_idle(idle)
        yield service


@contextlib.contextmanager
def system_bus() -> Iterator[Bus]:
    """A bus with nothing on it. Skips the test where the tools are missing, fails it where they are required."""
    _require_tools()
    with tempfile.TemporaryDirectory(prefix="bus-") as name:  # a socket's path has room for 100 letters
        bus = Bus(Path(name))
        config = Path(name, "config.xml")
        config.write_text(_CONFIG.format(path=bus.path, folder=name))
        command = ["dbus-daemon", "--nofork", "--nopidfile", f"--config-file={config}"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # it complains of limits that nobody needs
        try:
            _wait_until("the bus is there", lambda: _accepts(bus.path), process)
            yield bus
        finally:
            _end(process)


@contextlib.contextmanager
def false_bus(talk: Callable[[socket.socket], object]) -> Iterator[str]:
    """The address of something that is no bus; each caller in turn gets what `talk` does with the connection."""
    ended = threading.Event()

    def serve(server: socket.socket) -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError), server.accept()[0] as line:
                line.settimeout(START_S)
                talk(line)

    with tempfile.TemporaryDirectory(prefix="bus-") as name, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{name}/bus")
        server.listen()
        server.settimeout(0.05)
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        try:
            yield f"unix:path={name}/bus"
        finally:
            ended.set()
            thread.join()


def stay_silent(line: socket.socket) -> None:
    """Take what comes, until the caller gives up."""
    while line.recv(4096):
        pass


@contextlib.contextmanager
def _mocked(bus: Bus, template: str, service: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [PYTHON_WITH_DBUSMOCK, "-m", "dbusmock", "--system", "--template", template, "--logfile", os.devnull],
        env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus.address},
    )
    try:
        _wait_until(f"{service} is on the bus", lambda: bus.has(service), process)
        yield process
    finally:
        _end(process)


def _require_tools() -> None:
    missing = [] if shutil.which("dbus-daemon") else ["dbus-daemon"]
    found = (
        Path(PYTHON_WITH_DBUSMOCK).exists()
        and not subprocess.run(
            [PYTHON_WITH_DBUSMOCK, "-c", "import dbusmock, gi"], capture_output=True, check=False, timeout=60
        ).returncode
    )
    missing += [] if found else ["python3-dbusmock"]
    if missing and os.environ.get("OVERAIR_REQUIRE_FAULT_TOOLS") == "1":
        pytest.fail(f"missing: {', '.join(missing)}")
    if missing:
        pytest.skip(f"missing: {', '.join(missing)}")


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as line:
        return line.connect_ex(str(path)) == 0


def _wait_until(what: str, holds: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while not holds():
        assert process.poll() is None, f"the process ended before {what}"
        assert time.monotonic() < deadline, f"waited {START_S} s until {what}"
        time.sleep(0.01)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
