"""Get the manifest: signed, or plain where the device was told to take it so."""

import contextlib
import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import msgspec

from overair.errors import ExpiredError, ManifestError, NetworkError, StorageError, SuspectClockError
from overair.host import clock
from overair.model.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from overair.store.config import Config
from overair.store.durable import write_file
from overair.store.store import Store
from overair.transport.http import Document
from overair.transport.source import Source

REFRESH_LIMIT_S: Final = 120.0
FILE_LIMIT_S: Final = 60.0
# Beyond this a clock is more likely to be wrong than a device to have been off.
DOUBTFUL: Final = timedelta(days=400)
_NOTE_EVERY: Final = timedelta(hours=1)

_LOG: Final = logging.getLogger("overair")


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest, and what its sequence is remembered under.

    Another repository counts for itself, and so do other keys of a channel: whoever had a stolen key may have
    published the highest sequence there is, and exchanging the key must end that.
    """

    manifest: Manifest
    succession: str


def fetch_manifest(store: Store, config: Config, http: Source) -> Fetched:
    """The manifest of the channel that this device follows.

    Raises:
        TrustError: It is not signed by whom it should be.
        ExpiredError: It is authentic, and too old to install by.
        NetworkError: It did not come.
        ManifestError: It is not one.
        StorageError: The disk refused.
        LockedError: Another process refreshes the metadata.
    """
    if config.insecure:
        return Fetched(manifest=_plain(store, config, http), succession=succession(config))
    return _signed(store, config, http)


def manifest_url(config: Config) -> str:
    """The address of the plain manifest; a URL that does not name a JSON file is that of a whole repository."""
    return config.url if config.url.endswith(".json") else f"{config.url.rstrip('/')}/{config.channel}/manifest.json"


def base_url(config: Config) -> str:
    """The address of the repository, whichever of its manifests the device was given."""
    if not config.url.endswith(".json"):
        return config.url.rstrip("/")
    folder = config.url.rpartition("/")[0]
    return folder.removesuffix(f"/{config.channel}")


def succession(config: Config) -> str:
    """What the sequence of manifests is remembered under, but for the keys that signed."""
    return f"{config.channel} {base_url(config)}"


def _signed(store: Store, config: Config, http: Source) -> Fetched:
    """What the chain of signatures from the embedded root vouches for."""
    from overair.trust.client import TrustClient

    now, files = _trusted_time(store), store.trust_files()
    with store.trust_lock():
        client = TrustClient(files, metadata_url=f"{base_url(config)}/metadata", fetch=_fetcher(http), now=now)
        path = f"{config.channel}/manifest.json"
        cached = _read(store)
        try:
            data = client.fetch_target(path, f"{base_url(config)}/targets", cached=cached)
            keyids = client.keys_of(config.channel)
        except ExpiredError as error:
            raise _doubted(error, store, now) from error
        if data != cached:
            _keep(store, data)
        _note_time(store, now)
    signed_by = ",".join(keyid[:16] for keyid in keyids)
    return Fetched(manifest=parse_manifest(data), succession=f"{succession(config)} {signed_by}")


def _fetcher(http: Source) -> Callable[[str, int], bytes]:
    """Gets small files; all of them together may take so long and no longer."""
    deadline = time.monotonic() + REFRESH_LIMIT_S

    def fetch(url: str, max_bytes: int) -> bytes:
        left = deadline - time.monotonic()
        if left <= 0:
            raise NetworkError(f"the metadata did not come within {REFRESH_LIMIT_S:.0f} seconds")
        answer = http.get(url, max_bytes=max_bytes, total_timeout_s=min(left, FILE_LIMIT_S))
        if not isinstance(answer, Document):
            raise NetworkError(f"{url} answered that nothing changed, without having been asked")
        return answer.data

    return fetch


def _plain(store: Store, config: Config, http: Source) -> Manifest:
    """What the server says; one that has not changed does not travel twice."""
    url = manifest_url(config)
    _LOG.warning("the manifest of %s is not signed: whoever controls that server chooses the model", url)
    cached = _cached(store, url)
    answer = http.get(url, max_bytes=MAX_MANIFEST_BYTES, etag=cached.etag if cached else None)
    if not isinstance(answer, Document):
        if cached is None:
            raise ManifestError(f"{url} answered that nothing changed, without having been asked")
        return parse_manifest(cached.data)
    manifest = parse_manifest(answer.data)
    if answer.etag is not None:
        _keep(store, msgspec.json.encode(_Cached(url=url, etag=answer.etag, data=answer.data)))
    return manifest


class _Cached(msgspec.Struct, frozen=True):
    """The plain manifest that came last, and what the server called it."""

    url: str
    etag: str
    data: bytes


def _cached(store: Store, url: str) -> _Cached | None:
    try:
        cached = msgspec.json.decode(_read(store) or b"", type=_Cached)
        parse_manifest(cached.data)
    except (msgspec.DecodeError, UnicodeDecodeError, ManifestError):
        return None
    return cached if cached.url == url else None


def _read(store: Store) -> bytes | None:
    try:
        with store.layout.manifest.open("rb") as file:
            return file.read(2 * MAX_MANIFEST_BYTES)
    except OSError:
        return None


def _keep(store: Store, data: bytes) -> None:
    """Keep the manifest for the next check, which works without it as well."""
    try:
        write_file(store.layout.manifest, data)
    except StorageError as error:
        _LOG.warning("%s", error)


class _Clock(msgspec.Struct, frozen=True):
    """When metadata was found good last: the time cannot be earlier."""

    good_at: str


def _floor(store: Store) -> datetime:
    """The earliest that it can be: this version was built then, or metadata was good then."""
    noted = None
    with contextlib.suppress(OSError, msgspec.DecodeError, ValueError):
        noted = datetime.fromisoformat(msgspec.json.decode(store.layout.clock.read_bytes(), type=_Clock).good_at)
    return max(noted, clock.BUILT_AT) if noted else clock.BUILT_AT


def _trusted_time(store: Store) -> datetime:
    """The time to judge expiry by. A clock that runs before the floor is reported, and not believed."""
    now, floor = clock.utc_now(), _floor(store)
    if now < floor - timedelta(days=1):
        _LOG.warning(
            "the clock of this machine says %s, which is before %s: set it", f"{now:%Y-%m-%d}", f"{floor:%Y-%m-%d}"
        )
    return max(now, floor)


def _note_time(store: Store, now: datetime) -> None:
    if now - _floor(store) < _NOTE_EVERY:
        return
    try:
        write_file(store.layout.clock, msgspec.json.encode(_Clock(good_at=clock.timestamp(now))))
    except StorageError as error:
        _LOG.warning("%s", error)


def _doubted(error: ExpiredError, store: Store, now: datetime) -> ExpiredError:
    """Say so when it may be the clock that is wrong, and not the metadata that is old."""
    since = now - _floor(store)
    if since < DOUBTFUL:
        return error
    return SuspectClockError(
        f"{error.message}; but the clock of this machine says {now:%Y-%m-%d}, {since.days} days after anything it knew",
        hint="is the clock right? if it is, the publisher has to sign anew with: overair repo refresh",
    )
