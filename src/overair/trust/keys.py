"""A publisher's keys: Ed25519 in encrypted PEM files, or behind a securesystemslib signer URI (a KMS, an HSM).

    keys.json            every key that there ever was: its role, its public part, and where the private part is
    root-1.pem …         private parts: PKCS #8, encrypted with a passphrase

`keys.json` holds nothing secret. Which of a role's keys count is decided by the published metadata, not here, so a
key that was made for a rotation that did not go through does no harm. A private part may be taken away, to a USB
stick in a safe: signing goes on with the keys that are left, as far as the thresholds allow.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from overair.errors import IntegrityError, StorageError, UsageError

ROOT: Final = "root"
TARGETS: Final = "targets"
ONLINE: Final = "online"
ROOT_KEYS: Final = 3
KEYS_FILE: Final = "keys.json"
MAX_KEYS_FILE_BYTES: Final = 1_000_000
MAX_PEM_BYTES: Final = 64 * 1024
_PEM: Final = "pem:"
_ENVIRONMENT: Final = "envvar:"
_MISSING: Final = "bring the file back from where it is kept, or name another folder of keys"

Passphrase = Callable[[str], str]
"""Asked for the passphrase of a key, by its file's name."""


class Write(Protocol):
    """Replaces a file's content durably; what is there before and after has the permissions `mode`."""

    def __call__(self, path: Path, data: bytes, /, *, mode: int) -> None:
        """Write the file.

        Raises:
            StorageError: The disk refused; the old content is still there.
        """
        ...


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A key as `keys.json` has it: its role, its public part as TUF spells it, and the URI of its private part."""

    role: str
    keyid: str
    public: dict[str, Any]
    uri: str

    @property
    def key(self) -> Key:
        """The public part.

        Raises:
            IntegrityError: It is not one.
        """
        try:
            return Key.from_dict(self.keyid, dict(self.public))
        except (KeyError, ValueError, TypeError) as error:
            raise IntegrityError(f"{KEYS_FILE}: the key {self.keyid[:16]} is damaged: {error}") from error


class _Contents(msgspec.Struct, frozen=True, kw_only=True):
    keys: tuple[KeyEntry, ...]
    dev: bool = False
    format: int = 1


class Keyring:
    """The keys in a folder. `create`, `create_dev` and `load` make one.

    Args:
        folder: Where `keys.json` and the PEM files are.
        entries: The keys.
        dev: Whether one unencrypted key does everything.
        write: Writes files.
        passphrase: Asked when an encrypted key is made or first used.
        environment: Where `envvar:` URIs are looked up.
    """

    def __init__(
        self,
        folder: Path,
        entries: tuple[KeyEntry, ...],
        *,
        dev: bool,
        write: Write,
        passphrase: Passphrase | None,
        environment: Mapping[str, str],
    ) -> None:
        self.folder = folder
        self.entries = entries
        self.dev = dev
        self._write = write
        self._passphrase = passphrase
        self._environment = environment
        self._signers: dict[str, Signer] = {}

    @classmethod
    def create(cls, folder: Path, channels: Iterable[str], *, write: Write, passphrase: Passphrase) -> "Keyring":
        """Make the keys of a new publisher: three for root, one for targets, one per channel, one online.

        Raises:
            UsageError: The folder has keys already, or the passphrase is empty.
            StorageError: The disk refused.
        """
        keyring = cls._empty(folder, dev=False, write=write, passphrase=passphrase)
        for role in [ROOT] * ROOT_KEYS + [TARGETS, ONLINE, *(channel_role(c) for c in channels)]:
            keyring.add(role)
        return keyring

    @classmethod
    def create_dev(cls, folder: Path, *, write: Write) -> "Keyring":
        """Make one unencrypted key for everything, to try things out with.

        Raises:
            UsageError: The folder has keys already.
            StorageError: The disk refused.
        """
        keyring = cls._empty(folder, dev=True, write=write, passphrase=None)
        keyring.add("dev")
        return keyring

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        write: Write,
        passphrase: Passphrase | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> "Keyring":
        """Read `keys.json`. Private parts are read when they first sign.

        Raises:
            UsageError: There are no keys in the folder.
            IntegrityError: `keys.json` is damaged.
            StorageError: The disk refused.
        """
        data = _read(folder / KEYS_FILE, MAX_KEYS_FILE_BYTES)
        if data is None:
            raise UsageError(
                f"there are no keys in {folder}", hint="name the folder that `overair repo init` wrote keys to"
            )
        try:
            contents = msgspec.json.decode(data, type=_Contents)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise IntegrityError(
                f"{folder / KEYS_FILE} is damaged: {error}", hint="bring it back from a backup"
            ) from error
        return cls(
            folder,
            contents.keys,
            dev=contents.dev,
            write=write,
            passphrase=passphrase,
            environment=environment,
        )

    def keys(self, role: str) -> list[Key]:
        """The public parts of all keys that were ever made for a role, the oldest first."""
        return [entry.key for entry in self.entries if self.dev or entry.role == role]

    def signers(self, keyids: Iterable[str]) -> list[Signer]:
        """Those that can sign among the keys with these ids: the private part is at hand.

        Raises:
            UsageError: A passphrase is wrong, or a signer URI does not work.
            IntegrityError: A private part is damaged.
            StorageError: The disk refused.
        """
        wanted = set(keyids)
        present = [e for e in self.entries if e.keyid in wanted and self._is_at_hand(e)]
        return [self._signer(entry) for entry in present]

    def add(self, role: str) -> Key:
        """Make one more key for a role, in a PEM file, and remember it. It counts once metadata says so.

        Raises:
            UsageError: The passphrase is empty.
            StorageError: The disk refused.
        """
        name = self._free_name(role)
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, self._encryption(name))
        self._write(self.folder / name, pem, mode=0o600)
        signer = CryptoSigner(private)
        self._signers[signer.public_key.keyid] = signer
        self.add_uri(role, f"{_PEM}{name}", signer.public_key)
        return signer.public_key

    def add_uri(self, role: str, uri: str, public: Key) -> None:
        """Remember a key whose private part is behind a signer URI: `awskms:…`, `gcpkms:…`, `azurekms:…`, `hsm:…`, or
        `envvar:NAME`, an environment variable that holds the PEM.

        Raises:
            StorageError: The disk refused.
        """
        self.entries += (KeyEntry(role=role, keyid=public.keyid, public=public.to_dict(), uri=uri),)
        self._save()

    @classmethod
    def _empty(cls, folder: Path, *, dev: bool, write: Write, passphrase: Passphrase | None) -> "Keyring":
        if (folder / KEYS_FILE).exists():
            raise UsageError(f"{folder} has keys already", hint="name another folder, or use these")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot create the folder {folder}: {error.strerror or error}") from error
        return cls(folder, (), dev=dev, write=write, passphrase=passphrase, environment=os.environ)

    def _free_name(self, role: str) -> str:
        """`root-1.pem`, `root-2.pem`; the first of any other role has no number."""
        number = 1
        while True:
            name = f"{role}.pem" if number == 1 and role != ROOT else f"{role}-{number}.pem"
            if not (self.folder / name).exists() and all(entry.uri != f"{_PEM}{name}" for entry in self.entries):
                return name
            number += 1

    def _encryption(self, name: str) -> KeySerializationEncryption:
        if self.dev:
            return NoEncryption()
        secret = self._passphrase(name) if self._passphrase else ""
        if not secret:
            raise UsageError(
                f"{name} needs a passphrase", hint="set OVERAIR_PASSPHRASE, or use --dev to try things out"
            )
        return BestAvailableEncryption(secret.encode())

    def _save(self) -> None:
        contents = msgspec.json.encode(_Contents(keys=self.entries, dev=self.dev))
        self._write(self.folder / KEYS_FILE, msgspec.json.format(contents, indent=2) + b"\n", mode=0o644)

    def _is_at_hand(self, entry: KeyEntry) -> bool:
        return not entry.uri.startswith(_PEM) or (self.folder / entry.uri.removeprefix(_PEM)).is_file()

    def _signer(self, entry: KeyEntry) -> Signer:
        if entry.keyid not in self._signers:
            self._signers[entry.keyid] = self._open(entry)
        return self._signers[entry.keyid]

    def _open(self, entry: KeyEntry) -> Signer:
        scheme, _, rest = entry.uri.partition(":")
        if f"{scheme}:" == _PEM:
            return self._from_pem(rest, _read(self.folder / rest, MAX_PEM_BYTES), entry)
        if f"{scheme}:" == _ENVIRONMENT:
            value = self._environment.get(rest)
            return self._from_pem(rest, None if value is None else value.encode(), entry)
        try:
            return Signer.from_priv_key_uri(entry.uri, entry.key, self._passphrase)
        except Exception as error:  # each signer of securesystemslib has errors of its own
            raise UsageError(
                f"cannot sign with {entry.uri}: {error}", hint="are its credentials set, and its library installed?"
            ) from error

    def _from_pem(self, name: str, pem: bytes | None, entry: KeyEntry) -> Signer:
        if pem is None:
            raise UsageError(f"the private key {name} is not there", hint=_MISSING)
        secret = self._passphrase(name).encode() if b"ENCRYPTED" in pem and self._passphrase else None
        public = entry.key
        try:
            private = load_pem_private_key(pem, secret)
            if not isinstance(private, Ed25519PrivateKey) or not isinstance(public, SSlibKey):
                raise IntegrityError(f"{name} is not an Ed25519 key")
            return CryptoSigner(private, public)
        except TypeError as error:
            raise UsageError(f"{name} needs a passphrase", hint="set OVERAIR_PASSPHRASE") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UsageError(f"cannot open {name}: the passphrase is wrong or the file is damaged") from error


def channel_role(channel: str) -> str:
    """What a keyring calls the keys of a channel."""
    return f"channel-{channel}"


def refuse_inside(keys: Path, tree: Path) -> None:
    """Refuse a folder of keys that would be published.

    Raises:
        UsageError: `keys` is the published tree, or below it, links resolved.
    """
    inner, outer = keys.resolve(), tree.resolve()
    if inner == outer or outer in inner.parents:
        raise UsageError(
            f"the keys in {keys} would be published with {tree}", hint="name a folder outside the published tree"
        )


def _read(path: Path, limit: int) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > limit:
        raise IntegrityError(f"{path} has more than {limit} bytes")
    return data
