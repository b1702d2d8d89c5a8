"""Write docs/reference/states.md from the table of the state machine.

Usage: python tools/state_diagram.py > docs/reference/states.md
"""

import sys
from collections.abc import Iterator

from overair.core.slots import TRANSITIONS, Phase

HEAD = """# The states of a device

Written by `tools/state_diagram.py` from the table in `src/overair/core/slots.py`, where the theory of operation is too.

A device is *empty* until a session swaps in its first release; that release is on *trial* until a session confirms it,
and *proven* from then on. What leads to another state:

```mermaid
stateDiagram-v2
    [*] --> empty
"""


def page() -> str:
    """The whole page."""
    return HEAD + "\n".join(_arrows()) + "\n```\n\n" + "\n".join(_table()) + "\n"


def _arrows() -> Iterator[str]:
    between: dict[tuple[Phase, Phase], list[str]] = {}
    for (phase, command), (_, leads_to) in TRANSITIONS.items():
        for after in leads_to - {phase}:
            between.setdefault((phase, after), []).append(command.__name__)
    for (before, after), names in sorted(between.items(), key=lambda item: (item[0][0].value, item[0][1].value)):
        yield f"    {before.value} --> {after.value}: {', '.join(sorted(names))}"


def _table() -> Iterator[str]:
    yield "What each event can lead to; one that has no entry is not allowed, and changes nothing:\n"
    yield f"| event | meaning | {' | '.join(phase.value for phase in Phase)} |"
    yield f"|-|-|{'-|' * len(Phase)}"
    for command in dict.fromkeys(command for _, command in TRANSITIONS):
        cells = [_cell(TRANSITIONS.get((phase, command), (None, frozenset()))[1]) for phase in Phase]
        meaning = " ".join((command.__doc__ or "").split("\n\n", maxsplit=1)[0].split())
        yield f"| {command.__name__} | {meaning} | {' | '.join(cells)} |"


def _cell(phases: frozenset[Phase]) -> str:
    return ", ".join(sorted(phase.value for phase in phases)) or "-"


if __name__ == "__main__":
    sys.stdout.write(page())
