"""The agent as a service: real processes that are told to end, a real server, a real socket for systemd."""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overair import Conditions, Repository
from overair.device import attempt
from overair.device.agent import Agent
from overair.errors import LockedError
from overair.host import disk
from overair.store.store import Store
from support.job_scene import LIMIT_S, SLOW, Scene, command, ran, seconds_to_end, until
from support.misbehaving import NeverAnswer, Status
from support.notified import Notified

TIMESTAMP = "/metadata/timestamp.json"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and sockets of POSIX")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Scene(tmp_path) as scene:
        yield scene


def staged(scene: Scene) -> str | None:
    slot = Store(scene.store).read().pending
    return slot.release.version if slot else None


def checks(scene: Scene) -> int:
    return len(scene.server.requests(TIMESTAMP))


@contextlib.contextmanager
def running(scene: Scene, **options: object) -> Iterator[None]:
    """An agent in a thread of this process, for the time of a block; it must end within two seconds."""
    stop = threading.Event()
    with scene.set_up() as updater:
        agent = Agent(updater, chance=lambda: 0.5, **options)  # type: ignore[arg-type]
        thread = threading.Thread(target=agent.run, args=[stop])
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(2.0)
            assert not thread.is_alive(), "the agent goes on"


def test_an_agent_brings_what_is_published_and_checks_again(scene: Scene) -> None:
    scene.publish("1.0.0")
    with running(scene, interval_s=0.2):
        until(lambda: staged(scene) == "1.0.0", "the first release is staged")
        until(lambda: checks(scene) >= 3, "it checks again")
        scene.publish("1.1.0", seed=2)
        until(lambda: staged(scene) == "1.1.0", "the second release is staged")


def test_an_agent_goes_on_after_errors(scene: Scene) -> None:
    scene.publish()
    scene.server.faults[TIMESTAMP] = [Status(503), Status(500), Status(404)]
    with running(scene, interval_s=0.2):
        until(lambda: staged(scene) == "1.0.0", "it is staged in spite of three errors")


def test_an_agent_asks_as_often_as_the_publisher_wishes(scene: Scene) -> None:
    scene.repository = Repository.init(scene.site, base_url=scene.server.url, dev=True, poll_seconds=7200)
    scene.publish()
    with scene.set_up() as updater:
        agent = Agent(updater)
        assert agent._interval() == 86_400
        agent.once(threading.Event())
        assert agent._interval() == 7200
        assert Agent(updater, interval_s=60)._interval() == 60
        (scene.store / "last_check.json").write_bytes(b'{"at": 1}')
        assert agent._interval() == 86_400


def test_an_agent_waits_for_conditions_and_not_for_the_next_check(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = disk.free_bytes
    shortage = threading.Event()
    monkeypatch.setattr(disk, "free_bytes", lambda path: free(path) if shortage.is_set() else 0)
    monkeypatch.setattr(attempt, "CONDITIONS_POLL_S", 0.05)
    scene.publish()
    with Notified(f"@overair-{os.getpid()}") as systemd:
        monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
        monkeypatch.setenv("WATCHDOG_USEC", "300000")
        with running(scene, interval_s=3600.0, conditions=Conditions(min_free_bytes=1)):
            until(lambda: any(line.startswith("STATUS=waiting with 1.0.0") for line in systemd.lines), "it waits")
            assert staged(scene) is None
            assert checks(scene) == 1
            shortage.set()
            until(lambda: staged(scene) == "1.0.0", "it is staged as soon as there is room")
    assert checks(scene) == 1


def test_a_thread_that_hangs_does_not_live_behind_the_watchdog(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "SILENCE_LIMIT_S", 0.4)
    scene.publish()
    scene.server.faults[TIMESTAMP] = NeverAnswer()
    with Notified(f"@overair-{os.getpid()}") as systemd:
        monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
        monkeypatch.setenv("WATCHDOG_USEC", "600000")
        with running(scene):
            until(lambda: checks(scene) == 1, "it asks")
            until(lambda: systemd.count("WATCHDOG=1") > 0, "it says that it lives")
            silent_since, said = time.monotonic(), -1
            while time.monotonic() < silent_since + 0.8:  # twice as long as the watchdog would wait from then on
                if systemd.count("WATCHDOG=1") != said:
                    said, silent_since = systemd.count("WATCHDOG=1"), time.monotonic()
                assert said < 10, "it says for ever that it lives"
                time.sleep(0.01)


def test_systemd_hears_when_it_is_ready_what_it_does_and_that_it_lives(scene: Scene, tmp_path: Path) -> None:
    scene.publish()
    scene.set_up().close()
    with Notified(tmp_path / "notify") as systemd:
        env = {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "600000"}
        with command("device", "agent", "--store", str(scene.store), env=env) as agent:
            until(lambda: systemd.messages, "it says something")
            assert systemd.messages[0] == "READY=1"
            until(lambda: any("1.0.0 is staged" in line for line in systemd.lines), "it says what it did")
            before = systemd.count("WATCHDOG=1")
            until(lambda: systemd.count("WATCHDOG=1") >= before + 3, "it lives", 3.0)
            assert seconds_to_end(agent) < 2.0
            assert agent.returncode == 0
        until(lambda: "STOPPING=1" in systemd.lines, "it says that it ends")
    assert any("next check in 2" in line for line in systemd.lines), systemd.lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_agent_ends_within_two_seconds_while_it_downloads_and_keeps_what_came(scene: Scene, number: int) -> None:
    size = scene.publish(fault=SLOW)
    scene.set_up().close()
    with command("device", "agent", "--store", str(scene.store), "--json") as agent:
        until(lambda: scene.served() > 300_000, "bytes flow")
        started = time.monotonic()
        agent.send_signal(number)
        out, errors = agent.communicate(timeout=LIMIT_S)
        assert time.monotonic() - started < 2.0
        assert agent.returncode == 0, errors
        assert json.loads(out) == {"stopped": True}
    served = scene.served()
    del scene.server.faults[scene.blob]
    assert "1.0.0" in ran(["device", "agent", "--store", str(scene.store), "--once"])
    assert scene.served() - served < 0.95 * size, "it began again"


def test_an_agent_ends_within_two_seconds_while_it_waits_for_conditions(scene: Scene) -> None:
    scene.publish()
    scene.set_up().close()
    with command("device", "agent", "--store", str(scene.store), "--min-free", "900000GB") as agent:
        until(lambda: checks(scene) == 1, "it has checked")
        assert seconds_to_end(agent) < 2.0
        assert agent.returncode == 0


def test_an_agent_ends_within_two_seconds_while_a_server_is_silent(scene: Scene) -> None:
    scene.publish()
    scene.set_up().close()
    scene.server.faults[TIMESTAMP] = NeverAnswer()
    with command("device", "agent", "--store", str(scene.store)) as agent:
        until(lambda: checks(scene) == 1, "it asks")
        assert seconds_to_end(agent) < 2.0
        assert agent.returncode == 0


def test_an_agent_ends_at_once_while_it_sleeps(scene: Scene) -> None:
    scene.publish()
    scene.set_up().close()
    with command("device", "agent", "--store", str(scene.store)) as agent:
        until(lambda: staged(scene) == "1.0.0", "it is staged")
        assert seconds_to_end(agent) < 2.0
        assert agent.returncode == 0


def test_a_second_agent_is_turned_away(scene: Scene) -> None:
    scene.publish()
    with running(scene):
        until(lambda: staged(scene) == "1.0.0", "the first one works")
        stopped = threading.Event()
        stopped.set()  # one that is let in ends at once
        with scene.set_up() as updater, pytest.raises(LockedError, match=f"already.*process {os.getpid()}"):
            Agent(updater).run(stopped)
        ran(["device", "agent", "--store", str(scene.store), "--once"], code=LockedError.exit_code)


def test_an_agent_that_cannot_read_the_state_says_so_and_ends(scene: Scene) -> None:
    scene.publish()
    ran_once = ["device", "agent", "--store", str(scene.store)]
    scene.set_up().update()
    for number in range(2):
        (scene.store / f"state.{number}.json").write_bytes(b"rubbish")
    with command(*ran_once) as agent:
        _, errors = agent.communicate(timeout=LIMIT_S)
    assert agent.returncode == 27
    assert "hint: " in errors


def test_once_says_what_it_found(scene: Scene) -> None:
    scene.publish()
    scene.set_up().close()
    words = ["device", "agent", "--store", str(scene.store), "--once", "--json"]
    ran([*words, "--min-free", "900000GB"], code=22)
    assert json.loads(ran(words)) == {"staged": "1.0.0"}
    assert json.loads(ran(words))["reason"] == "staged"


def test_an_interval_that_hammers_the_server_is_refused(scene: Scene) -> None:
    ran(["device", "agent", "--store", str(scene.store), "--interval", "10s"], code=2)
