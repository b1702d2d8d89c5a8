"""A manifest and its signature in one file: a DSSE envelope (Dead Simple Signing Envelope 1.0).

For readers that have base64 and Ed25519 but no TUF. It proves who signed, not that nothing newer exists: a reader
that takes it must keep the highest `sequence` that it saw and look at `expires`.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as SigningError
from securesystemslib.signer import Key, Signer

from overair.errors import IntegrityError, TrustError
from overair.model.manifest import MAX_MANIFEST_BYTES

PAYLOAD_TYPE: Final = "application/vnd.overair.manifest+json"
MAX_ENVELOPE_BYTES: Final = MAX_MANIFEST_BYTES * 4 // 3 + 64 * 1024
MAX_SIGNATURES: Final = 16
_HINT: Final = "check for an update again; if that does not help, ask the publisher"


def sign(manifest: bytes, signers: Iterable[Signer]) -> bytes:
    """Wrap the exact bytes of a manifest in an envelope, signed by each of `signers`."""
    envelope = Envelope(manifest, PAYLOAD_TYPE, {})
    for signer in signers:
        envelope.sign(signer)
    return msgspec.json.encode(envelope.to_dict())


def verify(envelope: bytes, keys: Iterable[Key]) -> bytes:
    """The manifest's bytes, if one of `keys` signed them as a manifest.

    Raises:
        IntegrityError: It is not an envelope, or is too large.
        TrustError: None of `keys` signed it, or it was signed as something else.
    """
    opened = _open(envelope)
    if opened.payload_type != PAYLOAD_TYPE:
        raise TrustError(f"the envelope holds {opened.payload_type[:80]!r}, expected {PAYLOAD_TYPE}", hint=_HINT)
    try:
        opened.verify(list(keys), threshold=1)
    except (SigningError, ValueError) as error:
        raise TrustError("the manifest's envelope is not signed by the publisher's key", hint=_HINT) from error
    return opened.payload


def payload(envelope: bytes) -> bytes:
    """What is in an envelope, whoever signed it.

    Raises:
        IntegrityError: It is not an envelope, or is too large.
    """
    content: bytes = _open(envelope).payload
    return content


def _open(data: bytes) -> Envelope:
    if len(data) > MAX_ENVELOPE_BYTES:
        raise IntegrityError(f"the manifest's envelope has more than {MAX_ENVELOPE_BYTES} bytes", hint=_HINT)
    try:
        document = msgspec.json.decode(data, type=_Envelope)
        return Envelope.from_dict(msgspec.to_builtins(document))
    except (msgspec.DecodeError, RecursionError, SigningError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"the manifest's envelope is damaged: {str(error)[:200]}", hint=_HINT) from error


class _Signature(msgspec.Struct, frozen=True):
    keyid: str
    sig: str


class _Envelope(msgspec.Struct, frozen=True):
    payload: str
    payloadType: str  # noqa: N815 - the envelope's own spelling
    signatures: tuple[_Signature, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.signatures) <= MAX_SIGNATURES:
            raise ValueError(f"it has {len(self.signatures)} signatures, expected 1 to {MAX_SIGNATURES}")
