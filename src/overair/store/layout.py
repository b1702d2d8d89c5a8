"""Where everything lies in a store (DESIGN section 6)."""

from pathlib import Path
from typing import Final

from overair.model.digest import Digest, parse_digest

LINKS: Final = ("current", "previous", "pending")


class Layout:
    """The paths below a store's folder. Nothing is built from a text that came from a server but a checked digest."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state_copies = (root / "state.0.json", root / "state.1.json")
        self.config = root / "device.json"
        self.history = root / "history.jsonl"
        self.lock = root / "lock"
        self.blobs = root / "blobs"
        self.releases = root / "releases"
        self.partial = root / "partial"
        self.leases = root / "leases"
        self.trust = root / "trust"
        self.manifest = root / "manifest.cache"
        self.clock = root / "clock.json"
        self.last_check = root / "last_check.json"

    def folders(self) -> tuple[Path, ...]:
        """The folders that a store has from the start."""
        return (self.blobs, self.releases, self.partial, self.leases, self.trust)

    def blob(self, digest: Digest) -> Path:
        """Where the blob of this digest lies, if it is here."""
        return self.blobs / parse_digest(digest)

    def release(self, release_id: Digest) -> Path:
        """The folder with the files of a release under their own names."""
        return self.releases / parse_digest(release_id)

    def link(self, slot: str) -> Path:
        """A link to the model of a slot, for other programs; nothing reads it back."""
        return self.root / f"model-{slot}.gguf"
