"""What may leave a device of what happened there."""

from typing import Final

from msgspec.structs import replace

from overair.model.events import Cause, Event

# Where the reason is a sentence of ours, the publisher's own, or about a file that nobody had asked anything yet. The
# others may quote a prompt, an answer, or what a person wrote.
_OURS: Final = frozenset(
    {
        None,
        Cause.LOAD,
        Cause.DAMAGE,
        Cause.EMPTY_ANSWER,
        Cause.TIMEOUT,
        Cause.CRASH,
        Cause.NO_VERDICT,
        Cause.PUBLISHER,
    }
)


def reportable(event: Event) -> Event:
    """The event without a reason that may hold words of a user or of a model; its `cause` stays."""
    return event if event.cause in _OURS else replace(event, reason="")
