"""What another process does to a store, one function each: `child.py NAME PATH [MORE]`."""

import ctypes
import os
import signal
import sys
from pathlib import Path

from overair.device.session import Session
from overair.store.leases import Lease
from overair.store.lock import exclusive
from overair.store.store import Store
from support.engines import ScriptedEngine, compute_for_ever


def wait() -> None:
    print("ready", flush=True)  # the test reads it
    sys.stdin.readline()


def session(path: Path, *prompts: str) -> None:
    with Session(Store(path), ScriptedEngine()) as opened:
        for prompt in prompts:
            opened.generate(prompt)
        wait()


def segfault(path: Path) -> None:
    """Crash for reasons of its own, while the model does nothing."""
    with Session(Store(path), ScriptedEngine()):
        ctypes.string_at(0)


def handler(path: Path) -> None:
    """Have a handler of its own, which cannot run before the answer is complete."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    session(path, "hi")


def settles(path: Path) -> None:
    """Set its handler while a session is open."""
    with Session(Store(path), ScriptedEngine()):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    signal.raise_signal(signal.SIGTERM)


def nohup(path: Path) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Session(Store(path), ScriptedEngine()) as opened:
        signal.raise_signal(signal.SIGHUP)
        opened.generate("hi")


def observe(path: Path, *doing: str) -> None:
    with Session(Store(path), None) as opened:
        for what in doing:
            with opened.observe():
                if what == "hang":
                    compute_for_ever()
        wait()


def late(path: Path) -> None:
    with Session(Store(path), ScriptedEngine(), generate_timeout_s=0.05, load_timeout_s=0.05) as opened:
        opened.generate("hi")


def real(path: Path, prompt: str) -> None:
    from overair.engines.base import create

    with Session(Store(path), create("xllamacpp", context_tokens=512, threads=1)) as opened:
        print("ready", flush=True)
        opened.generate(prompt, max_tokens=400)
        os._exit(9)  # the answer should have taken longer


def lock(path: Path) -> None:
    with exclusive(path):
        wait()


def lease(path: Path, session_id: str, boot: str, doing: str) -> None:
    taken = Lease(path, session_id, boot)
    taken.set_busy(doing == "busy")
    wait()
    taken.release()


WHAT = (session, segfault, handler, settles, nohup, observe, late, real, lock, lease)

if __name__ == "__main__":
    # A shell starts what runs in the background with the interrupt ignored, and a child inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    {do.__name__: do for do in WHAT}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
