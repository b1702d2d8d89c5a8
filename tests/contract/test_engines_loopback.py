"""Engines listen on a loopback port: nobody else may use it, and nothing may be left listening."""

import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from overair.engines.base import create, installed, server_binary
from overair.errors import EngineError
from support.tiny_model import bundle_of, write_tiny_model

GONE_SECONDS = 10.0

APP = """
import sys, time
from pathlib import Path
from overair.engines.base import create
from overair.model.release import Bundle
engine = create("llama_server", context_tokens=64, threads=1)
engine.load(Bundle(id="0" * 64, version="1.0.0", sha256="0" * 64, model=Path(sys.argv[1])))
print(engine.generate("Hi", max_tokens=4), flush=True)
time.sleep(60)
"""

needs_server = pytest.mark.skipif("llama_server" not in installed(), reason="llama-server is not installed")


def listening_ports(process: psutil.Process) -> list[int]:
    family = [process, *process.children(recursive=True)]
    found = [connection for member in family for connection in member.net_connections("tcp")]
    return [connection.laddr.port for connection in found if connection.status == psutil.CONN_LISTEN]


@pytest.mark.parametrize("name", ["xllamacpp", "llama_server"])
def test_a_stranger_on_this_machine_gets_no_answer(name: str, tmp_path: Path) -> None:
    if name not in installed():
        pytest.skip(f"the engine {name} is not installed")
    before = set(listening_ports(psutil.Process()))
    engine = create(name, context_tokens=64, threads=1)
    engine.load(bundle_of(write_tiny_model(tmp_path / "tiny.gguf")))
    ports = set(listening_ports(psutil.Process())) - before
    for port in ports:
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/completions", data=b'{"prompt": "Hi"}', timeout=5)
        caught.value.close()
        assert caught.value.code == 401
    engine.unload()
    assert set(listening_ports(psutil.Process())) - before == set()
    assert len(ports) == 1


@needs_server
def test_a_killed_app_leaves_no_server_behind(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf")
    with subprocess.Popen([sys.executable, "-c", APP, str(model)], stdout=subprocess.PIPE) as app:
        assert app.stdout is not None
        assert app.stdout.readline().strip()
        children = psutil.Process(app.pid).children(recursive=True)
        assert any(Path(child.exe()).samefile(server_binary() or "") for child in children)
        app.kill()
        _, alive = psutil.wait_procs(children, timeout=GONE_SECONDS)
    assert alive == []


@needs_server
def test_a_server_that_died_is_an_error_and_the_next_load_starts_another(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf")
    engine = create("llama_server", context_tokens=64, threads=1)
    engine.load(bundle_of(model))
    for child in psutil.Process().children(recursive=True):
        if Path(child.exe()).samefile(server_binary() or ""):
            child.kill()
    with pytest.raises(EngineError, match="does not answer"):
        engine.generate("Hi")
    engine.load(bundle_of(model))
    assert engine.generate("Hi", max_tokens=4)
    engine.unload()


@needs_server
def test_variables_of_the_server_do_not_change_what_it_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf")
    engine = create("llama_server", context_tokens=64, threads=1)
    engine.load(bundle_of(model))
    expected = engine.generate("Hi", max_tokens=8)
    monkeypatch.setenv("LLAMA_ARG_CHAT_TEMPLATE", "chatml")
    engine.load(bundle_of(model))
    assert engine.generate("Hi", max_tokens=8) == expected
    engine.unload()
