"""The code in the documents does what they say, on a repository that was published for real."""

import base64
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from overair.publish.repository import Repository
from support.published import BASE_URL, model_file

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "verify-in-your-language.md"
TYPE = "application/vnd.overair.manifest+json"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a publisher works, with keys of a channel each."""
    folder = tmp_path_factory.mktemp("publisher")
    repo = Repository.init(
        folder / "site", base_url=BASE_URL, channels=["stable", "beta"], passphrase=lambda _: "secret"
    )
    for channel in ("stable", "beta"):
        repo.publish(model_file(folder / "m.gguf"), tier="1b", version="1.0.0", channel=channel, probe=False)
    return folder


@pytest.fixture(scope="module")
def verified_manifest() -> Callable[[bytes, list[str]], dict[str, Any]]:
    """The function of the page's one Python block."""
    (block,) = blocks("python")
    namespace: dict[str, Any] = {}
    exec(compile(block, PAGE.name, "exec"), namespace)  # noqa: S102 - the page is ours
    function: Callable[[bytes, list[str]], dict[str, Any]] = namespace["verified_manifest"]
    return function


@pytest.fixture(scope="module")
def keys(folder: Path) -> list[str]:
    """What the page's commands print, each run where the publisher works."""
    (block,) = blocks("sh")
    return [
        subprocess.run(
            [sys.executable, *shlex.split(line)[1:]], cwd=folder, check=True, capture_output=True, text=True, timeout=30
        ).stdout.strip()
        for line in block.splitlines()
    ]


def test_the_commands_print_the_key_in_two_spellings(keys: list[str]) -> None:
    in_base64, in_hexadecimal = keys
    assert base64.b64decode(in_base64) == bytes.fromhex(in_hexadecimal)
    assert len(bytes.fromhex(in_hexadecimal)) == 32


@pytest.mark.parametrize("path", ["manifest.dsse.json", "stable/manifest.dsse.json"])
def test_the_manifest_is_what_was_published(
    folder: Path, keys: list[str], path: str, verified_manifest: Callable[[bytes, list[str]], dict[str, Any]]
) -> None:
    site = folder / "site"
    stranger = base64.b64encode(bytes(31) + b"\1").decode()
    manifest = verified_manifest((site / path).read_bytes(), [stranger, keys[0]])
    assert manifest == json.loads((site / "stable" / "manifest.json").read_bytes())
    assert manifest["sequence"] == 1


def tampered(folder: Path) -> dict[str, bytes]:
    """What somebody who can write to the server may put there."""
    published = (folder / "site" / "manifest.dsse.json").read_bytes()
    envelope = json.loads(published)
    payload = base64.b64decode(envelope["payload"])
    evil = payload.replace(b'"1.0.0"', b'"9.0.0"')
    assert evil != payload
    by_a_stranger = Envelope(evil, TYPE, {})
    by_a_stranger.sign(CryptoSigner.generate_ed25519())
    return {
        "another payload": json.dumps(envelope | {"payload": base64.b64encode(evil).decode()}).encode(),
        "another signer": json.dumps(by_a_stranger.to_dict()).encode(),
        "another channel": (folder / "site" / "beta" / "manifest.dsse.json").read_bytes(),
        "no signature": json.dumps(envelope | {"signatures": []}).encode(),
        "a signature cut short": json.dumps(envelope | {"signatures": [{"keyid": "", "sig": "AAAA"}]}).encode(),
        "an envelope cut short": published[:-10],
    }


def test_what_was_tampered_with_is_refused(
    folder: Path, keys: list[str], verified_manifest: Callable[[bytes, list[str]], dict[str, Any]]
) -> None:
    for envelope in tampered(folder).values():
        with pytest.raises(ValueError, match=r"not signed by the publisher|Expecting|Unterminated|delimiter"):
            verified_manifest(envelope, keys[:1])


def test_a_signature_under_another_type_of_document_is_refused(
    folder: Path, verified_manifest: Callable[[bytes, list[str]], dict[str, Any]]
) -> None:
    signer = CryptoSigner.generate_ed25519()
    key = base64.b64encode(bytes.fromhex(signer.public_key.keyval["public"])).decode()
    payload = (folder / "site" / "manifest.json").read_bytes()
    for kind, is_good in ((TYPE, True), ("application/vnd.in-toto+json", False)):
        envelope = Envelope(payload, kind, {})
        envelope.sign(signer)
        data = json.dumps(envelope.to_dict()).encode()
        if is_good:
            assert verified_manifest(data, [key]) == json.loads(payload)
        else:
            with pytest.raises(ValueError, match="not signed by the publisher"):
                verified_manifest(data, [key])
