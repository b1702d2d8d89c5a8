"""llama.cpp inside this process, by the wheels of xllamacpp."""

import json
import secrets
import time
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from overair.engines import base
from overair.engines.measure import measured, predict, token_numbers
from overair.engines.stderr import captured_stderr, reason
from overair.errors import EngineError, EngineMissingError
from overair.model.probe import Measured
from overair.model.release import Bundle

_ERRORS_ONLY: Final = 1
_TOKENIZE_SECONDS: Final = 30.0
_MAX_TOKENS_BYTES: Final = 1 << 20
_FIRST_REQUEST: Final = base.request("a", max_tokens=1, chat=False)


class XLlamaCpp:
    """An engine in this process. See `overair.engines.base.Engine` and `create`."""

    name: Final = "xllamacpp"

    def __init__(self, *, context_tokens: int, threads: int | None) -> None:
        self.context_tokens = context_tokens
        self._threads = threads
        self._server: Any = None
        self._key = ""
        self._chat = False
        self.check_tensors = False

    @property
    def version(self) -> str:
        """See `Engine.version`."""
        try:
            return f"{self.name} {version('xllamacpp')}"
        except PackageNotFoundError as error:
            raise EngineMissingError(f"{self.name} is not installed") from error

    def load(self, bundle: Bundle) -> None:
        """See `Engine.load`."""
        from xllamacpp import Server

        self.unload()
        base.require_files(self.name, bundle)
        params = self._params(bundle)
        log: list[str] = []
        try:
            with captured_stderr() as log:
                server = Server(params)
                # The constructor returns before its thread enters the task loop, which begins with `running = true`: a
                # server deleted in between waits for ever for that loop to end. An answer that came through the loop
                # proves that it runs; its metrics do not, when they are switched off. It warms the model up as well.
                base.text_of(self.name, server.handle_completions(_FIRST_REQUEST))
        except RuntimeError as error:
            raise base.load_error(self.name, bundle.model, reason(log) or str(error)) from error
        self._chat = base.has_chat_template(bundle)
        self._server = server

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
        tokens = token_numbers(self.name, self._tokenize(text))
        return tuple(predict(tokens, lambda request: self._send(request, chat=False)))

    def unload(self) -> None:
        """See `Engine.unload`."""
        self._server = None

    def _ask(self, prompt: str, *, max_tokens: int, logprobs: bool = False) -> Any:
        # A prompt of which a part is cached is computed in other batches, and may round to another token.
        request = base.request(prompt, max_tokens=max_tokens, chat=self._chat) | {"cache_prompt": False}
        return self._send(request | (base.LOGPROBS if logprobs else {}), chat=self._chat)

    def _send(self, request: dict[str, Any], *, chat: bool) -> Any:
        if self._server is None:
            raise base.not_loaded(self.name)
        try:
            return (self._server.handle_chat_completions if chat else self._server.handle_completions)(request)
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"{self.name} cannot answer: {error}") from error

    def _tokenize(self, text: str) -> Any:
        """Ask on its loopback port, since no function has it."""
        import http.client

        if self._server is None:
            raise base.not_loaded(self.name)
        try:
            address = self._server.listening_address.removeprefix("http://")
            with closing(http.client.HTTPConnection(address, timeout=_TOKENIZE_SECONDS)) as connection:
                headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
                connection.request("POST", "/tokenize", json.dumps({"content": text, "add_special": True}), headers)
                return json.loads(connection.getresponse().read(_MAX_TOKENS_BYTES))
        except (AttributeError, OSError, http.client.HTTPException, ValueError) as error:
            raise EngineError(f"{self.name} does not tell the tokens of a text: {error!r}") from error

    def _params(self, bundle: Bundle) -> Any:
        from xllamacpp import CommonAdapterLoraInfo, CommonParams

        params = CommonParams()
        params.model.path = str(bundle.model)
        params.lora_adapters = [CommonAdapterLoraInfo(str(adapter), 1.0) for adapter in bundle.adapters]
        if bundle.projector is not None:
            params.mmproj.path = str(bundle.projector)
        template = base.read_template(bundle)
        if template is not None:
            params.chat_template = template
        params.n_ctx = self.context_tokens
        if self._threads is not None:
            params.cpuparams.n_threads = self._threads
            params.cpuparams_batch.n_threads = self._threads
        params.check_tensors = self.check_tensors
        params.warmup = False
        params.verbosity = _ERRORS_ONLY
        # It listens on a loopback port as well; without a key any page in a browser here could use the model.
        self._key = secrets.token_hex(16)
        params.api_keys = [self._key]
        return params
