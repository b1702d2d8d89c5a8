"""A publisher with real keys, a device with 1.0.0 installed and confirmed, and what an attacker can do between them."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, MetaFile, TargetFile
from tuf.api.serialization.json import JSONSerializer

import overair
from overair.errors import OverairError
from overair.model.report import Staged
from overair.store.durable import write_file
from overair.trust.keys import ONLINE, Keyring, channel_role
from support.command import Ran, ask, run
from support.misbehaving import Answer, Fault, MisbehavingServer, Request
from support.published import Clock
from support.tiny_model import write_tiny_model

TIER: Final = "1b"
KINDS: Final = ("root", "timestamp", "snapshot", "targets", "channel", "manifest", "blob")
"""The files of an update, in the order in which a device asks for them."""

Files = dict[str, bytes]


@dataclass(frozen=True)
class Meanwhile(Fault):
    """Let something happen on the server when a file has been read and before it is sent."""

    action: Callable[[], object]
    done: list[bool] = field(default_factory=list)

    def change(self, answer: Answer) -> Answer:
        if not self.done:
            self.done.append(True)
            self.action()
        return answer


@dataclass(frozen=True)
class Swapped(Fault):
    """Send other bytes, correctly framed."""

    data: bytes

    def see(self, request: Request) -> Request:
        return Request(request.target, request.path, {})

    def change(self, answer: Answer) -> Answer:
        headers = {"Content-Length": str(len(self.data)), "ETag": '"other"'}
        return replace(answer, status=200, headers=headers, body=self.data, start=0)


class Publisher:
    """A repository with real keys and two channels, served from its folder.

    Args:
        folder: Where the published tree, the keys and the models are made.
        url: Where the tree is served.
        clock: Says what time it is for the publisher.
        expires: See `overair.Repository.init`.
    """

    def __init__(self, folder: Path, url: str, clock: Clock, expires: Mapping[str, int] | None = None) -> None:
        self.site = folder / "site"
        self.folder = folder
        self.repository = overair.Repository.init(
            self.site,
            base_url=url,
            channels=["stable", "beta"],
            keys=folder / "keys",
            passphrase=_passphrase,
            expires=expires,
            clock=clock,
        )
        self.root = self.repository.root_path.read_bytes()

    def publish(self, version: str, *, seed: int, tier: str = TIER, channel: str = "stable") -> bytes:
        """Publish a model of its own; returns its bytes."""
        model = write_tiny_model(self.folder / f"{tier}-{channel}-{version}.gguf", seed=seed)
        self.repository.publish(model, tier=tier, version=version, channel=channel, probe=False)
        return model.read_bytes()

    def path(self, kind: str) -> str:
        """The newest published file of a kind, below the site."""
        if kind == "timestamp":
            return "metadata/timestamp.json"
        if kind == "manifest":
            return f"targets/stable/{self.manifest_digest()}.manifest.json"
        if kind == "blob":
            manifest = self.repository.manifest()
            assert manifest is not None
            return blob_path(manifest.models[TIER].sha256)
        return f"metadata/{self.newest('stable' if kind == 'channel' else kind)}"

    def newest(self, role: str) -> str:
        """The name of the newest metadata of a role."""
        versions = [int(path.name.split(".")[0]) for path in self.site.glob(f"metadata/*.{role}.json")]
        return f"{max(versions)}.{role}.json"

    def manifest_digest(self, channel: str = "stable") -> str:
        digest: str = self.signed(self.newest(channel))["targets"][f"{channel}/manifest.json"]["hashes"]["sha256"]
        return digest

    def signed(self, name: str) -> dict[str, Any]:
        """What a metadata file says."""
        said: dict[str, Any] = json.loads((self.site / "metadata" / name).read_bytes())["signed"]
        return said

    def renew_everything(self) -> None:
        """Sign every role anew, so that a device has to fetch all of them."""
        for role in ("root", "targets", "channel"):
            self.repository.refresh(role=role)

    def files(self) -> Files:
        """The published tree as it is now."""
        return contents(self.site)

    def restore(self, files: Files) -> None:
        """Make the published tree what it was."""
        shutil.rmtree(self.site)
        for name, data in files.items():
            self.put(name, data)

    def put(self, name: str, data: bytes) -> None:
        """Write a file of the published tree, as whoever controls the server can."""
        path = self.site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def signers(self, role: str) -> list[Signer]:
        """The private keys of a role, as a thief has them."""
        keyring = Keyring.load(self.folder / "keys", write=write_file, passphrase=_passphrase)
        return keyring.signers(key.keyid for key in keyring.keys(role))

    def forge(self, name: str, change: Callable[[Any], None], signers: Iterable[Signer], to: str | None = None) -> None:
        """Change a metadata file and sign it, as somebody with these keys can."""
        metadata: Metadata[Any] = Metadata.from_bytes((self.site / "metadata" / name).read_bytes())
        change(metadata.signed)
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(signer, append=True)
        self.put(f"metadata/{to or name}", metadata.to_bytes(JSONSerializer(compact=True)))

    def forge_snapshot(self, changes: Mapping[str, int], *, expires: datetime | None = None) -> None:
        """A thief of the online key says which version of each role is the newest."""
        online = self.signers(ONLINE)
        name = self.newest("snapshot")
        version = int(name.split(".")[0]) + 1

        def change_snapshot(snapshot: Any) -> None:
            snapshot.version = version
            snapshot.expires = expires or snapshot.expires
            snapshot.meta.update({f"{role}.json": MetaFile(number) for role, number in changes.items()})

        self.forge(name, change_snapshot, online, to=f"{version}.snapshot.json")

        def change_timestamp(timestamp: Any) -> None:
            timestamp.version += 1
            timestamp.expires = expires or timestamp.expires
            timestamp.snapshot_meta = MetaFile(version)

        self.forge("timestamp.json", change_timestamp, online)

    def forge_channel(
        self, role: str, data: bytes, signers: Iterable[Signer], *, path: str = "stable/manifest.json"
    ) -> None:
        """A thief of the online key and of `signers` publishes a manifest in a channel's role."""
        target = TargetFile.from_data(path, data, ["sha256"])
        folder, _, name = path.rpartition("/")
        self.put(f"targets/{folder}/{target.hashes['sha256']}.{name}", data)
        self.forge_role(role, lambda channel: channel.targets.update({path: target}), signers)

    def forge_role(self, role: str, change: Callable[[Any], None], signers: Iterable[Signer]) -> None:
        """A thief of the online key and of `signers` publishes another version of a role."""
        newest = self.newest(role)
        version = int(newest.split(".")[0]) + 1

        def next_version(signed: Any) -> None:
            signed.version = version
            change(signed)

        self.forge(newest, next_version, signers, to=f"{version}.{role}.json")
        self.forge_snapshot({role: version})

    def evil_manifest(self, **changes: Any) -> bytes:
        """The newest manifest, with 9.9.9 for the tier: a model that the publisher never saw."""
        model = write_tiny_model(self.folder / "evil.gguf", seed=666).read_bytes()
        digest = hashlib.sha256(model).hexdigest()
        self.put(blob_path(digest), model)
        document = json.loads((self.site / "manifest.json").read_bytes())
        entry = document["models"][TIER]
        url = f"{self.repository.base_url}/{blob_path(digest)}"
        new = {"version": "9.9.9", "name": "model.gguf", "url": url, "sha256": digest, "size_bytes": len(model)}
        new |= changes
        artifact = {key: new[key] for key in ("name", "url", "sha256", "size_bytes")}
        entry["artifacts"] = [{"role": "model", **artifact}]
        entry.update(new)
        document.update(current_version="9.9.9", sequence=document["sequence"] + 1)
        return json.dumps(document).encode()


@dataclass
class Scene:
    """A publisher, the server between, and a device that runs 1.0.0; `publisher` has 1.1.0 ready to be installed."""

    publisher: Publisher
    server: MisbehavingServer
    clock: Clock
    store: Path
    installed: bytes
    newer: bytes = b""

    def updater(self) -> overair.Updater:
        """The device, as its app opens it."""
        return overair.Updater(self.store, url=self.server.url, root=self.publisher.root, tier=TIER)

    def update(self) -> object:
        with self.updater() as updater:
            return updater.update()

    def offer(self) -> None:
        """Publish 1.1.0."""
        self.newer = self.publisher.publish("1.1.0", seed=2)

    def check(self) -> object:
        """Let the device see what is offered, without taking it."""
        with self.updater() as updater:
            return updater.check()

    def disk(self) -> Files:
        """Every file of the device but the locks, what is still to be verified, and what the last check came to."""
        found = contents(self.store)
        return {
            name: data
            for name, data in found.items()
            if not name.endswith(("lock", "lock.pid", "last_check.json")) and not name.startswith("partial/")
        }

    def refuses(
        self,
        error: type[OverairError],
        code: int,
        *words: str,
        trust: AbstractSet[str] = frozenset(),
        also: AbstractSet[str] = frozenset(),
    ) -> OverairError:
        """An update fails with this error and exit code, the disk stays as it is but for what is named, and the
        installed model still runs.

        Args:
            error: The class that is raised.
            code: The exit code of the command.
            words: What the message or the hint has to say.
            trust: The files of metadata that TUF allows to change, all of which must.
            also: Other files that must change.
        """
        before = self.disk()
        with pytest.raises(error) as caught:
            self.update()
        allowed = {f"trust/{name}.json" for name in trust} | also
        assert changed(before, self.disk()) == allowed, (caught.value.message, changed(before, self.disk()) ^ allowed)
        assert caught.value.exit_code == code, repr(caught.value)
        assert caught.value.hint
        assert "\n" not in caught.value.message
        for word in words:
            assert word in caught.value.message + caught.value.hint, caught.value.message + caught.value.hint
        self.runs(self.installed, "1.0.0")
        return caught.value

    def runs(self, model: bytes, version: str) -> None:
        """The device hands this model to its engine."""
        with self.updater() as updater:
            bundle = updater.swap().bundle
        assert (bundle.version, bundle.model.read_bytes() == model) == (version, True)

    def recovers(self) -> None:
        """With an honest server the same device installs 1.1.0: it was the attack that was refused."""
        self.server.faults.clear()
        answer = self.update()
        assert isinstance(answer, Staged), answer
        self.runs(self.newer, "1.1.0")

    def command(self, *words: str) -> Ran:
        return run("device", "update", "--store", self.store, *words)

    def command_refuses(self, code: int, *words: str) -> None:
        """The installed command ends with this code, one line that says what is wrong and one that says what to do."""
        before = self.disk()
        ran = self.command()
        after = self.disk()
        lines = ran.err.splitlines()
        said = [line for line in lines if line.startswith(("error: ", "hint: "))]
        assert (ran.code, len(said), "Traceback" in ran.err) == (code, 2, False), ran.err
        for word in words:
            assert word in said[0] + said[1]
        assert {name for name in changed(before, after) if not name.startswith("trust/")} == set()
        swapped = ask("device", "swap", "--store", self.store)
        assert swapped["version"] == "1.0.0"
        assert Path(swapped["path"]).read_bytes() == self.installed


@contextmanager
def opened_scene(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, tls: bool = False, expires: Mapping[str, int] | None = None
) -> Iterator[Scene]:
    """The scene, with its server running. Device and publisher tell the time by the scene's clock."""
    clock = Clock()
    clock.now = datetime.now(UTC).replace(microsecond=0)
    monkeypatch.setattr("overair.host.clock.utc_now", clock)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    (folder / "site").mkdir()
    with MisbehavingServer(folder / "site", tls=tls) as server:
        if server.ca_file:
            monkeypatch.setenv("SSL_CERT_FILE", str(server.ca_file))
        publisher = Publisher(folder, server.url, clock, expires)
        installed = publisher.publish("1.0.0", seed=1)
        scene = Scene(publisher, server, clock, folder / "device", installed)
        with scene.updater() as updater:
            updater.update()
            updater.swap()
            updater.confirm()
        yield scene


def contents(folder: Path) -> Files:
    """Every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def changed(before: Files, after: Files) -> set[str]:
    """The names of the files that came, went or have another content."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def channel_keys(publisher: Publisher, channel: str = "stable") -> list[Signer]:
    """What a thief of a channel's key has."""
    return publisher.signers(channel_role(channel))


def blob_path(digest: str) -> str:
    """Where a blob is published."""
    return f"blobs/sha256/{digest[:2]}/{digest}"


def _passphrase(name: str) -> str:
    return f"secret of {name}"
