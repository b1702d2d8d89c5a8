"""What another process does to a store: `session STORE [prompt]`, `lock FILE`, `lease FOLDER ID BOOT busy|idle`."""

import sys
from pathlib import Path

from overair.device.session import Session
from overair.store.leases import Lease
from overair.store.lock import exclusive
from overair.store.store import Store
from support.engines import ScriptedEngine


def wait() -> None:
    print("ready", flush=True)  # the test reads it
    sys.stdin.readline()


def main(what: str, path: str, *rest: str) -> None:
    if what == "session":
        with Session(Store(Path(path)), ScriptedEngine()) as session:
            for prompt in rest:
                session.generate(prompt)
            wait()
    elif what == "lock":
        with exclusive(Path(path)):
            wait()
    elif what == "lease":
        session_id, boot, doing = rest
        lease = Lease(Path(path), session_id, boot)
        lease.set_busy(doing == "busy")
        wait()
        lease.release()


if __name__ == "__main__":
    main(*sys.argv[1:])
