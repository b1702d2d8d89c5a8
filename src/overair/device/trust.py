"""What a device trusts: the publisher's root, or, if it was told so, anybody."""

from pathlib import Path
from typing import Final

from overair.errors import StorageError, UsageError
from overair.store.config import Config
from overair.store.store import Store

MAX_ROOT_BYTES: Final = 512_000


def root_bytes(root: bytes | str | Path | None) -> bytes | None:
    """The content of a `root.json`, given as such or by its path.

    Raises:
        StorageError: It cannot be read.
        UsageError: It is too large to be one.
    """
    if root is None or isinstance(root, bytes):
        data = root
    else:
        try:
            with Path(root).open("rb") as file:
                data = file.read(MAX_ROOT_BYTES + 1)
        except OSError as error:
            raise StorageError(
                f"cannot read {root}: {error.strerror or error}",
                hint="`overair repo init` says where root.json is; ship it with the app",
            ) from error
    if data is not None and len(data) > MAX_ROOT_BYTES:
        raise UsageError(f"the root has more than {MAX_ROOT_BYTES} bytes: it is not a root.json")
    return data


def require_trust(store: Store, config: Config, root: bytes | None) -> None:
    """Refuse a device that would trust nobody, and one that would stop trusting somebody.

    Raises:
        UsageError: There is neither a root nor the word that unsigned manifests are welcome; or there are both.
    """
    has_root = root is not None or store.trust_files().read("root.json") is not None
    if config.insecure and has_root:
        raise UsageError(
            f"{store.layout.root} trusts a publisher's root: it cannot take unsigned manifests as well",
            hint="use another store for that",
        )
    if not config.insecure and not has_root:
        raise UsageError(
            "nothing would protect this device: the publisher's root.json is missing",
            hint="name it with --root; to take unsigned manifests, for development only: --insecure",
        )


def embed(store: Store, root: bytes | None) -> None:
    """Make a root the trust of a device that has none, or only a damaged one.

    A device that has one keeps it: it may have followed the publisher to newer keys than those in the app.

    Raises:
        TrustError: It is not a root, or the device trusts another publisher.
        StorageError: The disk refused.
    """
    if root is None:
        return
    from overair.trust.client import embed_root

    embed_root(store.trust_files(), root)
