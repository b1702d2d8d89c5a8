"""Any bytes and any signed nonsense in metadata give our own errors, and nothing else."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.exceptions import FormatError
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from overair.errors import HTTPStatusError, OverairError
from overair.trust.client import TrustClient, embed_root
from support.trust_server import DAY, NOW

SIGNER = CryptoSigner.generate_ed25519()
NAMES = ["1.root.json", "2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json", "1.stable.json"]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def repository() -> dict[str, Any]:
    key, expires = SIGNER.public_key, NOW + DAY
    root = Root(expires=expires)
    for role in ("root", "timestamp", "snapshot", "targets"):
        root.add_key(key, role)
    targets = Targets(expires=expires, delegations=Delegations({}, {}))
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    targets.delegations.roles["stable"] = DelegatedRole("stable", [], 1, terminating=True, paths=["stable/*"])
    targets.add_key(key, "stable")
    stable = Targets(expires=expires)
    stable.targets["stable/manifest.json"] = TargetFile.from_data("stable/manifest.json", b"{}", ["sha256"])
    meta = {"targets.json": MetaFile(1), "stable.json": MetaFile(1)}
    second = Root(version=2, expires=expires, keys=root.keys, roles=root.roles)
    roles: list[Any] = [root, second, Timestamp(expires=expires), Snapshot(expires=expires, meta=meta), targets, stable]
    return {name: Metadata(role).to_dict()["signed"] for name, role in zip(NAMES, roles, strict=True)}


def signed(document: Any) -> bytes:
    try:
        canonical = encode_canonical(document)
    except FormatError:  # a number with a fraction has no canonical form, so no signature either
        canonical = ""
    signature = SIGNER.sign((canonical or "").encode()).to_dict()
    return json.dumps({"signatures": [signature], "signed": document}).encode()


def check(published: dict[str, bytes]) -> bytes:
    kept: dict[str, bytes] = {}

    class Memory:
        def read(self, name: str) -> bytes | None:
            return kept.get(name)

        def write(self, name: str, data: bytes) -> None:
            kept[name] = data

    def fetch(url: str, max_bytes: int, /) -> bytes:
        name = url.rpartition("/")[2]
        if name.endswith(".manifest.json"):
            return b"{}"
        if name not in published:
            raise HTTPStatusError("not there", status=404)
        return published[name][: max_bytes + 1]

    embed_root(Memory(), published["1.root.json"])
    client = TrustClient(Memory(), metadata_url="m", fetch=fetch, now=NOW)
    client.target_info("stable/manifest.json")
    return client.fetch_target("stable/manifest.json", "t")


GOOD = repository()


def test_the_repository_of_these_tests_is_accepted() -> None:
    assert check({name: signed(document) for name, document in GOOD.items()}) == b"{}"


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in inner for place in places(child, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(value)
    copy = value.copy()
    copy[path[0]] = changed(copy[path[0]], path[1:], change)
    return copy


@given(st.sampled_from(NAMES), st.data())
def test_signed_nonsense_gives_our_own_errors(name: str, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(places(GOOD[name])))
    value = data.draw(VALUES)
    document = changed(GOOD[name], place, lambda _: value)
    published = {other: signed(document if other == name else good) for other, good in GOOD.items()}
    try:
        taken = check(published)
    except OverairError:
        return
    assert taken == b"{}"


@given(st.sampled_from(NAMES), st.binary(max_size=300) | st.from_regex(r'\{"sign(ed|atures)":.{0,200}').map(str.encode))
def test_any_bytes_give_our_own_errors(name: str, data: bytes) -> None:
    published = {other: signed(good) for other, good in GOOD.items()}
    with pytest.raises(OverairError) as caught:
        check(published | {name: data})
    assert caught.value.exit_code in {20, 21}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("data", [b"[" * 200_000, b'{"a":' * 100_000, b"9" * 200_000, b'{"signed":' + b"9" * 100_000])
def test_deep_and_long_documents_end(name: str, data: bytes) -> None:
    published = {other: signed(good) for other, good in GOOD.items()}
    with pytest.raises(OverairError):
        check(published | {name: data})
