"""Choosing an engine, reading llama.cpp's log, and the shapes of requests and answers."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from overair.engines.base import (
    MAX_TEMPLATE_BYTES,
    SERVER_VARIABLE,
    create,
    has_chat_template,
    installed,
    read_template,
    request,
    text_of,
)
from overair.engines.stderr import MAX_CAPTURED_BYTES, captured_stderr, reason
from overair.errors import EngineError, EngineMissingError, UsageError
from support.tiny_model import bundle_of, write_tiny_model

LOAD_LOG = """\
0.00.001.477 I cmn  common_param: common_params_print_info: verbosity = 3
0.00.012.527 E gguf_init_from_reader: invalid magic characters: 'XXXX', expected 'GGUF'
0.00.020.207 E llama_model_load: error loading model: llama_model_loader: failed to load model from bad.gguf
0.00.020.976 E srv    load_model: failed to load model, 'bad.gguf'
"""


def test_an_unknown_engine_is_a_usage_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        create("ollama")
    assert all(name in caught.value.hint for name in ("xllamacpp", "llama_cpp", "llama_server"))


def test_an_engine_that_is_not_installed_is_an_error_that_tells_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(SERVER_VARIABLE, "no-such-program")
    assert "llama_server" not in installed()
    with pytest.raises(EngineMissingError) as caught:
        create("llama_server")
    assert SERVER_VARIABLE in caught.value.hint


def test_the_variable_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER_VARIABLE, sys.executable)
    assert "llama_server" in installed()


def test_importing_the_engines_imports_no_runtime_and_no_network() -> None:
    heavy = "xllamacpp, llama_cpp, numpy, http.client, socket, ssl"
    code = f"import sys, overair.engines.base; print([m for m in '{heavy}'.split(', ') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_first_error_is_the_reason_without_its_prefix() -> None:
    assert reason(LOAD_LOG.splitlines()) == "invalid magic characters: 'XXXX', expected 'GGUF'"


def test_a_log_without_prefixes_has_a_reason_too() -> None:
    lines = ["llama_model_loader: loaded meta data", "llama_model_load: error loading model: unknown architecture"]
    assert reason(lines) == "error loading model: unknown architecture"


@pytest.mark.parametrize("log", [[], ["0.00.001.477 I cmn  init: all is well"], ["hello"]])
def test_a_log_without_errors_has_no_reason(log: list[str]) -> None:
    assert reason(log) == ""


def test_a_reason_is_bounded() -> None:
    assert len(reason(["error: " + "x" * 10_000])) == 300


def test_lines_of_others_reach_the_real_descriptor_and_the_log_does_not(capfd: pytest.CaptureFixture[str]) -> None:
    with captured_stderr() as log:
        os.write(2, b"from the application\n" + LOAD_LOG.encode() + b"as well")
    assert log == LOAD_LOG.splitlines()
    assert capfd.readouterr().err == "from the application\nas well\n"


def fail_with(log: str) -> None:
    with captured_stderr():
        os.write(2, log.encode())
        raise RuntimeError("boom")


def test_descriptor_2_is_restored_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="boom"):
        fail_with(LOAD_LOG)
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_what_is_kept_of_a_flood_is_bounded(capfd: pytest.CaptureFixture[str]) -> None:
    with captured_stderr():
        os.write(2, b"y" * (MAX_CAPTURED_BYTES + 1000))
    assert len(capfd.readouterr().err) == MAX_CAPTURED_BYTES + 1


def test_a_second_capture_waits_for_the_first(capfd: pytest.CaptureFixture[str]) -> None:
    second: list[str] = []
    entered = threading.Event()

    def capture() -> None:
        with captured_stderr() as log:
            entered.set()
            os.write(2, LOAD_LOG.encode())
        second.extend(log)

    thread = threading.Thread(target=capture)
    with captured_stderr() as first:
        thread.start()
        assert not entered.wait(0.1)
    thread.join()
    assert (first, second) == ([], LOAD_LOG.splitlines())
    assert capfd.readouterr().err == ""


def test_a_request_asks_for_the_likeliest_tokens() -> None:
    chat = request("Hi", max_tokens=3, chat=True)
    assert chat["messages"] == [{"role": "user", "content": "Hi"}]
    assert (chat["temperature"], chat["max_tokens"]) == (0.0, 3)
    assert request("Hi", max_tokens=3, chat=False)["prompt"] == "Hi"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"choices": [{"message": {"content": "yes"}}]}, "yes"),
        ({"choices": [{"message": {"content": ""}}]}, ""),
        ({"choices": [{"message": {"content": "", "reasoning_content": "well"}}]}, "well"),
        ({"choices": [{"message": {"content": None}}]}, ""),
        ({"choices": [{"text": "plain"}]}, "plain"),
    ],
)
def test_the_text_of_an_answer(answer: object, text: str) -> None:
    assert text_of("engine", answer) == text


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"error": {"message": "too long", "code": 400}}, "too long"),
        ({"message": "no key", "code": 401}, "no key"),
        ({"choices": []}, "unknown shape"),
        ([], "unknown shape"),
        ("text", "unknown shape"),
    ],
)
def test_an_answer_that_is_an_error_raises(answer: object, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        text_of("engine", answer)


def test_a_chat_template_is_seen_in_the_model_or_beside_it(tmp_path: Path) -> None:
    with_template = write_tiny_model(tmp_path / "tiny.gguf")
    without = tmp_path / "without.gguf"
    without.write_bytes(with_template.read_bytes().replace(b"tokenizer.chat_template", b"tokenizer.no_template!!"))
    assert has_chat_template(bundle_of(with_template))
    assert not has_chat_template(bundle_of(without))
    assert has_chat_template(bundle_of(without, template=tmp_path / "template.jinja"))


def test_a_template_of_excessive_length_is_refused(tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_bytes(b"x" * (MAX_TEMPLATE_BYTES + 1))
    with pytest.raises(EngineError, match="longer than"):
        read_template(bundle_of(tmp_path / "tiny.gguf", template=template))
