"""Is there a model for this device? Fetch the manifest, select, and note what the publisher took back."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Final

from msgspec.structs import replace

from overair.core import commands, slots
from overair.core.select import Device, select
from overair.device.manifest import Fetched, fetch_manifest, manifest_url
from overair.device.probing import engine_version, probing_engine
from overair.errors import CancelledError, DeferredError, ManifestError, OverairError, TrustError
from overair.host import clock
from overair.host.memory import memory
from overair.model.offer import Answer, Deferred, Offer, Reason, UpToDate
from overair.model.release import Release, relocated
from overair.model.report import LastCheck, Outcome
from overair.model.state import State
from overair.store.config import Config
from overair.store.last_check import load_last_check, save_last_check
from overair.store.store import Store
from overair.transport.http import resolve
from overair.transport.source import Source

_OUTCOMES: Final[Mapping[type[Answer], Outcome]] = {
    Offer: "offer",
    UpToDate: "up-to-date",
    Deferred: "deferred",
}


def check(store: Store, config: Config, http: Source) -> Answer:
    """Ask the publisher which release this device should run.

    Raises:
        NetworkError: The manifest did not come.
        ManifestError: It is not one, or that of another channel.
        TrustError: It is not signed by whom it should be, or older than one that this device acted on.
        ExpiredError: It is authentic, and too old to install by.
    """
    with noting_failure(store):
        fetched = fetch_manifest(store, config, http)
        manifest = fetched.manifest
        _check_succession(store, config, fetched)
        _note(store, config, fetched)
        state = store.read()
        answer = select(manifest, state, _device(config, state), clock.utc_now())
    _remember(store, answer, manifest.poll_seconds)
    if isinstance(answer, Offer):
        return replace(answer, release=_with_addresses(answer.release, manifest_url(config)))
    return answer


def _device(config: Config, state: State) -> Device:
    """What a selection needs to know."""
    found = memory()
    return Device(
        id=config.device_id,
        tier=config.tier,
        app_version=config.app_version,
        engine=engine_version(probing_engine(config, state)) or state.engine,
        memory_bytes=found.total_bytes if found else None,
    )


@contextlib.contextmanager
def noting_failure(store: Store) -> Iterator[None]:
    """Note why a check, or the download after it, came to nothing, for whoever asks why there is no update."""
    try:
        yield
    except CancelledError:
        raise
    except OverairError as error:
        outcome: Outcome = "deferred" if isinstance(error, DeferredError) else "failed"
        _note_outcome(store, outcome, type(error).__name__, error.message, error.hint, poll_seconds=_interval(store))
        raise


def note_staged(store: Store, release: Release) -> None:
    """Note that what the last check offered is here."""
    explanation = f"{release.version} is downloaded: the next session starts it"
    _note_outcome(store, "staged", Reason.STAGED, explanation, poll_seconds=_interval(store))


def _interval(store: Store) -> int | None:
    """How often the manifest asked this device to check, when it came last."""
    before = load_last_check(store.layout.last_check)
    return before.poll_seconds if before else None


def _remember(store: Store, answer: Answer, poll_seconds: int | None) -> None:
    hint = answer.hint if isinstance(answer, Deferred) else ""
    _note_outcome(store, _OUTCOMES[type(answer)], answer.reason, answer.explanation, hint, poll_seconds=poll_seconds)


def _note_outcome(
    store: Store, outcome: Outcome, reason: str, explanation: str, hint: str = "", *, poll_seconds: int | None
) -> None:
    save_last_check(
        store.layout.last_check,
        LastCheck(
            at=clock.timestamp(clock.utc_now()),
            outcome=outcome,
            reason=reason,
            explanation=explanation,
            hint=hint,
            poll_seconds=poll_seconds,
        ),
    )


def _check_succession(store: Store, config: Config, fetched: Fetched) -> None:
    manifest = fetched.manifest
    if manifest.channel is not None and manifest.channel != config.channel:
        raise ManifestError(
            f"{config.url} is the manifest of channel {manifest.channel}, this device follows {config.channel}",
            hint="set the URL of the right channel with: overair device init",
        )
    seen = store.read().sequences.get(fetched.succession, 0)
    if manifest.schema is not None and manifest.sequence < seen:
        raise TrustError(
            f"{config.url} is manifest {manifest.sequence} of channel {config.channel}, and {seen} was seen before",
            hint="an old copy is being served: check the cache in front of the repository",
        )


def _note(store: Store, config: Config, fetched: Fetched) -> None:
    """Write down the sequence, and which of this device's releases were taken back, if that is news."""
    manifest = fetched.manifest
    withdrawn = frozenset(w.sha256 for w in manifest.withdrawn if w.tier == config.tier)
    at = clock.timestamp(clock.utc_now())
    news: tuple[commands.Command, ...] = (
        commands.See(at=at, channel=fetched.succession, sequence=manifest.sequence),
        commands.Withdraw(at=at, release_ids=withdrawn),
    )
    state = store.read()
    pending = state.pending
    went_back = manifest.schema is None and config.tier in manifest.models and pending is not None
    if went_back and state.current is not None and state.current.id == manifest.release(config.tier).id:
        news = (*news, commands.Unstage(at=at, reason="the publisher went back"))
    if slots.would_change(state, news):
        with store.lock():
            store.apply(*news)


def _with_addresses(release: Release, base: str) -> Release:
    """The release with every address resolved against the manifest's own."""
    artifacts = tuple(relocated(artifact, lambda url: resolve(base, url)) for artifact in release.artifacts)
    return replace(release, artifacts=artifacts)
