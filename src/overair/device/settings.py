"""What a device is told when it is set up, and what it keeps of what it was told before."""

import logging
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from overair.device.trust import embed, require_trust, root_bytes
from overair.engines import base
from overair.errors import StateUnreadableError, UsageError
from overair.store.config import Config, checked
from overair.store.store import Store

_LOG: Final = logging.getLogger("overair")
_INIT_HINT: Final = "set it up with: overair device init --store DIR --url URL --root root.json --tier TIER"


def settle(store: Store, given: Mapping[str, str | bool], root: bytes | str | Path | None) -> Config:
    """The settings, with what is given written over what was there, and the root that is trusted.

    Raises:
        UsageError: The device was never set up and `url` or `tier` is missing, or a value is not of its type.
        StateUnreadableError: The settings cannot be read.
        StorageError: The folder cannot be made or written.
        LockedError: The settings change, and another process held the store all the time.
    """
    base.require_known(str(given.get("engine", "")))
    known = _known(store, replaceable={"url", "tier"} <= given.keys())
    if known is None and not {"url", "tier"} <= given.keys():
        raise UsageError(f"{store.layout.root} is not set up: url and tier are missing", hint=_INIT_HINT)
    if known is None:
        config = checked(Config(device_id=str(uuid.uuid4()), **given))  # type: ignore[arg-type]  # checked() does
    else:
        config = checked(replace(known, **given))
    trust = root_bytes(root)
    require_trust(store, config, trust)
    if config != known or trust is not None:
        store.create()
        with store.lock():
            embed(store, trust)
            store.configure(config)
    return config


def _known(store: Store, *, replaceable: bool) -> Config | None:
    """What the device was told before; where that cannot be read, it can be told again."""
    try:
        return store.config()
    except StateUnreadableError as error:
        if not replaceable:
            raise
        _LOG.warning("the device is set up anew: %s", error.message)
        return None
