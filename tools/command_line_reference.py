"""Write docs/reference/command-line.md from the commands' own help.

Usage: python tools/command_line_reference.py > docs/reference/command-line.md
"""

import sys
from collections.abc import Iterator
from typing import Any

import typer

from overair.cli.main import app

HEAD = """# Command line

Written by `tools/command_line_reference.py` from the commands' own help.

Every command takes `--json`: one JSON object on standard output; progress, warnings and errors go to standard error.
`OVERAIR_STORE` and `OVERAIR_REPO` stand in for `--store` and `--repo`.

| code | meaning |
|-|-|
| 0 | done, also when there was nothing to do |
| 1 | other failure |
| 2 | the call is wrong |
| 20 | untrusted or expired metadata |
| 21 | integrity: bytes or a manifest are not what they should be |
| 22 | deferred |
| 23 | storage |
| 24 | network |
| 25 | engine or probe failed |
| 26 | locked by another process |
| 27 | state unreadable |
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_sections(typer.main.get_command(app), "overair")]) + "\n"


def _sections(command: Any, path: str) -> Iterator[str]:
    if getattr(command, "commands", None):
        for name, child in command.commands.items():
            yield from _sections(child, f"{path} {name}")
        return
    yield f"## {path}\n\n{command.help}\n"
    yield "| option | meaning |\n|-|-|"
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            yield f"| `{parameter.metavar}` | {parameter.help} |"
        else:
            value = f" {parameter.metavar}" if parameter.metavar and not parameter.is_flag else ""
            yield f"| `{', '.join(parameter.opts)}{value}` | {parameter.help} |"
    yield f"\n    {command.epilog.removeprefix('Example: ')}\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
