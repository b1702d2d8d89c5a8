"""Runs a command and kills it when the parent of this process is gone, however the parent ended.

Usage: `python watcher.py COMMAND ARGUMENT…`, with a pipe from the parent as standard input. The parent's end of the
pipe closes when the parent closes it or dies, by SIGKILL too, and that works on every platform. Nothing but the
standard library is imported, so that it starts in milliseconds.
"""

import os
import signal
import subprocess
import sys
import threading


def main() -> int:
    """Run the command of `sys.argv` until it ends or standard input does; return its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        threading.Thread(target=_kill_at_end_of_input, args=(process,), daemon=True).start()
        try:
            return process.wait()
        finally:
            process.kill()


def _kill_at_end_of_input(process: subprocess.Popen[bytes]) -> None:
    os.read(sys.stdin.fileno(), 1)
    process.kill()


if __name__ == "__main__":
    sys.exit(main())
