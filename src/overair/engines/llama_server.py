"""llama.cpp in a child process: the `llama-server` program, on a loopback port that it chooses itself."""

import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO, Any, Final, cast

from overair.engines import base, watcher
from overair.engines.measure import measured, predict, token_numbers
from overair.engines.stderr import reason
from overair.errors import EngineError, EngineMissingError
from overair.model.probe import Measured
from overair.model.release import Bundle

LOAD_SECONDS: Final = 600.0
ANSWER_SECONDS: Final = 600.0
MAX_ANSWER_BYTES: Final = 1 << 24

_HEALTH_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.02
_END_SECONDS: Final = 10.0
_VERSION_SECONDS: Final = 10.0
_MAX_LINE_BYTES: Final = 4096
_KEPT_LINES: Final = 200
_PORT: Final = re.compile(r"listening on http://127\.0\.0\.1:([1-9]\d*)")


class LlamaServer:
    """An engine in a child process. See `overair.engines.base.Engine` and `create`.

    The child is killed when this process ends, however it ends. A key that only this object knows guards its port.
    """

    name: Final = "llama_server"

    def __init__(self, *, context_tokens: int, threads: int | None) -> None:
        self.context_tokens = context_tokens
        self._threads = threads
        self._child: _Child | None = None
        self._chat = False
        self.check_tensors = False

    @property
    def version(self) -> str:
        """See `Engine.version`."""
        try:
            answer = subprocess.run(
                [self._binary(), "--version"], capture_output=True, timeout=_VERSION_SECONDS, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise EngineError(f"{self.name} does not tell its version: {error}") from error
        printed = (answer.stderr + answer.stdout).decode(errors="replace")
        found = re.search(r"version: *(.{1,80})", printed)
        return f"{self.name} {found[1].strip() if found else 'of an unknown version'}"

    def load(self, bundle: Bundle) -> None:
        """See `Engine.load`."""
        self.unload()
        base.require_files(self.name, bundle)
        base.read_template(bundle)
        child = _Child([self._binary(), *self._arguments(bundle)])
        try:
            child.wait_until_ready(bundle.model)
            self._chat = base.has_chat_template(bundle)
        except BaseException:
            child.end()
            raise
        self._child = child

    def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
        """See `Engine.generate`."""
        return base.text_of(self.name, self._ask(prompt, max_tokens=max_tokens))

    def measure(self, prompt: str, *, max_tokens: int, logprobs: bool = False) -> Measured:
        """See `Measures.measure`."""
        started = time.perf_counter()
        answer = self._ask(prompt, max_tokens=max_tokens, logprobs=logprobs)
        return measured(base.text_of(self.name, answer), answer, time.perf_counter() - started)

    def predict(self, text: str) -> tuple[float | None, ...]:
        """See `Predicts.predict`."""
        tokens = token_numbers(self.name, self._send("/tokenize", {"content": text, "add_special": True}))
        return tuple(predict(tokens, lambda request: self._send("/v1/completions", request)))

    def unload(self) -> None:
        """See `Engine.unload`."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def _ask(self, prompt: str, *, max_tokens: int, logprobs: bool = False) -> Any:
        # A prompt of which a part is cached is computed in other batches, and may round to another token.
        request = base.request(prompt, max_tokens=max_tokens, chat=self._chat) | {"cache_prompt": False}
        path = "/v1/chat/completions" if self._chat else "/v1/completions"
        return self._send(path, request | (base.LOGPROBS if logprobs else {}))

    def _send(self, path: str, request: dict[str, Any]) -> Any:
        if self._child is None:
            raise base.not_loaded(self.name)
        return self._child.ask("POST", path, request, seconds=ANSWER_SECONDS)[1]

    def _binary(self) -> str:
        binary = base.server_binary()
        if binary is None:
            raise EngineMissingError(f"{self.name} is not installed")
        return binary

    def _arguments(self, bundle: Bundle) -> list[str]:
        arguments = ["--model", str(bundle.model), "--ctx-size", str(self.context_tokens), "--parallel", "1"]
        arguments += ["--host", "127.0.0.1", "--port", "0", "--no-webui"]
        for adapter in bundle.adapters:
            arguments += ["--lora", str(adapter)]
        if bundle.projector is not None:
            arguments += ["--mmproj", str(bundle.projector)]
        if bundle.template is not None:
            arguments += ["--jinja", "--chat-template-file", str(bundle.template)]
        if self.check_tensors:
            arguments += ["--check-tensors"]
        if self._threads is not None:
            arguments += ["--threads", str(self._threads)]
        return arguments


class _Child:
    """A server under the watcher, the last lines of its log, and the port that it listens on."""

    def __init__(self, command: list[str]) -> None:
        self._key = secrets.token_hex(16)
        self._log: deque[str] = deque(maxlen=_KEPT_LINES)
        self._port = 0
        # Variables like LLAMA_ARG_MODEL would change what the server does; the key would be public as an argument.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LLAMA_ARG_")}
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(watcher.__file__)), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment | {"LLAMA_API_KEY": self._key},
        )
        self._reader = threading.Thread(target=self._read, args=(cast("IO[bytes]", self._process.stderr),), daemon=True)
        self._reader.start()

    def wait_until_ready(self, model: Path) -> None:
        """Wait until the model is loaded; an EngineError says why it is not."""
        deadline = time.monotonic() + LOAD_SECONDS
        while not self._is_ready():
            try:
                self._process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if time.monotonic() < deadline:
                    continue
                raise base.load_error(LlamaServer.name, model, f"not ready in {LOAD_SECONDS:.0f} s") from None
            self._reader.join(_END_SECONDS)
            raise base.load_error(LlamaServer.name, model, reason(self._log))

    def ask(self, method: str, path: str, body: Any = None, *, seconds: float) -> tuple[int, Any]:
        """Return the status and the JSON of one answer; an EngineError says why there is none."""
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=seconds)
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read(MAX_ANSWER_BYTES))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EngineError(f"{LlamaServer.name} does not answer: {error!r}; {reason(self._log)}") from error
        finally:
            connection.close()

    def end(self) -> None:
        """Kill the server and wait until it is gone."""
        cast("IO[bytes]", self._process.stdin).close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_END_SECONDS)

    def _is_ready(self) -> bool:
        return self._port != 0 and self.ask("GET", "/health", seconds=_HEALTH_SECONDS)[0] == 200

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            while line := stream.readline(_MAX_LINE_BYTES):
                text = line.decode(errors="replace").strip()
                self._log.append(text)
                if found := _PORT.search(text):
                    self._port = int(found[1])
