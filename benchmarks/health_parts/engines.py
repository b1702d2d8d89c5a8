"""Engines for the apps of `health.py`."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

from overair.engines.base import Engine, create
from overair.errors import EngineError
from overair.model.release import Bundle

GOOD = "xllamacpp"
CONTEXT_TOKENS = 512


class FailsOneInFifty:
    """Real llama.cpp, which refuses each fiftieth answer."""

    name = "flaky"
    version = "flaky 1"

    def __init__(self, *, context_tokens: int, threads: int | None) -> None:
        self._engine = create(GOOD, context_tokens=context_tokens, threads=threads)
        self._asked = 0

    def load(self, bundle: Bundle) -> None:
        self._engine.load(bundle)

    def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
        self._asked += 1
        if self._asked % 50 == 0:
            raise EngineError("one in fifty fails")
        return self._engine.generate(prompt, max_tokens=max_tokens)

    def unload(self) -> None:
        self._engine.unload()


class PerModel:
    """The engine of a case for the release that it is about, and a good one for all others; says what it does.

    Args:
        engine: Its name; see `overair.engines.base.create`.
        version: The release that it is about.
        memory_bytes: What the load of that release may take of address space, in bytes.
    """

    name = "per-model"
    version = "per-model 1"

    def __init__(self, engine: str, version: str, memory_bytes: int | None) -> None:
        self._engine_name = engine
        self._about = version
        self._memory_bytes = memory_bytes
        self._engine: Engine | None = None
        self._says = False

    def load(self, bundle: Bundle) -> None:
        self._says = bundle.version == self._about
        self._engine = create(self._engine_name if self._says else GOOD, context_tokens=CONTEXT_TOKENS)
        with address_space(self._memory_bytes if self._says else None):
            self._say("loading")
            self._engine.load(bundle)

    def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
        if self._engine is None:
            raise EngineError("nothing is loaded")
        self._say("answering")
        return self._engine.generate(prompt, max_tokens=max_tokens)

    def unload(self) -> None:
        if self._engine is not None:
            self._engine.unload()

    def _say(self, what: str) -> None:
        if self._says:
            print(what, flush=True)


@contextlib.contextmanager
def address_space(more_bytes: int | None) -> Iterator[None]:
    """Let this process map no more than so many bytes more, as on a machine that has no more."""
    if more_bytes is None:
        yield
        return
    held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + more_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
