"""Tells the state what happened in a session, and whoever wants to know after that."""

import logging
from collections.abc import Sequence
from typing import Final

from overair.core import commands
from overair.device.reporters import Reporter, pass_on
from overair.errors import OverairError
from overair.model.events import Event, Happening
from overair.model.state import State
from overair.store.store import Store

_LOG: Final = logging.getLogger("overair")
_BAD: Final = frozenset(
    {Happening.FAILED, Happening.CRASHED, Happening.QUARANTINED, Happening.REFUSED, Happening.ROLLED_BACK}
)


class Ledger:
    """What happened since a session began.

    Args:
        store: The device's disk.
        reporters: Who is told.
    """

    def __init__(self, store: Store, reporters: Sequence[Reporter]) -> None:
        self.happened: tuple[Event, ...] = ()
        self._store = store
        self._reporters = tuple(reporters)
        self._told = 0

    def report(self, command: commands.Command) -> bool:
        """Apply a command, and say whether it could be; a disk that refuses must not stop the model from working."""
        try:
            self.apply(command)
        except OverairError as error:
            _LOG.info("not noted: %s", error)
            return False
        return True

    def apply(self, command: commands.Command) -> None:
        """Apply a command.

        Raises:
            IllegalEventError: The state does not allow it.
            LockedError: Another process changed the store all the time.
            StorageError: The disk refused.
        """
        with self._store.lock():
            self.apply_locked(command)
        self.tell()

    def apply_locked(self, *wanted: commands.Command) -> State:
        """Apply commands in one write; the store's lock must be held, and `tell` be called without it."""
        state, events = self._store.apply(*wanted)
        self.happened += events
        for event in events:
            level = logging.WARNING if event.what in _BAD else logging.INFO
            _LOG.log(level, "%s %s%s", event.what, event.version, f": {event.reason}" if event.reason else "")
        return state

    def tell(self) -> None:
        """Tell the reporters what they have not been told."""
        news, self._told = self.happened[self._told :], len(self.happened)
        pass_on(self._reporters, news)
