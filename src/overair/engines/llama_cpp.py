"""llama.cpp inside this process, by llama-cpp-python."""

import ctypes
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from overair.engines import base
from overair.engines.measure import measured
from overair.engines.stderr import reason
from overair.errors import EngineError, EngineMissingError
from overair.model.probe import Measured
from overair.model.release import Bundle

_ERROR_LEVEL: Final = 4  # GGML_LOG_LEVEL_ERROR in ggml.h
_KEPT_LINES: Final = 100


class LlamaCpp:
    """An engine in this process. See `overair.engines.base.Engine` and `create`.

    llama-cpp-python applies one adapter and no projector: other bundles do not load.
    """

    name: Final = "llama_cpp"

    def __init__(self, *, context_tokens: int, threads: int | None) -> None:
        self.context_tokens = context_tokens
        self._threads = threads
        self._llama: Any = None
        self._chat = False

    @property
    def version(self) -> str:
        """See `Engine.version`."""
        try:
            return f"{self.name} {version('llama-cpp-python')}"
        except PackageNotFoundError as error:
            raise EngineMissingError(f"{self.name} is not installed") from error

    def load(self, bundle: Bundle) -> None:
        """See `Engine.load`."""
        self.unload()
        base.require_files(self.name, bundle)
        self._require_support(bundle)
        template = base.read_template(bundle)
        errors: deque[str] = deque(maxlen=_KEPT_LINES)
        try:
            with _logged_errors(errors):
                self._llama = self._open(bundle)
            if bundle.adapters and errors:
                # An adapter that llama.cpp refuses is a null pointer that llama-cpp-python takes for an adapter
                # (0.3.36): the first answer would crash the process.
                raise ValueError("the adapter does not fit")
            self._chat = base.has_chat_template(bundle)
            if template is not None:
                _use_template(self._llama, template)
        except EngineError:
            self.unload()
            raise
        except _failures() as error:
            self.unload()
            raise base.load_error(self.name, bundle.model, reason(errors) or str(error)) from error

    def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
        """See `Engine.generate`."""
        return base.text_of(self.name, self._ask(prompt, max_tokens))

    def measure(self, prompt: str, *, max_tokens: int, logprobs: bool = False) -> Measured:  # noqa: ARG002
        """See `Measures.measure`. It has log-probabilities only where the memory for all of them was kept."""
        started = time.perf_counter()
        answer = self._ask(prompt, max_tokens)
        return measured(base.text_of(self.name, answer), answer, time.perf_counter() - started)

    def unload(self) -> None:
        """See `Engine.unload`."""
        if self._llama is not None:
            self._llama.close()
            self._llama = None

    def _ask(self, prompt: str, max_tokens: int) -> Any:
        if self._llama is None:
            raise base.not_loaded(self.name)
        request = base.request(prompt, max_tokens=max_tokens, chat=self._chat)
        # What an earlier prompt left in the cache is computed in other batches, and may round to another token.
        self._llama.reset()
        try:
            return (self._llama.create_chat_completion if self._chat else self._llama.create_completion)(**request)
        except _failures() as error:
            raise EngineError(f"{self.name} cannot answer: {error}") from error

    def _require_support(self, bundle: Bundle) -> None:
        if len(bundle.adapters) > 1 or bundle.projector is not None:
            raise EngineError(
                f"{self.name} cannot load {bundle.model}: it takes one adapter at most and no projector",
                hint="use the engine xllamacpp or llama_server for this bundle",
            )

    def _open(self, bundle: Bundle) -> Any:
        from llama_cpp import Llama

        return Llama(
            model_path=str(bundle.model),
            lora_path=str(bundle.adapters[0]) if bundle.adapters else None,
            n_ctx=self.context_tokens,
            n_threads=self._threads,
            n_threads_batch=self._threads,
            verbose=False,
        )


def _failures() -> tuple[type[Exception], ...]:
    from llama_cpp import llama_chat_format

    return (ValueError, RuntimeError, llama_chat_format.jinja2.TemplateError)


def _use_template(llama: Any, template: str) -> None:
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    end, begin = (llama.detokenize([token], special=True).decode() for token in (llama.token_eos(), llama.token_bos()))
    llama.chat_handler = Jinja2ChatFormatter(template, eos_token=end, bos_token=begin).to_chat_handler()


@contextmanager
def _logged_errors(errors: deque[str]) -> Iterator[None]:
    """Collect the errors that llama.cpp logs: llama-cpp-python would show all of its log or none."""
    import llama_cpp
    from llama_cpp._logger import llama_log_callback as usual

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator, unused-ignore]  # not installed everywhere
    def collect(level: int, text: bytes, _: ctypes.c_void_p) -> None:
        if level == _ERROR_LEVEL:
            errors.append(text.decode(errors="replace").strip())

    llama_cpp.llama_log_set(collect, ctypes.c_void_p(0))
    try:
        yield
    finally:
        llama_cpp.llama_log_set(usual, ctypes.c_void_p(0))
