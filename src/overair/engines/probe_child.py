"""The process of a probe. Its parent is `overair.engines.probe`.

An order comes on standard input; messages go to what standard output was, which from then on leads to descriptor 2:
engines may print. The end of the input means that the parent is gone.
"""

import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from overair.engines.base import create, require_library
from overair.engines.probe_questions import Questions
from overair.engines.probe_wire import MAX_ORDER_BYTES, Message, Missing, decode_order, encode
from overair.engines.stderr import log_to
from overair.errors import OverairError

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_READ_BYTES: Final = 1 << 16


def main() -> int:
    """Carry out one order; the exit code is 0 whatever the verdict."""
    messages = os.dup(1)
    os.dup2(2, 1)
    order = decode_order(_first_line())
    threading.Thread(target=_end_with_input, daemon=True).start()
    _end_with(order.parent)
    _be_the_first_to_go()
    log_to(order.log)

    def send(message: Message) -> None:
        os.write(messages, encode(message))

    try:
        engine = create(order.engine, context_tokens=order.context_tokens, check_tensors=True)
        require_library(order.engine)
        questions = Questions(order, engine, engine.version, send)
    except OverairError as error:
        send(Missing(message=error.message, hint=error.hint))
        return 0
    questions.run()
    return 0


def _first_line() -> bytes:
    """The order. Read from the descriptor itself: a thread that holds `sys.stdin` at the end is a fatal error."""
    line = b""
    while not line.endswith(b"\n") and len(line) < MAX_ORDER_BYTES:
        part = os.read(0, _READ_BYTES)
        if not part:
            break
        line += part
    return line


def _end_with_input() -> None:
    os.read(0, 1)
    os._exit(0)


def _end_with(parent: int) -> None:
    """Let Linux kill this process with its parent: a thread could not, while an engine holds Python's lock."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before
        os._exit(0)


def _be_the_first_to_go() -> None:
    """When memory runs out, Linux is to end this process and not the app."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


if __name__ == "__main__":
    sys.exit(main())
