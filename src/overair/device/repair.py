"""Find what rotted on the disk, and fetch it again."""

from overair.model.release import Artifact, Release
from overair.model.report import Verified
from overair.store.blobs import remove_tree
from overair.store.partial import Partial
from overair.store.store import Store
from overair.transport.download import download as fetch
from overair.transport.http import HTTP


def verify(store: Store, http: HTTP, *, repair: bool) -> Verified:
    """Compare every installed file with its digest; with `repair`, fetch the bad ones again.

    Raises:
        NetworkError: A file could not be fetched.
        IntegrityError: Other bytes came than the release promises.
        StorageError: The disk refused.
        LockedError: Another process is downloading or changes the store.
    """
    sound = 0
    repaired: list[str] = []
    damaged: list[str] = []
    for release in {slot.id: slot.release for slot in store.read().slots()}.values():
        for artifact in release.artifacts:
            wrong = store.blobs.verify(artifact)
            if wrong is None:
                sound += 1
                continue
            sentence = f"{artifact.name} of {release.version} is {wrong}"
            if repair:
                _fetch_again(store, release, artifact, http)
                repaired.append(sentence)
            else:
                damaged.append(sentence)
    return Verified(sound=sound, repaired=tuple(repaired), damaged=tuple(damaged))


def _fetch_again(store: Store, release: Release, artifact: Artifact, http: HTTP) -> None:
    """Put a good blob in the place of a bad one; a running session keeps what it has open."""
    with store.download_lock(), Partial.open(store.layout.partial, artifact.sha256, artifact.size_bytes) as partial:
        path = fetch(http, artifact.url, size_bytes=artifact.size_bytes, sha256=artifact.sha256, partial=partial)
    with store.lock():
        store.blobs.adopt(path, artifact)
        remove_tree(store.layout.release(release.id))
        store.blobs.install(release)
        store.refresh_links()
