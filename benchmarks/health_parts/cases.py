"""The cases: bad models for real llama.cpp, engines that do what their name says, and apps that die."""

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from overair.model.probe import ProbeLimits, ProbePolicy
from overair.model.release import Bundle
from support import bad_models as bad
from support.tiny_model import bundle_of, with_architecture, write_adapter, write_tiny_model

ROOT: Final = Path(__file__).resolve().parents[2]
SMOLLM2: Final = ROOT / ".models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
GEMMA3: Final = ROOT / ".models" / "gemma-3-270m-q4_k_m.gguf"
# For what hangs for ever; all else has the time that devices give.
SHORT: Final = ProbeLimits(load_s=6.0, answer_s=6.0, unload_s=3.0)
HANG_SECONDS: Final = 6.0
MORE_STARTS_THAN_TRIES: Final = 5
GOOD_ENGINE: Final = "xllamacpp"


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """What the app does in each of its sessions.

    Args:
        answers: How many it asks for.
        max_tokens: The length of each.
        signal_at: The signal that ends it, by what the model does then: `loading` or `answering`.
        crashes: It dies by a segmentation fault of its own, while the model does nothing.
        memory_bytes: What a load may take of address space, in bytes.
        starts: How often it is started, when nothing is found.
        timeout_s: How long a load and an answer may take before they cost a try, in seconds.
    """

    answers: int = 3
    max_tokens: int = 12
    signal_at: dict[str, int] = field(default_factory=dict)
    crashes: bool = False
    memory_bytes: int | None = None
    starts: int = 3
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """A release, the engine that loads it, and the app around it.

    Args:
        name: What the table calls it.
        build: Writes what it needs into a folder.
        engine: See `overair.engines.base.create`.
        policy: What the publisher asks.
        limits: What the device allows to a probe.
        current: Builds the model that was current before, where that matters to the probe.
        app: What uses it on trial.
        good: Nothing is wrong with the model: to go back from it is a false alarm.
        base_sha256: The model that its adapter says it is for.
        note: Why it is missed, where it is.
    """

    name: str
    build: Callable[[Path], Bundle]
    engine: str = GOOD_ENGINE
    policy: ProbePolicy | None = None
    limits: ProbeLimits | None = None
    current: Callable[[Path], Bundle] | None = None
    app: App = App()
    good: bool = False
    base_sha256: str | None = None
    note: str = ""


def of_smollm2(change: Callable[[Path, Path], Path]) -> Callable[[Path], Bundle]:
    return lambda folder: bundle_of(change(SMOLLM2, folder / "bad.gguf"))


def smollm2(_: Path) -> Bundle:
    return bundle_of(SMOLLM2)


def with_template(text: str) -> Callable[[Path], Bundle]:
    def build(folder: Path) -> Bundle:
        template = folder / "template.jinja"
        template.write_text(text, encoding="utf-8")
        return bundle_of(SMOLLM2, template=template)

    return build


def tiny(folder: Path) -> Bundle:
    return bundle_of(write_tiny_model(folder / "tiny.gguf"))


def adapted(folder: Path) -> Bundle:
    return bundle_of(write_tiny_model(folder / "tiny.gguf"), adapters=(write_adapter(folder / "adapter.gguf"),))


def slow(folder: Path) -> Bundle:
    return bundle_of(bad.write_slow_model(folder / "slow.gguf", layers=40))


def breaks(name: str) -> str:
    return f"support.bad_engines:{name}"


HANGS: Final = App(timeout_s=HANG_SECONDS)
BAD_MODELS: Final = (
    Case("10,000 flipped bytes", of_smollm2(bad.flip_bytes)),
    Case("100 flipped bytes", of_smollm2(lambda source, target: bad.flip_bytes(source, target, count=100))),
    Case("all weights zero", of_smollm2(bad.zero_weights)),
    Case("the last third of the weights zero", of_smollm2(bad.zero_tail)),
    Case("one scale not a number", of_smollm2(bad.nan_scales)),
    Case("the last tensor cut, its header right", of_smollm2(bad.cut_tail)),
    Case("an architecture that nobody knows", lambda folder: bundle_of(with_architecture(folder / "a.gguf", "none"))),
    Case("a vocabulary of another length", of_smollm2(bad.lengthen_vocabulary)),
    Case("a vocabulary of another model", of_smollm2(bad.shuffle_vocabulary)),
    Case("a chat template that raises", with_template(bad.RAISING_TEMPLATE)),
    Case("a chat template that loops", with_template(bad.LOOPING_TEMPLATE), limits=SHORT, app=HANGS),
    Case("an adapter that names another base of the same shape", adapted, base_sha256="b" * 64),
    Case(
        "an adapter for another base of the same shape that names none",
        adapted,
        note="it answers; only what the publisher expects of an answer could tell",
    ),
    Case(
        "more memory than the limit",
        smollm2,
        limits=ProbeLimits(memory_bytes=100_000_000),
        app=App(memory_bytes=60_000_000),
    ),
    Case("five times slower", slow, policy=ProbePolicy(min_speed_ratio=0.5), current=tiny),
)
BAD_ENGINES: Final = (
    Case("the engine segfaults at load", tiny, engine=breaks("SegfaultsAtLoad")),
    Case("the engine segfaults at the first answer", tiny, engine=breaks("SegfaultsAtFirstAnswer")),
    Case(
        "the engine segfaults at the 50th answer",
        tiny,
        engine=breaks("SegfaultsAtFiftiethAnswer"),
        app=App(answers=60, starts=6),
        note="the answers before it give the tries back in each start",
    ),
    Case(
        "the same, and the publisher gives 50 prompts",
        tiny,
        engine=breaks("SegfaultsAtFiftiethAnswer"),
        policy=ProbePolicy(prompts=tuple(f"prompt {number}" for number in range(50))),
        app=App(answers=60, starts=6),
    ),
    Case("the engine hangs at load", tiny, engine=breaks("HangsAtLoad"), limits=SHORT, app=HANGS),
    Case("the engine hangs at unload", tiny, engine=breaks("HangsAtUnload"), limits=SHORT, app=HANGS),
)
LONG: Final = 400
DEATHS: Final = (
    Case("the app is killed with -9 in each load", smollm2, app=App(signal_at={"loading": signal.SIGKILL})),
    Case(
        "the app is killed with -9 in each first answer",
        smollm2,
        app=App(max_tokens=LONG, signal_at={"answering": signal.SIGKILL}),
    ),
)
GOOD: Final = (
    Case(
        "a good model, the user ends the app (SIGTERM) in each first answer",
        smollm2,
        app=App(max_tokens=LONG, signal_at={"answering": signal.SIGTERM}, starts=MORE_STARTS_THAN_TRIES),
        good=True,
    ),
    Case(
        "a good model, the app crashes idle before it asks anything",
        smollm2,
        app=App(answers=0, crashes=True, starts=MORE_STARTS_THAN_TRIES),
        good=True,
    ),
    Case(
        "a good model, the app crashes idle after its answers",
        smollm2,
        app=App(crashes=True, starts=MORE_STARTS_THAN_TRIES),
        good=True,
    ),
    Case(
        "a flaky model, proven, that fails one answer in fifty",
        tiny,
        engine="health_parts.engines:FailsOneInFifty",
        app=App(answers=200, max_tokens=8),
        good=True,
    ),
)
CASES: Final = (*BAD_MODELS, *BAD_ENGINES, *DEATHS, *GOOD)
