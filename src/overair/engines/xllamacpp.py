"""llama.cpp inside this process, by the wheels of xllamacpp."""

import secrets
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from overair.engines import base
from overair.engines.stderr import captured_stderr, reason
from overair.errors import EngineError, EngineMissingError
from overair.model.release import Bundle

_ERRORS_ONLY: Final = 1
_FIRST_REQUEST: Final = base.request("a", max_tokens=1, chat=False)


class XLlamaCpp:
    """An engine in this process. See `overair.engines.base.Engine` and `create`."""

    name: Final = "xllamacpp"

    def __init__(self, *, context_tokens: int, threads: int | None) -> None:
        self._context_tokens = context_tokens
        self._threads = threads
        self._server: Any = None
        self._chat = False

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
        if self._server is None:
            raise base.not_loaded(self.name)
        # A prompt of which a part is cached is computed in other batches, and may round to another token.
        request = base.request(prompt, max_tokens=max_tokens, chat=self._chat) | {"cache_prompt": False}
        ask = self._server.handle_chat_completions if self._chat else self._server.handle_completions
        try:
            return base.text_of(self.name, ask(request))
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"{self.name} cannot answer: {error}") from error

    def unload(self) -> None:
        """See `Engine.unload`."""
        self._server = None

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
        params.n_ctx = self._context_tokens
        if self._threads is not None:
            params.cpuparams.n_threads = self._threads
            params.cpuparams_batch.n_threads = self._threads
        params.warmup = False
        params.verbosity = _ERRORS_ONLY
        # It listens on a loopback port as well; without a key any page in a browser here could use the model.
        params.api_keys = [secrets.token_hex(16)]
        return params
