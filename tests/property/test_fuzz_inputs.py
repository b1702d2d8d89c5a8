"""Whatever a server or a disk hands over: our own errors or a true answer, soon, and in little memory.

Memory is what Python allocates within one call, by tracemalloc: the process also holds what hypothesis remembers of its
examples, which is far more. That calls keep nothing is a test of its own.
Manifests, envelopes and metadata (what the server sends, and what lies on the device) are damaged in their bytes and in
their meaning; metadata also in its meaning and then signed with the right key, as a thief would.
The profile in `tests/conftest.py` says how many examples; `make sweep` runs 10,000 of each and prints the figures.
"""

import contextlib
import copy
import gc
import json
import os
import shutil
import time
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner

from overair.errors import HTTPStatusError, IntegrityError, OverairError
from overair.model.manifest import Manifest, parse_manifest
from overair.trust import dsse
from overair.trust.client import TrustClient
from overair.trust.keys import Keyring
from overair.trust.repository import MetadataSet
from support.trust_server import DiskFiles, write_private

NOW: Final = datetime(2026, 11, 23, 12, tzinfo=UTC)
LIMIT_BYTES: Final = 64_000_000
BASE: Final = "https://models.example.com"
MANIFEST_PATH: Final = "stable/manifest.json"
Document = dict[str, Any]

# --- one full manifest, with every field ------------------------------------------------------------------------

ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64
PROBE: Final = {"prompts": ["hi"], "min_tokens_per_second": 2.0}


def entry(version: str, digest: str) -> Document:
    file = {"url": f"{BASE}/blobs/sha256/{digest[:2]}/{digest}", "size_bytes": 612_000_000, "sha256": digest}
    chunks = {"url": "c", "size_bytes": 9, "sha256": TWO, "chunk_bytes": 65536}
    delta = {"from_sha256": TWO, "url": "d", "size_bytes": 9, "sha256": THREE, "format": "x"}
    model = {"role": "model", "name": "model.gguf", **file, "chunks": chunks, "deltas": [delta]}
    adapter = {"role": "adapter", "name": "a.gguf", "url": "a", "size_bytes": 5, "sha256": TWO, "base_sha256": digest}
    policy = {"requires": {"ram_bytes": 2_000_000_000, "engines": {"llama.cpp": ">=6000"}}, "probe": PROBE}
    texts = {"min_app_version": "3.0.0", "release_notes": "two more languages"}
    return {"version": version, **file, **texts, **policy, "artifacts": [model, adapter]}


ROLLOUT: Final = {"basis_points": 1000, "salt": "r-1", "starts_at": "2026-11-23T10:00:00Z", "ramp_seconds": 60}
HEAD: Final = {"schema": 1, "channel": "stable", "sequence": 42}
TIMES: Final = {"published_at": "2026-11-23T10:00:00Z", "expires": "2026-12-23T10:00:00Z"}
DOCUMENT: Final[Document] = {
    **HEAD,
    **TIMES,
    "current_version": "2.1.0",
    "models": {
        "1b": entry("2.1.0", ONE)
        | {"rollback": entry("2.0.0", TWO), "candidate": entry("2.2.0", THREE) | {"rollout": ROLLOUT}},
        "3b": {"url": "m", "size_bytes": 7, "sha256": ONE},
    },
    "withdrawn": [{"tier": "1b", "version": "1.9.0", "sha256": THREE, "reason": "bad"}],
    "rollback_version": "2.0.0",
    "rollback_url_1b": "https://models.example.com/old",
    "predecessor": {"sha256": THREE, "size_bytes": 7},
    "poll_seconds": 3600,
}
MANIFEST: Final = json.dumps(DOCUMENT).encode()

# --- damage ----------------------------------------------------------------------------------------------------

ODD: Final[st.SearchStrategy[Any]] = st.sampled_from(
    [
        *("", "..", "../../etc/passwd", "\x00", "a" * 5000, "9" * 400, "2.1.0", "stable", ONE, "file:///x", "\ud800"),
        *("2026-02-30T25:61:61Z", "0000-00-00T00:00:00Z", "9999-12-31T23:59:59Z", "root", "ed25519"),
        *(0, -1, 2**31, 2**63, 2**64, 10**300, 0.5, -0.0, 1e308, float("inf"), float("nan"), True, None),
        *([], {}, [[]], {"": ""}, [None] * 300, {str(i): i for i in range(300)}),
    ]
)
VALUES: Final = ODD | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


@st.composite
def changed(draw: st.DrawFn, original: Document) -> Document:
    """The document with up to four values replaced, removed, renamed or repeated."""
    document = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, 4))):
        if not (found := list(places(document))):
            break
        container, key = found[draw(st.integers(0, len(found) - 1))]
        what = draw(st.sampled_from(["replace", "replace", "remove", "rename", "repeat"]))
        if what == "remove":
            del container[key]
        elif what == "rename" and isinstance(container, dict):
            container[draw(st.text(max_size=12))] = container.pop(key)
        elif what == "repeat" and isinstance(container, list):
            container.extend([copy.deepcopy(container[key])] * draw(st.integers(1, 40)))
        else:
            container[key] = copy.deepcopy(draw(VALUES))
    return document


class Input(bytes):
    """Bytes that a failing test shows in one line; the whole of them is in the database of examples."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes: {self[:100]!s}…>"


@st.composite
def damaged(draw: st.DrawFn, original: bytes) -> bytes:
    """The bytes cut short, with a piece exchanged, or something altogether else."""
    how = draw(st.sampled_from(["cut", "exchange", "exchange", "deep", "other"]))
    if how == "other":
        return draw(st.binary(max_size=200))
    at = draw(st.integers(0, len(original)))
    if how == "cut":
        return original[:at]
    if how == "deep":
        opening = draw(st.sampled_from([b"[", b'{"a":', b'{"models":', b'"', b"\\", b"1", b" ", b"<"]))
        return original[:at] + opening * draw(st.sampled_from([1, 100, 2_000, 200_000])) + original[at:]
    piece = draw(st.binary(max_size=8) | st.sampled_from([b"\xff", b"\x00", b"\\ud800", b"1e999", b"-", b"NaN"]))
    return original[:at] + piece + original[at + draw(st.integers(0, 8)) :]


def encoded(document: Any) -> bytes:
    return json.dumps(document).encode("utf-8", "surrogatepass")


@st.composite
def both_ways(draw: st.DrawFn, original: bytes) -> bytes:
    return Input(draw(damaged(original) | changed(json.loads(original)).map(encoded)))


# --- what is measured ------------------------------------------------------------------------------------------


@dataclass
class Figures:
    """What one test cost, the code under test only."""

    examples: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    slowest_s: float = 0.0
    peak_bytes: int = 0

    def run(self, act: Callable[[], Any]) -> Any:
        """What `act` returns, or the error of ours that it raised; any other error ends the test."""
        tracemalloc.start()
        began = time.perf_counter()
        try:
            answer = act()
        except OverairError as error:
            answer = error
            self.refused[type(error).__name__] += 1
        finally:
            took = time.perf_counter() - began
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        self.examples, self.seconds = self.examples + 1, self.seconds + took
        self.slowest_s, self.peak_bytes = max(self.slowest_s, took), max(self.peak_bytes, peak)
        assert peak < LIMIT_BYTES
        assert not isinstance(answer, OverairError) or (answer.message and "\n" not in answer.message)
        return answer


FIGURES: defaultdict[str, Figures] = defaultdict(Figures)


@pytest.fixture(scope="module", autouse=True)
def _figures() -> Iterator[None]:
    """Say at the end of a sweep what it cost."""
    began = time.perf_counter()
    yield
    if os.environ.get("OVERAIR_SWEEP") == "1":
        lines = [
            f"{name}: {f.examples} examples, refused {dict(f.refused)}, {f.seconds:.1f} s in our code, "
            f"the slowest {f.slowest_s * 1000:.1f} ms, at most {f.peak_bytes / 1e6:.2f} MB"
            for name, f in FIGURES.items()
        ]
        whole = f"{sum(f.examples for f in FIGURES.values())} examples in {time.perf_counter() - began:.0f} seconds"
        print("\n" + "\n".join([*lines, whole]))


# --- manifests and envelopes -----------------------------------------------------------------------------------


NESTED: Final = Input(b'{"a":' * 2_000)  # deeper than Python's own stack


@given(data=both_ways(MANIFEST))
@example(data=NESTED)
def test_a_damaged_manifest_is_a_manifest_or_an_error_of_ours(data: bytes) -> None:
    answer = FIGURES["manifest"].run(lambda: parse_manifest(data))
    if isinstance(answer, Manifest):
        for tier in answer.models:
            release = answer.release(tier)
            assert all("/" not in artifact.name and "\\" not in artifact.name for artifact in release.artifacts)
            assert len(release.id) == 64


def test_the_manifest_that_is_damaged_is_full_and_good() -> None:
    assert set(DOCUMENT) >= set(Manifest.__struct_fields__)
    assert parse_manifest(MANIFEST).candidate("1b")


SIGNER: Final = CryptoSigner.generate_ed25519()
ENVELOPE: Final = dsse.sign(MANIFEST, [SIGNER])


@given(data=both_ways(ENVELOPE))
@example(data=NESTED)
def test_a_damaged_envelope_gives_the_signed_bytes_or_an_error_of_ours(data: bytes) -> None:
    answer = FIGURES["envelope"].run(lambda: dsse.verify(data, [SIGNER.public_key]))
    assert answer == MANIFEST or isinstance(answer, OverairError)


# --- metadata --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Published:
    """A repository as its server has it, by path; one key signs all of it."""

    files: dict[str, bytes]
    signer: Any
    device: DiskFiles

    def fetch(self, files: dict[str, bytes]) -> Callable[[str, int], bytes]:
        def fetch(url: str, max_bytes: int, /) -> bytes:
            path = url.removeprefix(f"{BASE}/")
            if path not in files:
                raise HTTPStatusError(f"{path} is not there", status=404)
            if len(files[path]) > max_bytes:
                raise IntegrityError(f"{path} has more than {max_bytes} bytes")
            return files[path]

        return fetch

    def check(self, files: dict[str, bytes], *, device: dict[str, bytes]) -> bytes:
        """One check of a device that keeps `device`, against a server that has `files`."""
        shutil.rmtree(self.device.folder, ignore_errors=True)
        for name, data in device.items():
            self.device.write(name, data)
        client = TrustClient(self.device, metadata_url=f"{BASE}/metadata", fetch=self.fetch(files), now=NOW)
        return client.fetch_target(MANIFEST_PATH, f"{BASE}/targets")

    def forged(self, role: str, signed: Document) -> dict[str, bytes]:
        """The server's files, with `signed` in the place of a role's content and everything signed that leads to it."""
        files = dict(self.files)
        data, version = self.sign(signed), 3 if role == "snapshot" else 2
        if role in {"targets", "stable"}:
            meta = {"version": signed.get("version"), "length": len(data), "hashes": {"sha256": digest(data)}}
            files[f"metadata/{signed.get('version')}.{role}.json"] = data
            snapshot = json.loads(self.files["metadata/2.snapshot.json"])["signed"]
            snapshot["meta"][f"{role}.json"] = meta
            data, version, role = self.sign(snapshot | {"version": 3}), 3, "snapshot"
        if role == "snapshot":
            files["metadata/3.snapshot.json"] = data
            timestamp = json.loads(self.files["metadata/timestamp.json"])["signed"]
            meta = {"version": 3, "length": len(data), "hashes": {"sha256": digest(data)}}
            data = self.sign(timestamp | {"version": 3, "meta": {"snapshot.json": meta}})
        name = f"{version}.root.json" if role == "root" else "timestamp.json"
        return files | {f"metadata/{name}": data}

    def sign(self, signed: Document) -> bytes:
        try:
            canonical = encode_canonical(signed) or ""
            signature = self.signer.sign(canonical.encode()).to_dict()
        except Exception:  # noqa: BLE001 - floats and the like cannot be signed: then the signature is a wrong one
            signature = {"keyid": self.signer.public_key.keyid, "sig": "00" * 64}
        return encoded({"signed": signed, "signatures": [signature]})


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("fuzz")
    keyring = Keyring.create_dev(folder / "keys", write=write_private)
    files: dict[str, bytes] = {}
    metadata, upload = MetadataSet.initialise(files.get, keyring, ["stable", "beta"], now=NOW)
    upload = [*upload, *metadata.put_target("stable", MANIFEST_PATH, MANIFEST, now=NOW)]
    files = {f"metadata/{name}": data for name, data in upload}
    files[f"targets/stable/{digest(MANIFEST)}.manifest.json"] = MANIFEST
    (signer,) = keyring.signers(entry.keyid for entry in keyring.entries)
    return Published(files, signer, DiskFiles(folder / "device"))


@pytest.fixture(scope="module")
def device(published: Published) -> dict[str, bytes]:
    """What lies on a device that has seen all of it."""
    assert published.check(published.files, device={"root.json": published.files["metadata/1.root.json"]}) == MANIFEST
    return published.device.contents()


SERVED: Final = ["1.root", "timestamp", "2.snapshot", "1.targets", "2.stable"]
KEPT: Final = [
    "root.json",
    "root_history/1.root.json",
    "timestamp.json",
    "snapshot.json",
    "targets.json",
    "stable.json",
]


@given(data=st.data())
def test_damaged_metadata_of_a_server_gives_the_manifest_or_an_error_of_ours(
    published: Published, device: dict[str, bytes], data: st.DataObject
) -> None:
    name = f"metadata/{data.draw(st.sampled_from(SERVED))}.json"
    served = published.files | {name: data.draw(both_ways(published.files[name]))}
    if data.draw(st.booleans()):
        served["metadata/2.root.json"] = served[name]
    kept = device if data.draw(st.booleans()) else {"root.json": device["root.json"]}
    answer = FIGURES["metadata of a server"].run(lambda: published.check(served, device=kept))
    assert answer == MANIFEST or isinstance(answer, OverairError)


@given(data=st.data())
def test_damaged_metadata_on_a_device_gives_the_manifest_or_an_error_of_ours(
    published: Published, device: dict[str, bytes], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(KEPT))
    kept = device | {name: data.draw(both_ways(device[name]))}
    answer = FIGURES["metadata on a device"].run(lambda: published.check(published.files, device=kept))
    assert answer == MANIFEST or isinstance(answer, OverairError)


@given(data=st.data())
def test_odd_metadata_that_the_right_key_signed_gives_the_manifest_or_an_error_of_ours(
    published: Published, device: dict[str, bytes], data: st.DataObject
) -> None:
    role = data.draw(st.sampled_from(["root", "timestamp", "snapshot", "targets", "stable"]))
    name = {"root": "1.root", "snapshot": "2.snapshot", "targets": "1.targets", "stable": "2.stable"}.get(role, role)
    signed = json.loads(published.files[f"metadata/{name}.json"])["signed"]
    signed["version"] += 1
    served = published.forged(role, data.draw(changed(signed)))
    answer = FIGURES["signed metadata"].run(lambda: published.check(served, device=device))
    assert answer == MANIFEST or isinstance(answer, OverairError)


@pytest.mark.parametrize("name", [-1, None, [], "", "\ud800", "../../x", "a" * 5000])
def test_a_role_with_an_odd_name_that_the_right_key_signed_is_an_error_of_ours(
    published: Published, device: dict[str, bytes], name: Any
) -> None:
    signed = json.loads(published.files["metadata/1.targets.json"])["signed"] | {"version": 2}
    signed["delegations"]["roles"][0]["name"] = name
    with pytest.raises(OverairError):
        published.check(published.forged("targets", signed), device=device)


def test_metadata_that_the_right_key_signed_is_read_to_its_end(published: Published, device: dict[str, bytes]) -> None:
    for role, name in (
        ("root", "1.root"),
        ("timestamp", "timestamp"),
        ("targets", "1.targets"),
        ("stable", "2.stable"),
    ):
        signed = json.loads(published.files[f"metadata/{name}.json"])["signed"]
        signed["version"] += 1
        assert published.check(published.forged(role, signed), device=device) == MANIFEST, role
        assert published.device.contents()[f"{role}.json"] == published.sign(signed), role


def test_calls_keep_no_memory(published: Published, device: dict[str, bytes]) -> None:
    damage = [MANIFEST, MANIFEST[:-9], b"", MANIFEST.replace(b"612000000", b"-1"), ENVELOPE, ENVELOPE[:-9]]

    def each() -> None:
        for data in damage:
            for read in (parse_manifest, lambda data: dsse.verify(data, [SIGNER.public_key])):
                with contextlib.suppress(OverairError):
                    read(data)
        for name in SERVED:
            for data in (b"{", published.files[f"metadata/{name}.json"].replace(b"2", b"3")):
                with contextlib.suppress(OverairError):
                    published.check(published.files | {f"metadata/{name}.json": data}, device=device)

    def held() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    each()
    before = held()
    for _ in range(5):
        each()
    grown = held() - before
    tracemalloc.stop()
    assert grown < 50_000
