"""What must hold on a device's disk after a power cut, as predicates of its store."""

from collections.abc import Callable

from overair.errors import StateUnreadableError
from overair.model.state import TRIES_ON_TRIAL, Slot
from overair.store.blobs import RECORD_NAME
from overair.store.layout import LINKS
from overair.store.partial import Partial
from overair.store.store import Store

Promise = Callable[[Store], bool]


def _version(slot: Slot | None) -> str | None:
    return slot.release.version if slot else None


def is_current(version: str | None, *, proven: bool = True) -> Promise:
    def holds(store: Store) -> bool:
        current = store.read().current
        return _version(current) == version and (current is None or current.proven or not proven)

    return holds


def is_here(version: str) -> Promise:
    """It is staged, or swapped in already."""
    return lambda store: version in {_version(store.read().pending), _version(store.read().current)}


def is_barred(version: str) -> Promise:
    return lambda store: version in {entry.version for entry in store.read().quarantine}


def has_paid(version: str) -> Promise:
    """The try was taken durably before the load, unless a verdict has given it back since."""

    def holds(store: Store) -> bool:
        state = store.read()
        taken = state.tries_left < TRIES_ON_TRIAL and any(s.charged for s in state.sessions)
        return taken or not state.on_trial or _version(state.current) != version

    return holds


def has_pending(version: str) -> Promise:
    return lambda store: _version(store.read().pending) == version


def has_previous(version: str) -> Promise:
    return lambda store: _version(store.read().previous) == version


def is_idle(store: Store) -> bool:
    return not store.read().sessions


def both(*promises: Promise) -> Promise:
    return lambda store: all(promise(store) for promise in promises)


def either(*promises: Promise) -> Promise:
    return lambda store: any(promise(store) for promise in promises)


def is_unreadable(store: Store) -> bool:
    try:
        store.read()
    except StateUnreadableError:
        return True
    return False


def is_sound(store: Store) -> bool:
    return all(store.blobs.verify(a) is None for slot in store.read().slots() for a in slot.release.artifacts)


def is_set_up(store: Store) -> bool:
    return store.config() is not None and store.trust_files().read("root.json") is not None


def is_installed(store: Store) -> bool:
    """What engines open is whole, before any session has looked at it."""
    return all(
        store.blobs.verify_installed(s.release, a) is None for s in store.read().slots() for a in s.release.artifacts
    )


def has_half(store: Store) -> bool:
    """Bytes that came are kept for the next try; once the blob has arrived, it is all of them."""
    partial = [p for p in store.layout.partial.glob("*.json") if Partial.bytes_present(store.layout.partial, p.stem)]
    return bool(partial) or len(list(store.layout.blobs.iterdir())) > 1


def describe(store: Store) -> str:
    try:
        state = store.read()
    except StateUnreadableError as error:
        return str(error)
    slots = ", ".join(f"{name} {_version(getattr(state, name))}" for name in LINKS)
    barred = [entry.version for entry in state.quarantine]
    proven = state.current is not None and state.current.proven
    return f"{slots}, proven {proven}, tries {state.tries_left}, {len(state.sessions)} sessions, quarantine {barred}"


def rubbish(store: Store) -> list[str]:
    """The files of a store that nothing accounts for."""
    layout, state = store.layout, store.read()
    known = {layout.config, layout.history, layout.lock, layout.manifest, layout.clock, *layout.state_copies}
    known |= {layout.last_check}
    known |= {path.with_name(f"{path.name}.damaged") for path in layout.state_copies}
    known |= {path.with_name(f"{path.name}.pid") for path in (layout.lock, layout.partial / "lock")}
    known |= {layout.root / "trust.lock", layout.root / "trust.lock.pid", layout.partial / "lock"}
    known |= {layout.trust / f"{role}.json" for role in ("root", "timestamp", "snapshot", "targets", "stable")}
    known |= {layout.trust / "root_history" / "1.root.json"}
    known |= {layout.link(name) for name in LINKS if getattr(state, name) is not None}
    for slot in state.slots():
        folder = layout.release(slot.id)
        known |= {layout.blob(a.sha256) for a in slot.release.artifacts} | {folder / RECORD_NAME}
        known |= {folder / a.name for a in slot.release.artifacts}
    folders = {*layout.folders(), *(layout.release(slot.id) for slot in state.slots()), layout.trust / "root_history"}
    found = {path for path in layout.root.rglob("*") if path not in folders and path not in known}
    return sorted(path.relative_to(layout.root).as_posix() for path in found)
