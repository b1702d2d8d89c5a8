"""Releases and slots that exist only as values."""

import hashlib

from overair.model.release import Artifact, Release
from overair.model.state import Slot

AT = "2026-11-23T10:00:00Z"


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def release(version: str, *, content: str | None = None, tier: str = "1b", min_app: str | None = None) -> Release:
    """A release of one file; another `content` is another digest."""
    digest = digest_of(content if content is not None else version)
    artifact = Artifact(role="model", name="model.gguf", url=f"blobs/{digest}", size_bytes=10, sha256=digest)
    return Release(tier=tier, version=version, artifacts=(artifact,), min_app_version=min_app)


def slot(version: str, *, proven: bool = True, withdrawn: bool = False, content: str | None = None) -> Slot:
    return Slot(release=release(version, content=content), proven=proven, withdrawn=withdrawn)
