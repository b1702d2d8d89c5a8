"""What a device was told when it was set up: `device.json`."""

from pathlib import Path
from typing import Annotated, Final

import msgspec

from overair.errors import StateUnreadableError, UsageError
from overair.model.explain import explain
from overair.model.manifest import ChannelName
from overair.model.release import TierName
from overair.model.version import VersionText
from overair.store.durable import storage_errors, write_file

FORMAT: Final = 1
MAX_CONFIG_BYTES: Final = 100_000


class Config(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a device was told when it was set up.

    Args:
        url: Where the manifest is.
        tier: The size class that this device picked.
        channel: The stream of releases that it follows.
        app_version: The version of the app around the model.
        device_id: A random name that decides about cohorts; it never leaves the device.
        insecure: Manifests are taken without a signature.
        engine: The engine that the app runs, with which new releases are probed.
        ca_file: Certificate authorities to trust instead of the platform's.
    """

    url: Annotated[str, msgspec.Meta(min_length=1, max_length=8192)]
    tier: TierName
    device_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    channel: ChannelName = "stable"
    app_version: VersionText | None = None
    insecure: bool = False
    engine: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    ca_file: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)] | None = None
    format: Annotated[int, msgspec.Meta(ge=FORMAT, le=FORMAT)] = FORMAT


def checked(config: Config) -> Config:
    """The same config, when every value in it is of its type.

    Raises:
        UsageError: One is not; the message names it.
    """
    try:
        return msgspec.convert(msgspec.to_builtins(config), Config)
    except msgspec.ValidationError as error:
        what = explain(error, (TierName, ChannelName, VersionText), "device")
        raise UsageError(f"settings: {what}", hint="see: overair device init --help") from error


def load_config(path: Path) -> Config | None:
    """The config, or None when the device was never set up.

    Raises:
        StateUnreadableError: It is there and cannot be read.
        StorageError: The disk refused.
    """
    with storage_errors("read", path):
        if not path.exists():
            return None
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES)
    try:
        return msgspec.json.decode(data, type=Config)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateUnreadableError(
            f"{path} cannot be read: {error}", hint="write it again with: overair device init; models are kept"
        ) from error


def save_config(path: Path, config: Config) -> None:
    """Write the config durably.

    Raises:
        StorageError: The disk refused.
    """
    write_file(path, msgspec.json.format(msgspec.json.encode(config), indent=1) + b"\n")
