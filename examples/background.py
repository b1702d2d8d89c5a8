"""An app that updates its model in the background, and goes on when it is closed.

python examples/background.py start URL ROOT TIER    set up, start the update in another process, and end at once
python examples/background.py watch                  from any process: how far is it?
python examples/background.py chat                   the next session swaps the new model in
"""

import sys
from collections.abc import Callable

from overair import Conditions, OverairError, Updater

STORE = "background-models"


def start(url: str, root: str, tier: str) -> None:
    with Updater(STORE, url=url, root=root, tier=tier, engine="xllamacpp") as updater:
        job = updater.update_in_background(conditions=Conditions(unmetered=True))
    print(f"process {job.progress().pid} goes on without this one")


def watch() -> None:
    job = Updater(STORE).job()
    if job is None:
        sys.exit("start it first")
    while not (status := job.wait(0.2)).state.is_end:
        done = status.progress
        share = f"{done.bytes_done / done.bytes_total:.0%}" if done and done.bytes_total else ""
        print(status.state, share, status.message, flush=True)
    print(status.state, status.message, status.hint)
    sys.exit(status.exit_code)


def chat() -> None:
    with Updater(STORE) as updater, updater.session("xllamacpp") as session:
        print(f"this is {session.bundle.version}", flush=True)
        for line in sys.stdin:
            print(session.generate(line.strip(), max_tokens=64), flush=True)


COMMANDS: dict[str, Callable[..., None]] = {"start": start, "watch": watch, "chat": chat}

if __name__ == "__main__":
    if sys.argv[1:2] not in [[name] for name in COMMANDS]:
        sys.exit(__doc__)
    try:
        COMMANDS[sys.argv[1]](*sys.argv[2:])
    except OverairError as error:
        sys.exit(f"{error.message}\n{error.hint}")
