"""For engines that another program runs: hand out the path of the current model, and take its verdict.

Nobody holds a lease for such an engine, so what became of it shows only in what is called next: a release on trial
that is swapped for again without a confirm has lost a try, as a service that is restarted over and over does.
"""

import uuid
from collections.abc import Sequence

import msgspec

from overair.core import commands
from overair.device.ledger import Ledger
from overair.device.repair import report_mended
from overair.device.reporters import Reporter
from overair.errors import IllegalEventError, StorageError
from overair.host import clock
from overair.model.release import Bundle
from overair.store.store import Store


class Swapped(msgspec.Struct, frozen=True, kw_only=True):
    """What to open now.

    Args:
        session: The name of this session, for the log.
        bundle: The files to open.
        swapped: A new release was swapped in just now.
    """

    session: str
    bundle: Bundle
    swapped: bool


def swap(store: Store, *, app_version: str | None, reporters: Sequence[Reporter] = ()) -> Swapped:
    """Make pending current, and say what to open. A session starts; `confirm` gives its verdict.

    Raises:
        IllegalEventError: Nothing is installed yet.
        LockedError: Another process changed the store all the time.
        StorageError: The disk refused, or a file is missing.
    """
    session_id = uuid.uuid4().hex
    ledger = Ledger(store, reporters)
    at = clock.timestamp(clock.utc_now())
    with store.lock():
        report_mended(store)
        before = store.read()
        external = [session.id for session in before.sessions if session.external]
        ended = [commands.Die(at=at, session_id=name, busy=None, app_version=app_version) for name in external]
        deaths = store.deaths(before, clock.boot_id(), at, app_version)
        begin = commands.Begin(at=at, app_version=app_version, session_id=session_id, external=True)
        state = ledger.apply_locked(*ended, *deaths, begin)
        if state.current is None:
            raise IllegalEventError("nothing is installed yet")
        try:
            bundle = store.blobs.install(state.current.release)
        except StorageError:  # nobody will open it, so it costs no try
            store.apply(commands.End(at=at, session_id=session_id))
            raise
    ledger.tell()
    swapped = before.pending is not None and before.pending.id == bundle.id
    return Swapped(session=session_id, bundle=bundle, swapped=swapped)


def confirm(store: Store, *, app_version: str | None = None, reporters: Sequence[Reporter] = ()) -> None:
    """Confirm the release that the last `swap` handed out.

    Raises:
        IllegalEventError: It is not current any more, or there was no swap.
        LockedError: Another process changed the store all the time.
        StorageError: The disk refused.
    """
    ledger = Ledger(store, reporters)
    with store.lock():
        sessions = [s for s in store.read().sessions if s.external]
        if not sessions:
            raise IllegalEventError(
                "there is nothing to confirm", hint="start a session first with: overair device swap"
            )
        at = clock.timestamp(clock.utc_now())
        ledger.apply_locked(commands.Confirm(at=at, app_version=app_version, session_id=sessions[-1].id))
    ledger.tell()
