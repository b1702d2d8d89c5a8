"""Answers to what people ask of a device: why it did not update, and why it went back."""

from collections.abc import Sequence
from typing import Final

from overair.model.events import Cause, Event, Happening
from overair.model.report import Status

_STRIKES: Final = frozenset({Happening.FAILED, Happening.CRASHED})
_MOST_SHOWN: Final = 5


def why_no_update(status: Status) -> str:
    """Why a device runs what it runs and nothing newer, in a line or two."""
    if status.pending is not None:
        return f"{status.pending.version} is downloaded: the next session starts it"
    check = status.last_check
    if check is None:
        return "this device has not checked yet: ask with: overair device check"
    lines = [f"{check.explanation} (checked at {check.at})"]
    if check.outcome == "offer":
        lines = [f"{check.explanation}, and it has not been downloaded (checked at {check.at})"]
    return "\n".join([*lines, f"hint: {check.hint}"] if check.hint else lines)


def why_it_went_back(history: Sequence[Event]) -> str | None:
    """Why a device left a release the last time that it did so, in a few lines, or None if it never did.

    Args:
        history: What happened, the oldest first.
    """
    last = next((i for i in reversed(range(len(history))) if _is_retreat(history, i)), None)
    if last is None:
        return None
    event = history[last]
    bad, now = (event.replaced, event.version) if event.what is Happening.ROLLED_BACK else (event.version, None)
    lines = [f"{event.at or 'once'}: {bad} gave way to {now or 'nothing'}: {event.reason or 'no reason was given'}"]
    lines += _strikes(history[:last], bad)
    if event.cause is Cause.DAMAGE:
        lines.append(f"{bad} is not in quarantine: the next update may bring it again")
    else:
        lines.append(f"{bad} is in quarantine until the app or the engine changes, or it is published anew")
    return "\n".join(lines)


def _is_retreat(history: Sequence[Event], number: int) -> bool:
    """A rollback, or the end of a first install, which has nothing to roll back to."""
    event = history[number]
    if event.what is not Happening.QUARANTINED:
        return event.what is Happening.ROLLED_BACK
    return number == 0 or history[number - 1].what is not Happening.ROLLED_BACK


def _strikes(before: Sequence[Event], version: str | None) -> list[str]:
    """The last strikes of a release since it was swapped in."""
    strikes: list[str] = []
    for event in reversed(before):
        if event.version != version or event.what is Happening.SWAPPED:
            break
        if event.what in _STRIKES:
            strikes.append(f"  {event.at or 'once'}: {event.what}: {event.reason}")
    return strikes[:_MOST_SHOWN][::-1]
