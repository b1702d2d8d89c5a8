"""A repository with real keys: who needs which, what devices and readers of one file see, and what is refused."""

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, Targets

from overair.errors import ExpiredError, IntegrityError, OverairError, TrustError, UsageError
from overair.model.manifest import parse_manifest
from overair.publish.repository import Repository
from overair.store.durable import write_file
from overair.trust import dsse
from overair.trust.keys import Keyring
from support.published import BASE_URL, START, Clock, FolderDevice, files_below, model_file

DAY = timedelta(days=1)


def secret_of(name: str) -> str:
    return f"secret of {name}"


class Publisher:
    """A repository of two channels with real keys, and the models to publish."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.clock = Clock()
        self.folder = tmp_path / "site"
        self.keys = tmp_path / "site-keys"
        self.away = tmp_path / "safe"
        self.away.mkdir()
        self.init("stable", "beta")
        self.repo = self.opened()

    def init(self, *channels: str, dev: bool = False, expires: dict[str, int] | None = None) -> Repository:
        return Repository.init(
            self.folder,
            base_url=BASE_URL,
            channels=channels,
            passphrase=secret_of,
            dev=dev,
            expires=expires,
            clock=self.clock,
        )

    def opened(self) -> Repository:
        """As another process opens it: nothing of what was typed is remembered."""
        return Repository(self.folder, passphrase=secret_of, clock=self.clock)

    def publish(self, version: str, seed: int, **more: Any) -> None:
        model = model_file(self.tmp_path / "model.gguf", seed)
        self.opened().publish(model, tier="1b", version=version, **more, probe=False)

    def take_away(self, *patterns: str) -> None:
        """Bring private keys to where they are kept."""
        for pattern in patterns:
            for path in list(self.keys.glob(pattern)):
                path.rename(self.away / path.name)

    def bring_back(self) -> None:
        for path in self.away.iterdir():
            path.rename(self.keys / path.name)

    def device(self, name: str = "device") -> FolderDevice:
        """A device with the root of the repository as it is now; a known name goes on where it was."""
        return FolderDevice(self.folder, self.tmp_path / name, (self.keys / "root.json").read_bytes())

    def metadata(self, role: str) -> tuple[Path, Metadata[Any]]:
        """The newest file of a role."""
        files = {path: Metadata.from_bytes(path.read_bytes()) for path in self.folder.glob(f"metadata/*{role}.json")}
        return max(files.items(), key=lambda item: item[1].signed.version)

    def channel_keys(self) -> list[Any]:
        """The keys that the metadata gives to the channel `stable`."""
        targets = self.metadata("targets")[1].signed
        assert isinstance(targets, Targets)
        return [targets.get_key(keyid) for keyid in targets.get_delegated_role("stable").keyids]

    def contents(self) -> list[tuple[str, bytes]]:
        return [*files_below(self.folder), *files_below(self.keys)]

    def refuses(self, error: type[OverairError], match: str, call: Any) -> OverairError:
        """The call fails, and neither the tree nor the keys are other than before."""
        before = self.contents()
        with pytest.raises(error, match=match) as caught:
            call()
        assert self.contents() == before
        assert caught.value.hint
        return caught.value


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path)


def version_at(data: bytes) -> str:
    return parse_manifest(data).current_version


def test_publishing_needs_no_key_but_the_channels_and_the_online_one(publisher: Publisher) -> None:
    device = publisher.device()
    publisher.take_away("root-*.pem", "targets.pem", "channel-beta.pem")
    publisher.publish("1.0.0", 1)
    publisher.publish("1.1.0", 2, rollout=0.5)
    repo = publisher.opened()
    assert repo.set_rollout(tier="1b", share=1).version == version_at(device.manifest()) == "1.1.0"
    publisher.publish("1.2.0", 3)
    assert repo.rollback(tier="1b", reason="slow").version == version_at(device.manifest()) == "1.1.0"
    assert repo.withdraw(tier="1b", version="1.1.0", reason="bad").version == version_at(device.manifest()) == "1.0.0"
    assert repo.check(deep=True) == []


@pytest.mark.parametrize("missing", ["channel-stable.pem", "online.pem"])
def test_a_missing_key_is_told_before_anything_is_read_or_written(publisher: Publisher, missing: str) -> None:
    publisher.publish("1.0.0", 1)
    publisher.publish("1.1.0", 2, rollout=0.5)
    publisher.take_away(missing)
    progress: list[int] = []
    repo = publisher.opened()
    for call in (
        lambda: publisher.publish("1.2.0", 3, on_progress=lambda done, total: progress.append(done * total)),
        lambda: repo.set_rollout(tier="1b", share=1),
        lambda: repo.rollback(tier="1b", reason="slow"),
        lambda: repo.withdraw(tier="1b", version="1.1.0", reason="bad"),
    ):
        publisher.refuses(UsageError, str(publisher.keys), call)
    assert progress == []
    publisher.bring_back()
    publisher.publish("1.2.0", 3)
    assert version_at(publisher.device().manifest()) == "1.2.0"


def test_refresh_needs_the_online_key_alone(publisher: Publisher) -> None:
    publisher.publish("1.0.0", 1)
    publisher.take_away("root-*.pem", "targets.pem", "channel-*.pem")
    device = publisher.device()
    publisher.clock.advance(29 * DAY)
    publisher.opened().refresh()
    publisher.clock.advance(29 * DAY)
    assert version_at(device.manifest(now=publisher.clock.now)) == "1.0.0"
    publisher.clock.advance(2 * DAY)
    with pytest.raises(ExpiredError, match="expired"):
        device.manifest(now=publisher.clock.now)
    for role in ("root", "targets", "channel"):
        publisher.refuses(UsageError, "keys are needed", lambda role=role: publisher.opened().refresh(role=role))
    publisher.refuses(UsageError, "no such role", lambda: publisher.opened().refresh(role="snapshot"))


@pytest.mark.parametrize(
    ("role", "name", "valid"), [("root", "root", 730), ("targets", "targets", 365), ("channel", "beta", 365)]
)
def test_refresh_signs_other_roles_by_name(publisher: Publisher, role: str, name: str, valid: int) -> None:
    publisher.publish("1.0.0", 1, channel="beta")
    device = publisher.device()
    publisher.clock.advance(10 * DAY)
    publisher.opened().refresh(role=role, channel="beta")
    assert publisher.metadata(name)[1].signed.expires == publisher.clock.now + valid * DAY
    assert version_at(device.manifest("beta", now=publisher.clock.now)) == "1.0.0"
    newest_root = publisher.metadata("root")[0].read_bytes()
    assert (publisher.keys / "root.json").read_bytes() == newest_root
    assert [f for f in publisher.opened().check() if f.level == "error"] == []


@pytest.mark.parametrize("role", ["root", "targets", "online", "channel"])
@pytest.mark.parametrize("lost", [False, True], ids=["at hand", "lost"])
def test_devices_and_envelopes_follow_a_rotation(publisher: Publisher, role: str, lost: bool) -> None:
    publisher.publish("1.0.0", 1)
    publisher.publish("1.0.0", 1, channel="beta")
    old_root, old_keys = publisher.metadata("root")[0].read_bytes(), publisher.channel_keys()
    seen = FolderDevice(publisher.folder, publisher.tmp_path / "seen", old_root)
    assert version_at(seen.manifest()) == "1.0.0"
    old_files = {"root": "root-1.pem", "channel": "channel-stable.pem"}.get(role, f"{role}.pem")
    if lost:
        publisher.take_away(old_files)
    keyids = publisher.opened().rotate(role)
    assert len(set(keyids)) == (3 if role == "root" else 1)
    publisher.take_away(old_files)  # from now on they are good for nothing
    publisher.publish("1.1.0", 2)
    for device in (
        seen,
        FolderDevice(publisher.folder, publisher.tmp_path / "first", old_root),
        publisher.device("new"),
    ):
        assert version_at(device.manifest()) == "1.1.0"
        assert version_at(device.manifest("beta")) == "1.0.0"
    envelope = (publisher.folder / "manifest.dsse.json").read_bytes()
    data = (publisher.folder / "manifest.json").read_bytes()
    assert seen.manifest() == data
    assert dsse.verify(envelope, publisher.channel_keys()) == data
    if role == "channel":
        assert [key.keyid for key in publisher.channel_keys()] == keyids
        with pytest.raises(TrustError, match="not signed by"):
            dsse.verify(envelope, old_keys)
    assert [f for f in publisher.opened().check() if f.level == "error"] == []


def test_a_rotated_channel_has_its_envelopes_signed_anew_at_once(publisher: Publisher) -> None:
    publisher.publish("1.0.0", 1)
    publisher.opened().rotate("channel")
    for path in (publisher.folder / "manifest.dsse.json", publisher.folder / "stable" / "manifest.dsse.json"):
        payload = dsse.verify(path.read_bytes(), publisher.channel_keys())
        assert payload == path.with_name("manifest.json").read_bytes()


@pytest.mark.parametrize(
    ("role", "missing"),
    [
        ("root", "root-[12].pem"),
        ("online", "root-[12].pem"),
        ("targets", "root-[12].pem"),
        ("targets", "online.pem"),
        ("channel", "targets.pem"),
        ("channel", "online.pem"),
    ],
)
def test_a_rotation_that_cannot_be_signed_makes_no_keys(publisher: Publisher, role: str, missing: str) -> None:
    publisher.publish("1.0.0", 1)
    publisher.take_away(missing)
    publisher.refuses(UsageError, str(publisher.keys), lambda: publisher.opened().rotate(role))


def test_a_rotation_of_what_is_not_there_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    publisher.refuses(UsageError, "no channel gamma", lambda: publisher.opened().rotate("channel", channel="gamma"))
    publisher.refuses(UsageError, "no such role", lambda: publisher.opened().rotate("timestamp"))
    open_one = Repository.init(tmp_path / "dev", base_url=BASE_URL, dev=True)
    with pytest.raises(UsageError, match="one development key"):
        open_one.rotate("online")


def test_a_channel_is_added_by_init(publisher: Publisher) -> None:
    publisher.publish("1.0.0", 1)
    device = publisher.device()
    publisher.refuses(UsageError, "no channel gamma", lambda: publisher.publish("1.0.0", 1, channel="gamma"))
    publisher.take_away("targets.pem")
    publisher.refuses(UsageError, str(publisher.keys), lambda: publisher.init("stable", "gamma"))
    publisher.bring_back()
    publisher.clock.advance(DAY)
    publisher.init("stable", "gamma")
    publisher.publish("2.0.0", 2, channel="gamma")
    assert (version_at(device.manifest()), version_at(device.manifest("gamma"))) == ("1.0.0", "2.0.0")
    before = publisher.contents()
    publisher.init("stable", "beta", "gamma", "gamma")
    assert publisher.contents() == before
    assert publisher.opened().check() == []


def test_the_validity_that_was_asked_for_is_signed_and_kept(publisher: Publisher) -> None:
    publisher.init("stable", expires={"online": 7, "channel": 90})
    publisher.publish("1.0.0", 1)
    publisher.init("stable", expires={"root": 1000, "targets": 100})
    for role in ("online", "channel", "targets", "root"):
        publisher.opened().refresh(role=role)
    days = {"timestamp": 7, "snapshot": 7, "stable": 90, "targets": 100, "root": 1000}
    for role, count in days.items():
        assert publisher.metadata(role)[1].signed.expires == START + count * DAY
    for wrong in ({"online": 0}, {"online": 3651}, {"stable": 7}):
        publisher.refuses(UsageError, "not an expiry", lambda wrong=wrong: publisher.init("stable", expires=wrong))
    (publisher.keys / "expiry.json").write_bytes(b"{")
    publisher.refuses(IntegrityError, "damaged", lambda: publisher.opened().refresh())


def test_the_validity_is_that_of_the_first_metadata_too(tmp_path: Path) -> None:
    folder = tmp_path / "repo"
    Repository.init(folder, base_url=BASE_URL, dev=True, expires={"root": 10, "channel": 20}, clock=Clock())
    for name, count in (("1.root", 10), ("1.stable", 20), ("1.targets", 365), ("timestamp", 30)):
        data = (folder / "metadata" / f"{name}.json").read_bytes()
        assert Metadata.from_bytes(data).signed.expires == START + count * DAY


def test_keys_inside_the_tree_are_refused(publisher: Publisher, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    (tmp_path / "link").symlink_to(folder)
    for keys in (folder, folder / "keys", folder / "a" / ".." / "keys", tmp_path / "link" / "keys"):
        with pytest.raises(UsageError, match="would be published"):
            Repository.init(folder, base_url=BASE_URL, keys=keys, dev=True)
        assert not folder.exists()
    publisher.publish("1.0.0", 1)
    inside = publisher.keys.rename(publisher.folder / "keys")
    repo = Repository(publisher.folder, keys=inside, passphrase=secret_of)
    before = list(files_below(publisher.folder))
    for call in (repo.refresh, lambda: repo.rotate("online"), lambda: repo.rollback(tier="1b", reason="bad")):
        with pytest.raises(UsageError, match="would be published"):
            call()
    assert list(files_below(publisher.folder)) == before
    assert [f.level for f in repo.check() if "would be published" in f.message] == ["error"]


def test_no_private_key_is_below_the_tree(publisher: Publisher) -> None:
    publisher.publish("1.0.0", 1)
    for role in ("root", "targets", "online", "channel"):
        publisher.opened().rotate(role)
    assert [
        name for name, data in files_below(publisher.folder) if b"PRIVATE KEY" in data or name.endswith(".pem")
    ] == []
    pems = sorted(path.name for path in publisher.keys.glob("*.pem"))
    assert len(pems) == 3 + 1 + 1 + 2 + 3 + 1 + 1 + 1
    for name in pems:
        assert b"BEGIN ENCRYPTED PRIVATE KEY" in (publisher.keys / name).read_bytes()
        assert (publisher.keys / name).stat().st_mode & 0o077 == 0
    assert publisher.keys.stat().st_mode & 0o077 == 0


def test_a_changed_plain_manifest_is_not_built_on(publisher: Publisher) -> None:
    publisher.publish("1.0.0", 1)
    publisher.publish("1.1.0", 2)
    signed = (publisher.folder / "manifest.json").read_bytes()
    evil = signed.replace(b"1.1.0", b"6.6.6").replace(BASE_URL.encode(), b"https://evil.example.com")
    thief = Keyring.create_dev(publisher.tmp_path / "thief", write=write_file)
    for folder in (publisher.folder, publisher.folder / "stable"):
        (folder / "manifest.json").write_bytes(evil)
        (folder / "manifest.dsse.json").write_bytes(
            dsse.sign(evil, thief.signers(key.keyid for key in thief.keys("any")))
        )
    assert {(f.level, f.path) for f in publisher.opened().check()} == {
        ("error", f"{prefix}{name}") for prefix in ("", "stable/") for name in ("manifest.json", "manifest.dsse.json")
    }
    assert publisher.opened().rollback(tier="1b", reason="slow").version == "1.0.0"
    after = (publisher.folder / "manifest.json").read_bytes()
    assert b"6.6.6" not in after
    assert b"evil" not in after
    assert publisher.device().manifest() == after
    assert [entry.current_version for entry in publisher.opened().log()] == ["1.0.0", "1.1.0", "1.0.0"]
    assert publisher.opened().check(deep=True) == []


def test_a_command_that_changes_nothing_restores_plain_copies_and_envelopes(publisher: Publisher) -> None:
    publisher.publish("1.0.0", 1)
    before = publisher.contents()
    thief = Keyring.create_dev(publisher.tmp_path / "thief", write=write_file)
    signed = (publisher.folder / "manifest.json").read_bytes()
    forged = dsse.sign(signed, thief.signers(key.keyid for key in thief.keys("any")))
    for content in (b"", b"x" * 6_000_000, signed.replace(b"1.0.0", b"6.6.6"), forged):
        for name in ("manifest.json", "manifest.dsse.json"):
            (publisher.folder / name).write_bytes(content)
        publisher.publish("1.0.0", 1)
        assert publisher.contents() == before


@pytest.mark.parametrize(
    "name", ["timestamp.json", "2.snapshot.json", "2.stable.json", "1.targets.json", "1.root.json"]
)
@pytest.mark.parametrize("damage", ["changed", "missing", "other repository"])
def test_nothing_is_signed_on_top_of_metadata_that_was_changed(publisher: Publisher, name: str, damage: str) -> None:
    publisher.publish("1.0.0", 1)
    path = publisher.folder / "metadata" / name
    if damage == "missing":
        path.unlink()
    elif damage == "changed":
        document = json.loads(path.read_bytes())
        document["signed"]["expires"] = "2099-01-01T00:00:00Z"
        path.write_text(json.dumps(document))
    else:
        other = Repository.init(publisher.tmp_path / "other", base_url=BASE_URL, dev=True, clock=publisher.clock)
        other.publish(publisher.tmp_path / "model.gguf", tier="1b", version="1.0.0", probe=False)
        shutil.copyfile(other.folder / "metadata" / name, path)
    repo = publisher.opened()
    for call in (repo.refresh, lambda: publisher.publish("1.1.0", 2), lambda: repo.rotate("online")):
        error = publisher.refuses(OverairError, ".", call)
        assert isinstance(error, TrustError | IntegrityError) or (name, damage) == ("1.root.json", "missing")
    assert [f.level for f in repo.check()].count("error") >= 1


def test_the_metadata_of_another_publisher_is_not_signed_on_top_of(publisher: Publisher) -> None:
    publisher.publish("1.0.0", 1)
    other = Repository.init(publisher.tmp_path / "other", base_url=BASE_URL, dev=True, clock=publisher.clock)
    other.publish(publisher.tmp_path / "model.gguf", tier="1b", version="6.6.6", probe=False)
    for part in ("metadata", "targets", "stable"):
        shutil.rmtree(publisher.folder / part)
        shutil.copytree(other.folder / part, publisher.folder / part)
    publisher.refuses(TrustError, "root keys", lambda: publisher.publish("1.1.0", 2))
    publisher.refuses(TrustError, "root keys", lambda: publisher.init("stable", "gamma"))
    assert any("root keys" in f.message for f in publisher.opened().check() if f.level == "error")


def test_init_does_not_begin_anew_where_metadata_was_lost(publisher: Publisher) -> None:
    publisher.publish("1.0.0", 1)
    evil = (publisher.folder / "manifest.json").read_bytes().replace(b"1.0.0", b"6.6.6")
    shutil.rmtree(publisher.folder / "metadata")
    (publisher.folder / "stable" / "manifest.json").write_bytes(evil)
    publisher.refuses(UsageError, "lost its metadata", lambda: publisher.init("stable", "beta"))
    publisher.refuses(UsageError, "no signed metadata", lambda: publisher.publish("1.1.0", 2))


def test_passphrases_come_from_whoever_has_them(tmp_path: Path) -> None:
    asked: list[str] = []

    def provider(name: str) -> str:
        asked.append(name)
        return secret_of(name)

    folder, keys = tmp_path / "site", tmp_path / "elsewhere"
    Repository.init(folder, base_url=BASE_URL, keys=keys, passphrase=provider)
    roots = ["root-1.pem", "root-2.pem", "root-3.pem"]
    assert sorted(asked) == ["channel-stable.pem", "online.pem", *roots, "targets.pem"]
    asked.clear()
    model = model_file(tmp_path / "m.gguf")
    repo = Repository(folder, keys=keys, passphrase=provider)
    repo.publish(model, tier="1b", version="1.0.0", probe=False)
    assert sorted(asked) == ["channel-stable.pem", "online.pem"]
    before = [*files_below(folder), *files_below(keys)]
    for wrong in (lambda _name: "guess", lambda _name: "", None):
        locked = Repository(folder, keys=keys, passphrase=wrong)
        for call in (locked.refresh, lambda locked=locked: locked.rollback(tier="1b", reason="bad")):
            with pytest.raises(UsageError, match="passphrase"):
                call()
    assert [*files_below(folder), *files_below(keys)] == before
    assert [f for f in Repository(folder, keys=keys).check() if f.level == "error"] == []


@pytest.mark.parametrize("passphrase", [None, lambda _name: ""], ids=["none", "empty"])
def test_keys_are_not_made_without_a_passphrase(tmp_path: Path, passphrase: Any) -> None:
    with pytest.raises(UsageError, match="passphrase"):
        Repository.init(tmp_path / "site", base_url=BASE_URL, passphrase=passphrase)
    assert [*files_below(tmp_path)] == []
    Repository.init(tmp_path / "site", base_url=BASE_URL, passphrase=secret_of)
    assert not Repository(tmp_path / "site").check()


def test_one_open_key_and_real_keys_are_not_taken_for_each_other(publisher: Publisher, tmp_path: Path) -> None:
    publisher.refuses(UsageError, "real keys", lambda: publisher.init("stable", dev=True))
    Repository.init(tmp_path / "dev", base_url=BASE_URL, dev=True)
    with pytest.raises(UsageError, match="one open key"):
        Repository.init(tmp_path / "dev", base_url=BASE_URL, passphrase=secret_of)
    with pytest.raises(UsageError, match="no channel"):
        Repository.init(tmp_path / "none", base_url=BASE_URL, channels=(), dev=True)


def test_check_warns_when_a_quarter_is_left_and_says_what_to_run(publisher: Publisher) -> None:
    publisher.publish("1.0.0", 1)

    def found() -> dict[str, tuple[str, str]]:
        return {f.path: (f.level, f.message.rpartition(": ")[2]) for f in publisher.opened().check()}

    publisher.clock.advance(22 * DAY)
    assert found() == {}
    publisher.clock.advance(DAY / 2)
    refresh = "overair repo refresh"
    online = ("metadata/timestamp.json", "metadata/2.snapshot.json")
    assert found() == dict.fromkeys(online, ("warning", refresh))
    publisher.clock.advance(8 * DAY)
    assert found() == dict.fromkeys(online, ("error", refresh))
    publisher.opened().refresh()
    assert found() == {}
    publisher.clock.now = START + 274 * DAY
    publisher.opened().refresh()
    assert {name: what for name, what in found().items() if name.startswith("metadata")} == {
        "metadata/2.stable.json": ("warning", f"{refresh} --role channel --channel stable"),
        "metadata/1.beta.json": ("warning", f"{refresh} --role channel --channel beta"),
        "metadata/1.targets.json": ("warning", f"{refresh} --role targets"),
    }
    publisher.clock.now = START + 548 * DAY
    publisher.opened().refresh()
    assert found()["metadata/1.root.json"] == ("warning", f"{refresh} --role root")
    for role, channel in (("root", None), ("targets", None), ("channel", "stable"), ("channel", "beta")):
        publisher.opened().refresh(role=role, channel=channel)
    assert list(found()) == ["stable/manifest.json"], "the manifest's own date is for readers of the envelope"
    publisher.publish("1.1.0", 2)
    assert found() == {}


def test_check_says_what_it_could_not_check_without_keys(publisher: Publisher) -> None:
    publisher.publish("1.0.0", 1)
    publisher.keys.rename(publisher.tmp_path / "gone")
    found = publisher.opened().check(deep=True)
    assert [(f.level, f.path) for f in found] == [("info", "metadata/timestamp.json")]
    assert "no keys in" in found[0].message
    copy = publisher.folder / "stable" / "manifest.json"
    copy.write_bytes(copy.read_bytes().replace(b"1.0.0", b"1.0.1"))
    assert ("error", "stable/manifest.json") in [(f.level, f.path) for f in publisher.opened().check()]


@pytest.mark.parametrize(
    "name", ["timestamp.json", "3.snapshot.json", "3.stable.json", "1.targets.json", "1.beta.json"]
)
@pytest.mark.parametrize("with_keys", [True, False])
def test_check_finds_metadata_that_is_missing_or_other(publisher: Publisher, name: str, with_keys: bool) -> None:
    publisher.publish("1.0.0", 1)
    publisher.publish("1.1.0", 2)
    assert publisher.opened().check() == []
    if not with_keys:
        publisher.keys.rename(publisher.tmp_path / "gone")
    path = publisher.folder / "metadata" / name
    if name != "timestamp.json":  # what names the others; who signed it is for the keys to tell
        path.write_bytes(path.read_bytes().replace(b'"2027-', b'"2028-').replace(b'"2026-', b'"2027-'))
        assert ("error", f"metadata/{name}") in [(f.level, f.path) for f in publisher.opened().check()]
    path.write_bytes(b"{}")
    assert ("error", f"metadata/{name}") in [(f.level, f.path) for f in publisher.opened().check()]
    path.unlink()
    assert ("error", f"metadata/{name}", f"{name} is missing") in [
        (f.level, f.path, f.message) for f in publisher.opened().check()
    ]


def test_check_finds_envelopes_that_are_missing_other_or_of_another_key(publisher: Publisher) -> None:
    publisher.publish("1.0.0", 1)
    old = (publisher.folder / "manifest.dsse.json").read_bytes()
    publisher.publish("1.1.0", 2)
    thief = Keyring.create_dev(publisher.tmp_path / "thief", write=write_file)
    signed = (publisher.folder / "manifest.json").read_bytes()
    forged = dsse.sign(signed, thief.signers(key.keyid for key in thief.keys("any")))
    path = publisher.folder / "manifest.dsse.json"
    for content, message in (
        (old, "another manifest"),
        (forged, "not signed by"),
        (b"{}", "damaged"),
        (None, "missing"),
    ):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        found = publisher.opened().check()
        assert [(f.level, f.path) for f in found] == [("error", "manifest.dsse.json")]
        assert message in found[0].message
    publisher.publish("1.1.0", 2)
    assert publisher.opened().check() == []


def test_the_next_command_clears_away_what_a_dead_publisher_left(publisher: Publisher) -> None:
    publisher.publish("1.0.0", 1)
    publisher.opened().refresh()
    before = [name for name, _ in files_below(publisher.folder)]
    left = (
        "blobs/incoming-7.tmp",
        "metadata/9.stable.json.tmp",
        "manifest.dsse.json.tmp",
        "beta/manifest.json.tmp",
        f"targets/stable/{'0' * 64}.manifest.json.tmp",
        "stable/manifest.dsse.json.tmp",
        "metadata/timestamp.json.tmp",
    )
    for name in left:
        (publisher.folder / name).parent.mkdir(exist_ok=True)
        (publisher.folder / name).write_bytes(b"half")
    strange = publisher.folder / "metadata" / "notes.tmp"
    strange.write_bytes(b"somebody else's")
    publisher.publish("1.0.0", 1)
    assert [name for name, _ in files_below(publisher.folder) if name != "metadata/notes.tmp"] == before
    assert strange.exists()


def test_old_metadata_stays_and_strange_files_are_named(publisher: Publisher) -> None:
    for number in range(3):
        publisher.publish(f"1.{number}.0", number)
    publisher.opened().rotate("root")
    names = [path.name for path in publisher.folder.glob("metadata/*")]
    assert {"1.root.json", "2.root.json", "1.snapshot.json", "1.stable.json"} <= set(names)
    assert publisher.opened().check() == []
    for strange in ("1.gamma.json", "root.json", "1.root.txt"):
        (publisher.folder / "metadata" / strange).write_bytes(b"{}")
    assert sorted((f.level, f.path) for f in publisher.opened().check()) == [
        ("info", f"metadata/{name}") for name in ("1.gamma.json", "1.root.txt", "root.json")
    ]


@pytest.mark.parametrize("role", ["online", "targets"])
def test_an_exchange_of_a_lost_key_that_was_cut_off_after_the_root_can_be_finished(
    publisher: Publisher, role: str
) -> None:
    before = {path.name for path in (publisher.folder / "metadata").iterdir()}
    timestamp = (publisher.folder / "metadata" / "timestamp.json").read_bytes()
    (publisher.keys / f"{role}.pem").unlink()
    publisher.opened().rotate(role)
    for path in (publisher.folder / "metadata").iterdir():
        if path.name not in before and not path.name.endswith("root.json"):
            path.unlink()
    (publisher.folder / "metadata" / "timestamp.json").write_bytes(timestamp)
    with pytest.raises(TrustError):
        publisher.opened().refresh()
    publisher.opened().rotate(role)
    publisher.opened().refresh()
    assert publisher.opened().check() == []
