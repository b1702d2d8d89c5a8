"""Where the passphrase of a key comes from: an environment variable, or somebody at a terminal."""

import getpass
import os
import sys
from collections.abc import Callable
from typing import Final

from overair.errors import UsageError

VARIABLE: Final = "OVERAIR_PASSPHRASE"


def provider(*, new: bool = False) -> Callable[[str], str] | None:
    """What is asked for passphrases, or None where nobody can answer.

    Args:
        new: Keys are being made: a typed passphrase is asked for twice, once for all of them.
    """
    if os.environ.get(VARIABLE):
        return lambda _name: os.environ[VARIABLE]
    if not sys.stdin.isatty():
        return None
    typed: dict[str, str] = {}

    def ask(name: str) -> str:
        # Keys that are made together share a passphrase until somebody moves them apart.
        place = "all new keys" if new else name
        if place not in typed:
            typed[place] = getpass.getpass(f"passphrase for {place}: ")
            if new and getpass.getpass("the same again: ") != typed[place]:
                raise UsageError("the two passphrases differ", hint="run the command again")
        return typed[place]

    return ask
