"""The envelope: exact bytes in, exact bytes out, and nothing that the publisher did not sign as a manifest."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from overair.errors import IntegrityError, OverairError, TrustError
from overair.trust import dsse

SIGNER, STRANGER = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()
KEYS = [SIGNER.public_key]
MANIFEST = b'{"schema": 1,\n "current_version": "2.1.0"}\n'


def test_signed_bytes_come_back_exactly() -> None:
    assert dsse.verify(dsse.sign(MANIFEST, [SIGNER]), KEYS) == MANIFEST
    assert dsse.verify(dsse.sign(MANIFEST, [STRANGER, SIGNER]), KEYS) == MANIFEST


def test_reader_with_base64_and_ed25519_verifies_it() -> None:
    envelope = json.loads(dsse.sign(MANIFEST, [SIGNER]))
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"]
    assert (payload, kind) == (MANIFEST, "application/vnd.overair.manifest+json")
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(SIGNER.public_key.keyval["public"]))
    public.verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)


def test_other_signers_other_types_and_changed_payloads_are_refused() -> None:
    envelope = json.loads(dsse.sign(MANIFEST, [SIGNER]))
    as_another = Envelope(MANIFEST, "application/vnd.in-toto+json", {})
    as_another.sign(SIGNER)
    swapped = envelope | {"payload": base64.b64encode(b"{}").decode()}
    renamed = json.loads(dsse.sign(MANIFEST, [STRANGER]))
    renamed["signatures"][0]["keyid"] = SIGNER.public_key.keyid
    retyped = as_another.to_dict() | {"payloadType": dsse.PAYLOAD_TYPE}
    for bad in (as_another.to_dict(), swapped, renamed, retyped):
        with pytest.raises(TrustError) as caught:
            dsse.verify(json.dumps(bad).encode(), KEYS)
        assert caught.value.hint
    with pytest.raises(TrustError):
        dsse.verify(dsse.sign(MANIFEST, [STRANGER]), KEYS)
    with pytest.raises(TrustError):
        dsse.verify(dsse.sign(MANIFEST, [SIGNER]), [])


def test_damaged_envelopes_are_no_envelopes() -> None:
    good: dict[str, Any] = json.loads(dsse.sign(MANIFEST, [SIGNER]))
    signature = good["signatures"][0]
    damaged: list[Any] = [
        good | {"payload": "%%%"},
        good | {"payload": 1},
        good | {"signatures": []},
        good | {"signatures": [signature, signature]},
        good | {"signatures": [signature | {"keyid": str(n)} for n in range(17)]},
        good | {"signatures": [{"sig": signature["sig"]}]},
        good | {"signatures": [signature | {"sig": "ü"}]},
        {},
        [],
    ]
    for bad in damaged:
        with pytest.raises(IntegrityError):
            dsse.verify(json.dumps(bad).encode(), KEYS)


def test_envelope_of_any_length_is_not_read() -> None:
    with pytest.raises(IntegrityError, match="more than"):
        dsse.verify(b" " * (dsse.MAX_ENVELOPE_BYTES + 1), KEYS)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_give_our_own_errors(data: bytes) -> None:
    with pytest.raises(OverairError):
        dsse.verify(data, KEYS)


@given(st.data())
def test_no_flipped_byte_is_taken_for_signed(data: st.DataObject) -> None:
    envelope = bytearray(dsse.sign(MANIFEST, [SIGNER]))
    envelope[data.draw(st.integers(0, len(envelope) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        taken = dsse.verify(bytes(envelope), KEYS)
    except OverairError:
        return
    # Base64 has spare bits and JSON has spare bytes; what is taken is still what was signed.
    assert taken == MANIFEST
