"""A publisher that published, and a device that has seen it."""

import json
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import MetaFile

from overair.errors import OverairError
from overair.transport.http import HTTP
from overair.trust.keys import ONLINE, Keyring
from support.trust_server import Device, DiskFiles, Publisher, Site, write_private

OLD, NEW, EVIL = b'{"sequence":1}', b'{"sequence":2}', b'{"sequence":3,"evil":true}'


@dataclass
class Scene:
    """A publisher with one manifest, and a device that has seen it."""

    site: Site
    publisher: Publisher
    device: Device

    def refuses(
        self, error: type[OverairError], *, changed: AbstractSet[str] = frozenset(), **how: Any
    ) -> OverairError:
        """The device refuses what is served; of its files only `changed` are others than before."""
        before = self.device.files.contents()
        with pytest.raises(error) as caught:
            self.device.manifest(**how)
        after = self.device.files.contents()
        assert {name for name in before | after if before.get(name) != after.get(name)} == changed
        assert type(caught.value) is error or error is OverairError
        assert caught.value.hint
        return caught.value

    def forge_online(self, change: Callable[[Any], None]) -> None:
        """A thief of the online key publishes a snapshot that `change` has changed."""
        signers = self.publisher.signers(ONLINE)
        version = self.snapshot_version

        def change_snapshot(snapshot: Any) -> None:
            change(snapshot)
            snapshot.version = version + 1

        name = f"{version + 1}.snapshot.json"
        self.publisher.forge(f"{version}.snapshot.json", change_snapshot, signers, to=name)
        data = self.site.files[f"metadata/{version + 1}.snapshot.json"]

        def point_to_it(timestamp: Any) -> None:
            timestamp.version += 1
            timestamp.snapshot_meta = MetaFile.from_data(version + 1, data, ["sha256"])

        self.publisher.forge("timestamp.json", point_to_it, signers)

    @property
    def snapshot_version(self) -> int:
        timestamp = json.loads(self.site.files["metadata/timestamp.json"])
        return int(timestamp["signed"]["meta"]["snapshot.json"]["version"])


@contextmanager
def opened_scene(tmp_path: Path) -> Iterator[Scene]:
    """The scene, with its server running."""
    keyring = Keyring.create(
        tmp_path / "keys", ["stable", "beta"], write=write_private, passphrase=lambda name: f"secret of {name}"
    )
    with Site() as site, HTTP() as http:
        publisher = Publisher(site, keyring)
        publisher.start()
        publisher.publish("stable", OLD)
        device = Device(site, DiskFiles(tmp_path / "device"), http)
        assert device.manifest(root=publisher.first_root) == OLD
        yield Scene(site, publisher, device)
