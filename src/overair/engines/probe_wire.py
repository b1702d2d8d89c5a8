"""What the process that asks for a probe and the one that carries it out say to each other: one JSON text a line."""

from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec

from overair.model.probe import ProbeCause, ProbeFigures, ProbePolicy
from overair.model.release import Bundle

MAX_ORDER_BYTES: Final = 1 << 24
MAX_LINE_BYTES: Final = 1 << 16
MAX_REASON_CHARACTERS: Final = 500


class Step(StrEnum):
    """How far a probe is. What happens before `LOAD` says nothing about the release."""

    START = "start"
    LOAD = "load"
    ANSWER = "answer"
    JUDGE = "judge"
    UNLOAD = "unload"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to probe, and how.

    Args:
        engine: See `overair.engines.base.create`.
        bundle: What to load.
        policy: What to ask, and what passes.
        context_tokens: See `create`.
        baseline_tokens_per_second: The speed of the current model on this device.
        log: The file that descriptor 2 leads to.
        parent: The number of the process that gave the order.
    """

    engine: str
    bundle: Bundle
    policy: ProbePolicy
    context_tokens: int
    baseline_tokens_per_second: float | None
    log: Path
    parent: int


class Reached(msgspec.Struct, frozen=True, kw_only=True, tag="reached"):
    """A step begins; `number` counts the questions from 1, and is 0 elsewhere."""

    step: Step
    number: int = 0


class Missing(msgspec.Struct, frozen=True, kw_only=True, tag="missing"):
    """The engine cannot be used at all, whatever the release."""

    message: str
    hint: str


class Judged(msgspec.Struct, frozen=True, kw_only=True, tag="judged"):
    """What the release is like, as far as its own process can tell; without a cause it passes."""

    engine: str
    cause: ProbeCause | None = None
    reason: str = ""
    figures: ProbeFigures = ProbeFigures()
    skipped: tuple[str, ...] = ()


Message = Reached | Missing | Judged


def encode(value: Order | Message) -> bytes:
    """Write one line."""
    return msgspec.json.encode(value, enc_hook=str) + b"\n"


def decode_order(line: bytes) -> Order:
    """Read an order; a msgspec.ValidationError or DecodeError if it is none."""
    return msgspec.json.decode(line, type=Order, dec_hook=_path)


def decode_message(line: bytes) -> Message:
    """Read a message; a msgspec.ValidationError or DecodeError if it is none."""
    message: Message = msgspec.json.decode(line, type=Message)
    return message


def one_line(message: str, bundle: Bundle) -> str:
    """A reason as it may go into a report: one line, with the names of the bundle's files, not their folders."""
    extras = (path for path in (bundle.projector, bundle.template) if path is not None)
    for path in (bundle.model, *bundle.adapters, *extras):
        message = message.replace(str(path), path.name)
    return " ".join(message.split())[:MAX_REASON_CHARACTERS]


def _path(kind: type[Any], value: Any) -> Any:
    return kind(value)
