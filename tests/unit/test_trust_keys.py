"""A publisher's keys: encrypted, private, outside the published tree, and refused when they do not fit."""

import json
import os
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, SecretsHandler, Signature, Signer

from overair.errors import IntegrityError, OverairError, UsageError
from overair.trust.keys import ONLINE, ROOT, TARGETS, Keyring, channel_role, refuse_inside
from support.trust_server import write_private


def passphrase(name: str) -> str:
    return f"secret of {name}"


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.create(tmp_path / "keys", ["stable"], write=write_private, passphrase=passphrase)


def loaded(keyring: Keyring, **how: object) -> Keyring:
    return Keyring.load(keyring.folder, write=write_private, **{"passphrase": passphrase, **how})  # type: ignore[arg-type]


def signer(keyring: Keyring, role: str) -> Signer:
    return keyring.signers(key.keyid for key in keyring.keys(role))[0]


def test_every_role_has_its_own_encrypted_key(keyring: Keyring) -> None:
    names = sorted(path.name for path in keyring.folder.iterdir())
    assert names == [
        "channel-stable.pem",
        "keys.json",
        "online.pem",
        "root-1.pem",
        "root-2.pem",
        "root-3.pem",
        "targets.pem",
    ]
    for path in keyring.folder.glob("*.pem"):
        pem = path.read_bytes()
        assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
        with pytest.raises(TypeError):
            load_pem_private_key(pem, None)
        load_pem_private_key(pem, passphrase(path.name).encode())
    assert len({entry.keyid for entry in keyring.entries}) == 6


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are others there")
def test_private_files_are_for_their_owner_only(keyring: Keyring) -> None:
    assert keyring.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in keyring.folder.glob("*.pem")} == {0o600}


def test_keys_file_holds_nothing_private(keyring: Keyring) -> None:
    text = (keyring.folder / "keys.json").read_text()
    assert "PRIVATE" not in text
    assert {entry["uri"] for entry in json.loads(text)["keys"]} >= {"pem:root-1.pem", "pem:online.pem"}


def test_loaded_keys_sign_what_their_public_parts_verify(keyring: Keyring) -> None:
    again = loaded(keyring)
    for role in (ROOT, TARGETS, ONLINE, channel_role("stable")):
        for key in keyring.keys(role):
            (one,) = again.signers([key.keyid])
            key.verify_signature(one.sign(b"data"), b"data")


def test_passphrase_is_asked_once_for_a_key_and_for_no_other(keyring: Keyring) -> None:
    asked: list[str] = []

    def ask(name: str) -> str:
        asked.append(name)
        return passphrase(name)

    again = loaded(keyring, passphrase=ask)
    signer(again, ONLINE)
    signer(again, ONLINE)
    assert asked == ["online.pem"]


def test_wrong_missing_and_empty_passphrases_are_named(keyring: Keyring, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot open online\.pem: the passphrase is wrong"):
        signer(loaded(keyring, passphrase=lambda _: "guess"), ONLINE)
    with pytest.raises(UsageError, match=r"online\.pem needs a passphrase"):
        signer(loaded(keyring, passphrase=None), ONLINE)
    with pytest.raises(UsageError, match="needs a passphrase"):
        Keyring.create(tmp_path / "empty", [], write=write_private, passphrase=lambda _: "")


def test_key_that_was_taken_away_does_not_sign(keyring: Keyring) -> None:
    (keyring.folder / "root-2.pem").unlink()
    root = [key.keyid for key in keyring.keys(ROOT)]
    assert [one.public_key.keyid for one in loaded(keyring).signers(root)] == [root[0], root[2]]


def test_exchanged_pem_is_refused(keyring: Keyring) -> None:
    stranger = CryptoSigner.generate_ed25519()
    (keyring.folder / "online.pem").write_bytes(stranger.private_bytes)
    with pytest.raises(UsageError, match="cannot open"):
        signer(loaded(keyring), ONLINE)


def test_other_kinds_of_key_are_refused(keyring: Keyring) -> None:
    (keyring.folder / "online.pem").write_bytes(CryptoSigner.generate_ecdsa().private_bytes)
    with pytest.raises(IntegrityError, match="not an Ed25519 key"):
        signer(loaded(keyring), ONLINE)


def test_new_key_is_remembered_and_old_ones_are_kept(keyring: Keyring) -> None:
    new = keyring.add(ROOT)
    assert (keyring.folder / "root-4.pem").is_file()
    assert loaded(keyring).keys(ROOT)[-1] == new
    assert len(loaded(keyring).keys(ROOT)) == 4
    keyring.add(ONLINE)
    (keyring.folder / "online-2.pem").unlink()
    keyring.add(ONLINE)
    assert (keyring.folder / "online-3.pem").is_file()


def test_dev_key_is_one_and_not_encrypted(tmp_path: Path) -> None:
    keyring = Keyring.create_dev(tmp_path / "keys", write=write_private)
    assert sorted(path.name for path in keyring.folder.iterdir()) == ["dev.pem", "keys.json"]
    again = loaded(keyring, passphrase=None)
    assert again.dev
    assert again.keys(ROOT) == again.keys(ONLINE) == again.keys(channel_role("any"))
    signer(again, ONLINE)


def test_folder_with_keys_is_not_written_over(keyring: Keyring) -> None:
    before = {path: path.read_bytes() for path in keyring.folder.iterdir()}
    with pytest.raises(UsageError, match="has keys already"):
        Keyring.create_dev(keyring.folder, write=write_private)
    assert {path: path.read_bytes() for path in keyring.folder.iterdir()} == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"keys":[{}]}', b"\xff", b" " * 1_000_001])
def test_damaged_keys_file_is_an_error(keyring: Keyring, content: bytes) -> None:
    (keyring.folder / "keys.json").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"keys\.json"):
        loaded(keyring)


def test_no_keys_is_an_error_that_says_where(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no keys in"):
        Keyring.load(tmp_path, write=write_private)


def test_key_in_an_environment_variable_signs(keyring: Keyring) -> None:
    pem = (keyring.folder / "online.pem").read_text()
    key = keyring.keys(ONLINE)[0]
    ci = Keyring(
        keyring.folder / "ci",
        (),
        dev=False,
        write=write_private,
        passphrase=lambda _: passphrase("online.pem"),
        environment={"ONLINE_KEY": pem},
    )
    (keyring.folder / "ci").mkdir()
    ci.add_uri(ONLINE, "envvar:ONLINE_KEY", key)
    key.verify_signature(signer(ci, ONLINE).sign(b"data"), b"data")
    with pytest.raises(UsageError, match="ONLINE_KEY is not there"):
        signer(Keyring.load(ci.folder, write=write_private, environment={}), ONLINE)


class Vault(Signer):
    """A signer of another library, as a KMS is one."""

    inner = CryptoSigner.generate_ed25519()

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> "Vault":
        del public_key, secrets_handler
        if priv_key_uri != "testvault:here":
            raise OSError("no such key")
        return cls()

    @property
    def public_key(self) -> Key:
        return self.inner.public_key

    def sign(self, payload: bytes) -> Signature:
        return self.inner.sign(payload)


def test_key_behind_a_signer_uri_signs_and_its_failures_are_ours(
    keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SIGNER_FOR_URI_SCHEME, "testvault", Vault)
    keyring.add_uri(ONLINE, "testvault:here", Vault.inner.public_key)
    (one,) = loaded(keyring).signers([Vault.inner.public_key.keyid])
    Vault.inner.public_key.verify_signature(one.sign(b"data"), b"data")
    keyring.add_uri(TARGETS, "testvault:gone", CryptoSigner.generate_ed25519().public_key)
    with pytest.raises(UsageError, match="cannot sign with testvault:gone: no such key"):
        loaded(keyring).signers([keyring.keys(TARGETS)[-1].keyid])
    keyring.add_uri("other", "nosuchscheme:x", CryptoSigner.generate_ed25519().public_key)
    with pytest.raises(OverairError, match="nosuchscheme"):
        loaded(keyring).signers([keyring.keys("other")[-1].keyid])


def test_keys_inside_the_published_tree_are_refused(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    for inside in (tree, tree / "keys", tree / "deep" / ".." / "keys"):
        with pytest.raises(UsageError, match="would be published"):
            refuse_inside(inside, tree)
    refuse_inside(tmp_path / "keys", tree)
    refuse_inside(tmp_path / "tree-keys", tree)
    if hasattr(os, "symlink") and sys.platform != "win32":
        (tmp_path / "link").symlink_to(tree / "deep")
        with pytest.raises(UsageError):
            refuse_inside(tmp_path / "link" / "keys", tree)
