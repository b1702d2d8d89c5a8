"""What an engine is, which ones there are, and what their front ends of llama.cpp have in common.

Importing this module is cheap: an engine imports its library when it loads a bundle.
"""

import importlib
import importlib.util
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from overair.errors import EngineError, EngineMissingError, GGUFError, UsageError
from overair.formats.gguf import read_gguf
from overair.model.release import Bundle

SERVER_VARIABLE: Final = "OVERAIR_LLAMA_SERVER"
MAX_TEMPLATE_BYTES: Final = 1 << 20

# What a request adds to have the probability of each token that was chosen, in both of its forms.
LOGPROBS: Final = {"logprobs": True, "top_logprobs": 1}

_CLASSES: Final = {"xllamacpp": "XLlamaCpp", "llama_cpp": "LlamaCpp", "llama_server": "LlamaServer"}
_HINTS: Final = {
    "xllamacpp": 'pip install "overair[xllamacpp]"',
    "llama_cpp": 'pip install "overair[llama-cpp-python]"',
    "llama_server": f"install llama.cpp so that llama-server is on PATH, or set {SERVER_VARIABLE} to where it is",
}


class Engine(Protocol):
    """A runtime that loads one bundle at a time. It is not safe to use from two threads at once."""

    @property
    def name(self) -> str:
        """What `create` knows it by."""

    @property
    def version(self) -> str:
        """Its name and version: a quarantine ends when this changes.

        Raises:
            EngineMissingError: It is not installed any more.
        """

    def load(self, bundle: Bundle) -> None:
        """Load a bundle, in place of the one that was loaded.

        Raises:
            EngineError: It does not load; the message ends with llama.cpp's own reason.
        """

    def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
        """Answer `prompt` with at most `max_tokens` tokens: the likeliest ones, so the same each time.

        The prompt is a user's message if the bundle has a chat template, and plain text to go on from otherwise.

        Raises:
            EngineError: Nothing is loaded, or the engine failed.
        """

    def unload(self) -> None:
        """Free the model; nothing happens if none is loaded."""


@runtime_checkable
class ChecksTensors(Protocol):
    """An engine that can look for weights that are not numbers while it loads."""

    check_tensors: bool


def create(name: str, *, context_tokens: int = 2048, threads: int | None = None, check_tensors: bool = False) -> Engine:
    """Return the engine called `name`, with nothing loaded.

    Args:
        name: `xllamacpp`, `llama_cpp`, `llama_server`, or `package.module:Class` for a class of the app's own, which
            is called with `context_tokens` and `threads` by name. Never a name that came from outside the app.
        context_tokens: How many tokens a prompt and its answer may have together.
        threads: How many threads it computes with, or None for the engine's own choice.
        check_tensors: Let llama.cpp look for weights that are not numbers while it loads, where the engine can.

    Raises:
        UsageError: No engine has that name.
        EngineMissingError: It is not installed.
    """
    if ":" in name:
        return _own_class(name)(context_tokens=context_tokens, threads=threads)
    if name not in _CLASSES:
        raise UsageError(f"no such engine: {name[:80]!r}", hint=f"choose one of: {', '.join(_CLASSES)}")
    if not _is_installed(name):
        raise EngineMissingError(f"the engine {name} is not installed", hint=_HINTS[name])
    module = importlib.import_module(f"overair.engines.{name}")
    engine: Engine = getattr(module, _CLASSES[name])(context_tokens=context_tokens, threads=threads)
    if check_tensors and isinstance(engine, ChecksTensors):
        engine.check_tensors = True
    return engine


def require_known(name: str) -> None:
    """Refuse a name that no engine can have; whether it is installed is another question.

    Raises:
        UsageError: It is neither empty, nor one of ours, nor `package.module:Class`.
    """
    if name and ":" not in name and name not in _CLASSES:
        raise UsageError(
            f"no such engine: {name[:80]!r}", hint=f"choose one of: {', '.join(_CLASSES)}, or package.module:Class"
        )


def require_library(name: str) -> None:
    """Import what the engine called `name` needs, so that a library that is broken is not taken for a bad model.

    Raises:
        EngineMissingError: It cannot be imported.
    """
    if name not in _CLASSES or name == "llama_server":
        return
    try:
        importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise EngineMissingError(f"the engine {name} cannot be imported: {error}", hint=_HINTS[name]) from error


def installed() -> tuple[str, ...]:
    """Return the names of the engines that are installed, the preferred one first."""
    return tuple(name for name in _CLASSES if _is_installed(name))


def server_binary() -> str | None:
    """Return where `llama-server` is: what `OVERAIR_LLAMA_SERVER` names, else what PATH finds."""
    return shutil.which(os.environ.get(SERVER_VARIABLE) or "llama-server")


def _own_class(name: str) -> Callable[..., Engine]:
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise EngineMissingError(
            f"the engine {name[:200]} cannot be imported: {error}", hint="name it as package.module:Class"
        ) from error
    own: Callable[..., Engine] = found
    return own


def _is_installed(name: str) -> bool:
    if name == "llama_server":
        return server_binary() is not None
    return importlib.util.find_spec(name) is not None


def require_files(engine: str, bundle: Bundle) -> None:
    """Raise an EngineError that names the first file of `bundle` that is not there."""
    extras = (path for path in (bundle.projector, bundle.template) if path is not None)
    for path in (bundle.model, *bundle.adapters, *extras):
        if not path.is_file():
            raise load_error(engine, path, "there is no such file")


def load_error(engine: str, path: Path, reason: str) -> EngineError:
    """Return the error that says why `engine` did not load the file at `path`."""
    return EngineError(
        f"{engine} cannot load {path}: {reason or 'it gave no reason'}",
        hint="look at the file with: overair inspect FILE; a newer engine may know the model",
    )


def not_loaded(engine: str) -> EngineError:
    """Return the error for a question to an engine that has no model."""
    return EngineError(f"{engine} has no model loaded", hint="load a bundle before you generate")


def read_template(bundle: Bundle) -> str | None:
    """Return the text of the chat template that replaces the model's own, or None.

    Raises:
        EngineError: It cannot be read, is not UTF-8, or is longer than `MAX_TEMPLATE_BYTES`.
    """
    if bundle.template is None:
        return None
    try:
        with bundle.template.open("rb") as file:
            content = file.read(MAX_TEMPLATE_BYTES + 1)
        if len(content) > MAX_TEMPLATE_BYTES:
            raise EngineError(f"the chat template {bundle.template} is longer than {MAX_TEMPLATE_BYTES} bytes")
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise EngineError(f"the chat template {bundle.template} cannot be read: {error}") from error


def has_chat_template(bundle: Bundle) -> bool:
    """Whether prompts to this bundle are messages of a chat.

    Raises:
        EngineError: The model file cannot be read.
    """
    if bundle.template is not None:
        return True
    try:
        with bundle.model.open("rb") as file:
            return "tokenizer.chat_template" in read_gguf(file, bundle.model.stat().st_size).metadata
    except (OSError, GGUFError) as error:
        raise EngineError(f"the model {bundle.model} cannot be read: {error}") from error


def request(prompt: str, *, max_tokens: int, chat: bool) -> dict[str, Any]:
    """Return the request that asks for the likeliest tokens, in the shape that llama.cpp shares with OpenAI."""
    what = {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    return {**what, "max_tokens": max_tokens, "temperature": 0.0, "seed": 0}


def text_of(engine: str, answer: object) -> str:
    """Return the text of an answer to `request`.

    Models that think aloud first may have used up their tokens before the answer: then the thoughts are the text.

    Raises:
        EngineError: The answer says that the engine failed, or has another shape.
    """
    match answer:
        case {"choices": [{"message": Mapping() as message}, *_]}:
            text = message.get("content") or message.get("reasoning_content") or ""
        case {"choices": [{"text": text}, *_]}:
            pass
        case {"error": {"message": message}} | {"message": message}:
            raise EngineError(f"{engine} cannot answer: {str(message)[:300]}")
        case _:
            # Its keys only: a message goes into the history and into reports, and an answer is nobody else's business.
            shape = ", ".join(sorted(map(str, answer)))[:100] if isinstance(answer, dict) else type(answer).__name__
            raise EngineError(f"{engine} gave an answer of an unknown shape: {shape}")
    return str(text)
