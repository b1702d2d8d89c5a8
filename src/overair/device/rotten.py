"""Files that are not what they were when they were verified: they say nothing about the release."""

import contextlib
import logging
from typing import Final

from overair.core.retention import blobs_to_keep, releases_to_keep
from overair.errors import OverairError, StorageError
from overair.model.release import Release
from overair.store.durable import remove_file, remove_tree
from overair.store.store import Store

_LOG: Final = logging.getLogger("overair")


def what_rotted(store: Store, release: Release | None) -> str:
    """What is wrong with the files of a release, or an empty text; every one of them is read."""
    for artifact in release.artifacts if release else ():
        try:
            wrong = store.blobs.verify(artifact) or store.blobs.verify_installed(release, artifact) if release else None
        except StorageError as error:
            _LOG.warning("%s", error.message)
            wrong = "unreadable"
        if wrong:
            return f"{artifact.name} is {wrong}"
    return ""


def drop_rotten(store: Store, release: Release) -> None:
    """Remove the rotten files of a release that no slot holds any more: the next download fetches them anew."""
    with contextlib.suppress(OverairError), store.lock():
        state = store.read()
        if release.id not in releases_to_keep(state, ()):
            remove_tree(store.layout.release(release.id))
        keep = blobs_to_keep(state)
        for artifact in release.artifacts:
            if artifact.sha256 not in keep and store.blobs.verify(artifact):
                _LOG.info("%s of %s is removed: it has rotted", artifact.name, release.version)
                remove_file(store.layout.blob(artifact.sha256))
