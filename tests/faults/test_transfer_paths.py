"""Ways to a server: proxies, private certificates, a limited rate; and clocks that jump on the way."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overair.errors import NetworkError
from support.trouble import Proxy, Trouble, TroubleServer
from support.trouble_device import DATA, PATH, Device, keep_to_a_rate

RATE = 1_000_000
RATE_S = 5.0
YEARS = 10 * 365 * 86_400.0


@pytest.fixture
def server() -> Iterator[TroubleServer]:
    with TroubleServer({PATH: DATA}) as server:
        yield server


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "partial")


# --- proxies and certificates ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
def test_every_connection_goes_through_the_proxy_of_the_environment(
    server: TroubleServer, device: Device, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with Proxy() as proxy:
        monkeypatch.setenv(name, proxy.url)
        assert device.fetch(server.url + PATH) == DATA
        assert len(proxy.asked) == len(server.asks(PATH))
        assert set(proxy.asked) == {f"GET {server.url}{PATH}"}


def test_no_proxy_is_obeyed_by_every_connection(
    server: TroubleServer, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert device.fetch(server.url + PATH) == DATA
        assert proxy.asked == []


def test_https_goes_through_tunnels_of_the_proxy(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    with TroubleServer({PATH: DATA}, tls=True) as secure, Proxy() as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        assert device.fetch(secure.url + PATH, ca_file=secure.ca_file) == DATA
        assert set(proxy.asked) == {f"CONNECT 127.0.0.1:{secure.port}"}


def test_a_proxy_that_is_gone_is_named(server: TroubleServer, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
    with pytest.raises(NetworkError, match="the proxy failed") as caught:
        device.fetch(server.url + PATH)
    assert "HTTP_PROXY" in caught.value.hint


@pytest.mark.parametrize("connections", [1, 4])
def test_a_private_authority_is_trusted_when_it_is_named(device: Device, connections: int) -> None:
    with TroubleServer({PATH: DATA}, tls=True) as secure:
        assert device.fetch(secure.url + PATH, ca_file=secure.ca_file, connections=connections) == DATA


def test_a_private_authority_that_is_not_named_is_refused_without_a_byte(device: Device) -> None:
    with TroubleServer({PATH: DATA}, tls=True) as secure:
        with pytest.raises(NetworkError, match="certificate"):
            device.fetch(secure.url + PATH)
        assert secure.bytes_sent(PATH) == 0


# The server aborts a connection under TLS, and asyncio complains of what it leaves behind itself.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_tls_connection_that_is_cut_continues(device: Device) -> None:
    with TroubleServer({PATH: DATA}, tls=True) as secure:
        secure.cuts[PATH] = {50_000, 100_000, 150_001, 200_001}
        assert device.fetch(secure.url + PATH, ca_file=secure.ca_file, connections=1) == DATA
        assert device.received == len(DATA)


# --- rate --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_rate_holds_within_5_percent_over_5_seconds_as_the_server_sees_it(tmp_path: Path) -> None:
    most, holds = keep_to_a_rate(tmp_path, rate=RATE, seconds=RATE_S)
    assert holds, f"{most} bytes in {RATE_S:g} seconds"


# --- clocks ------------------------------------------------------------------------------------------------------


def test_a_wall_clock_that_jumps_to_and_fro_by_ten_years_does_not_matter(
    server: TroubleServer, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, jumps = time.time, itertools.cycle([YEARS, -YEARS, 0.0, -3600.0])
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    server.trouble[PATH] = Trouble(bytes_per_second=200_000)
    server.cuts[PATH] = {10_000, 90_000, 170_001}
    began = time.monotonic()
    assert device.fetch(server.url + PATH, connections=4, floor_s=0.3) == DATA
    assert time.monotonic() - began < 4.0


@pytest.mark.parametrize("rate", [0, 200_000])
def test_a_process_whose_clock_is_set_back_by_twenty_years_while_it_pauses_goes_on(
    server: TroubleServer, device: Device, rate: int
) -> None:
    now = device.folder.with_suffix(".time")
    now.write_text("+10y")
    # The monotonic clock of a kernel does not jump with the other one.
    environment = {"LD_PRELOAD": str(_libfaketime()), "FAKETIME_TIMESTAMP_FILE": str(now)}
    environment |= {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
    server.trouble[PATH] = Trouble(bytes_per_second=250_000)
    server.cuts[PATH] = {50_000, 150_000}
    under = ["env", *(f"{name}={value}" for name, value in environment.items())]
    child = device.start(server.url + PATH, connections=1, max_bytes_per_second=rate, under=under)
    deadline = time.monotonic() + 15.0
    try:
        for jump, cut in (("-10y", 50_000), ("+1d", 150_000)):
            while server.bytes_sent(PATH) < cut:
                assert time.monotonic() < deadline, f"{server.bytes_sent(PATH)} bytes came, and then no more"
                time.sleep(0.005)
            time.sleep(0.1)  # it has noticed the cut, and pauses for 0.2 s
            now.write_text(jump)
        output, errors = child.communicate(timeout=15)
    finally:
        child.kill()
        child.communicate(timeout=15)
    assert child.returncode == 0, errors
    assert Path(output.strip()).read_bytes() == DATA
    assert server.bytes_sent(PATH) <= 1.1 * len(DATA)


def _libfaketime() -> Path:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed")
    return found[0]
