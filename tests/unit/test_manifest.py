"""What a manifest may be, and what is said of one that is not."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from overair.errors import ManifestError
from overair.model.manifest import MAX_MANIFEST_BYTES, encode_manifest, parse_document, parse_manifest
from overair.model.schema import manifest_schema

ROOT = Path(__file__).resolve().parents[2]
PLAIN = (ROOT / "tests/data/plain-manifest.json").read_bytes()
SCHEMA = ROOT / "docs/reference/manifest.schema.json"
ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64

Edit = Callable[[dict[str, Any]], object]


def entry(version: str, digest: str, **more: Any) -> dict[str, Any]:
    url = f"blobs/sha256/{digest[:2]}/{digest}"
    artifact = {"role": "model", "name": "m.gguf", "url": url, "size_bytes": 100, "sha256": digest}
    return {"version": version, "url": url, "size_bytes": 100, "sha256": digest, "artifacts": [artifact], **more}


def full_document() -> dict[str, Any]:
    """Every field of DESIGN section 4."""
    rollout = {"basis_points": 1000, "salt": "s", "starts_at": "2026-11-23T10:00:00Z", "ramp_seconds": 60}
    tier = entry("2.1.0", ONE, min_app_version="3.0.0", release_notes="better")
    tier["artifacts"][0] |= {
        "chunks": {"url": "c", "size_bytes": 9, "sha256": TWO, "chunk_bytes": 65536},
        "deltas": [{"from_sha256": TWO, "url": "d", "size_bytes": 9, "sha256": THREE, "format": "x"}],
    }
    adapter = {"role": "adapter", "name": "a.gguf", "url": "a", "size_bytes": 5, "sha256": TWO, "base_sha256": ONE}
    tier["artifacts"].append(adapter)
    tier |= {
        "requires": {"ram_bytes": 10, "engines": {"llama.cpp": ">=6000"}},
        "probe": {"prompts": ["hi"], "min_tokens_per_second": 2.0},
        "rollback": entry("2.0.0", TWO),
        "candidate": entry("2.2.0", THREE, rollout=rollout),
    }
    return {
        "schema": 1,
        "channel": "stable",
        "sequence": 42,
        "published_at": "2026-11-23T10:00:00Z",
        "expires": "2026-12-23T10:00:00Z",
        "current_version": "2.1.0",
        "models": {"1b": tier},
        "withdrawn": [{"tier": "1b", "version": "1.9.0", "sha256": THREE, "reason": "bad"}],
        "rollback_version": "2.0.0",
        "predecessor": {"sha256": THREE, "size_bytes": 7},
    }


def refused(data: bytes) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(data)
    error = caught.value
    assert error.exit_code == 21
    assert error.hint
    assert "\n" not in error.message
    assert len(error.message) < 500
    return error


def edited(edit: Edit) -> bytes:
    document = full_document()
    edit(document)
    return json.dumps(document).encode()


def test_the_plain_form_is_accepted() -> None:
    manifest = parse_manifest(PLAIN)
    assert manifest.schema is None
    assert manifest.sequence == 0
    assert sorted(manifest.models) == ["1b", "3b"]
    release = manifest.release("1b")
    assert (release.version, release.min_app_version) == ("2.10.0", "3.0.0")
    assert release.model.url == "https://cdn.example.com/models/v2.10.0/model-1b-q4.gguf"
    assert release.model.size_bytes == 612_000_000
    assert release.id == release.model.sha256 == "3f79bb7b435b05321651daefd374cdc681dc06faa65e374e38337b88ca046dea"
    assert manifest.rollback("1b") is None, "a rollback URL without a digest cannot be verified"
    assert manifest.candidate("1b") is None


def test_the_full_form_hands_out_releases() -> None:
    manifest = parse_manifest(json.dumps(full_document()).encode())
    assert [a.role for a in manifest.release("1b").artifacts] == ["model", "adapter"]
    assert manifest.release("1b").id not in {ONE, TWO}, "a bundle is named by all its artifacts"
    rollback, candidate = manifest.rollback("1b"), manifest.candidate("1b")
    assert rollback is not None
    assert (rollback.version, rollback.id) == ("2.0.0", TWO)
    assert candidate is not None
    assert (candidate[0].version, candidate[1].basis_points) == ("2.2.0", 1000)
    withdrawal = manifest.withdrawal("1b", THREE)
    assert withdrawal is not None
    assert withdrawal.reason == "bad"
    assert manifest.withdrawal("3b", THREE) is None
    assert manifest.withdrawal("1b", ONE) is None


def test_a_tier_may_stand_at_its_own_version() -> None:
    document = full_document()
    document["models"]["3b"] = entry("1.5.0", THREE)
    manifest = parse_manifest(json.dumps(document).encode())
    assert manifest.release("3b").version == "1.5.0"
    assert manifest.current_version == "2.1.0"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<!DOCTYPE html><html>please log in</html>", "a page of HTML"),
        (b"\xef\xbb\xbf\r\n <html>", "a page of HTML"),
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b"\xff\xfe{\x00}\x00", "not JSON"),
        (PLAIN.replace(b"Answers", b"Answ\xe9rs"), "not JSON"),
        (PLAIN[:200], "not JSON"),
        (PLAIN + b"x", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "at $"),
        (b'"text"', "at $"),
        (b"null", "at $"),
        (b"{}", "at $.models"),
    ],
)
def test_what_is_no_manifest_at_all_is_refused(data: bytes, said: str) -> None:
    assert said in refused(data).message


def test_six_megabytes_are_refused_and_five_are_not() -> None:
    document = json.loads(PLAIN)
    document["padding"] = ""
    room = MAX_MANIFEST_BYTES - len(json.dumps(document).encode())
    largest = json.dumps(document | {"padding": "x" * room}).encode()
    assert len(largest) == MAX_MANIFEST_BYTES
    assert parse_manifest(largest).current_version == "2.10.0"
    assert "more than 5000000 bytes" in refused(largest + b" ").message
    assert "more than 5000000 bytes" in refused(b"x" * 6_000_000).message


TIER = "$.models.1b"


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        (lambda d: d.pop("current_version"), "`current_version` at $"),
        (lambda d: d.pop("models"), "$.models"),
        (lambda d: d.update(models=[]), "$.models"),
        (lambda d: d.update(models={}), "$.models"),
        (lambda d: d.update(models={"1b": 5}), TIER),
        (lambda d: d["models"].update({"../x": entry("1.0.0", ONE)}), "key of $.models"),
        (lambda d: d.update(current_version=2), "$.current_version"),
        (lambda d: d.update(current_version="2.10"), "$.current_version"),
        (lambda d: d.update(schema="1"), "$.schema"),
        (lambda d: d.update(schema=0), "$.schema"),
        (lambda d: d.update(sequence=-1), "$.sequence"),
        (lambda d: d.update(sequence=1.5), "$.sequence"),
        (lambda d: d.update(channel="../beta"), "$.channel"),
        (lambda d: d.update(expires="tomorrow"), "$.expires"),
        (lambda d: d.update(expires="2026-02-30T10:00:00Z"), "$.expires"),
        (lambda d: d.update(published_at="2026-13-01T10:00:00Z"), "$.published_at"),
        (lambda d: d.update(current_version="2.1.0\n"), "$.current_version"),
        (lambda d: d.update(current_version="2.1\u0660.0"), "$.current_version"),
        (lambda d: d.update(channel="beta\n"), "$.channel"),
        (lambda d: d["withdrawn"][0].update(tier="1b\n"), "$.withdrawn[0].tier"),
        (
            lambda d: d["models"]["1b"]["candidate"]["rollout"].update(starts_at="2026-99-99T10:00:00Z"),
            f"{TIER}.candidate.rollout.starts_at",
        ),
        (lambda d: d.update(withdrawn={}), "$.withdrawn"),
        (lambda d: d["withdrawn"][0].update(sha256="x"), "$.withdrawn[0].sha256"),
        (lambda d: d["withdrawn"][0].pop("version"), "`version` at $.withdrawn[0]"),
        (lambda d: d["predecessor"].update(sha256=ONE.upper()[:-1] + "G"), "$.predecessor.sha256"),
        (lambda d: d["models"]["1b"].pop("url"), f"`url` at {TIER}"),
        (lambda d: d["models"]["1b"].pop("size_bytes"), f"`size_bytes` at {TIER}"),
        (lambda d: d["models"]["1b"].pop("sha256"), f"`sha256` at {TIER}"),
        (lambda d: d["models"]["1b"].update(url=None), f"{TIER}.url"),
        (lambda d: d["models"]["1b"].update(url=""), f"{TIER}.url"),
        (lambda d: d["models"]["1b"].update(url="x" * 8193), f"{TIER}.url"),
        (lambda d: d["models"]["1b"].update(size_bytes="612"), f"{TIER}.size_bytes"),
        (lambda d: d["models"]["1b"].update(size_bytes=True), f"{TIER}.size_bytes"),
        (lambda d: d["models"]["1b"].update(size_bytes=1.5), f"{TIER}.size_bytes"),
        (lambda d: d["models"]["1b"].update(size_bytes=0), f"{TIER}.size_bytes"),
        (lambda d: d["models"]["1b"].update(size_bytes=-1), f"{TIER}.size_bytes"),
        (lambda d: d["models"]["1b"].update(size_bytes=1 << 45), f"{TIER}.size_bytes"),
        (lambda d: d["models"]["1b"].update(size_bytes=10**30), f"{TIER}.size_bytes"),
        (lambda d: d["models"]["1b"].update(sha256="abc"), f"{TIER}.sha256"),
        (lambda d: d["models"]["1b"].update(sha256="A" * 64), f"{TIER}.sha256"),
        (lambda d: d["models"]["1b"].update(sha256="a" * 64 + "\n"), f"{TIER}.sha256"),
        (lambda d: d["models"]["1b"].update(sha256="../" * 21 + "a"), f"{TIER}.sha256"),
        (lambda d: d["models"]["1b"].update(release_notes=["x"]), f"{TIER}.release_notes"),
        (lambda d: d["models"]["1b"].update(min_app_version="3"), f"{TIER}.min_app_version"),
        (lambda d: d["models"]["1b"]["rollback"].pop("sha256"), f"`sha256` at {TIER}.rollback"),
        (lambda d: d["models"]["1b"]["candidate"].pop("rollout"), f"`rollout` at {TIER}.candidate"),
        (
            lambda d: d["models"]["1b"]["candidate"]["rollout"].update(basis_points="10%"),
            f"{TIER}.candidate.rollout.basis_points",
        ),
        (
            lambda d: d["models"]["1b"]["candidate"]["rollout"].update(basis_points=10_001),
            f"{TIER}.candidate.rollout.basis_points",
        ),
        (
            lambda d: d["models"]["1b"]["candidate"]["rollout"].update(basis_points=0.1),
            f"{TIER}.candidate.rollout.basis_points",
        ),
        (lambda d: d["models"]["1b"]["candidate"]["rollout"].update(salt=""), f"{TIER}.candidate.rollout.salt"),
        (lambda d: d["models"]["1b"]["artifacts"][1].update(role="virus"), f"{TIER}.artifacts[1].role"),
        (lambda d: d["models"]["1b"]["artifacts"][1].update(name="M.GGUF"), f"{TIER}.artifacts"),
        (lambda d: d["models"]["1b"].update(artifacts=d["models"]["1b"]["artifacts"][1:]), f"{TIER}.artifacts"),
        (lambda d: d["models"]["1b"]["artifacts"][0].update(sha256=THREE), f"{TIER}.artifacts"),
        (lambda d: d["models"]["1b"].update(artifacts=d["models"]["1b"]["artifacts"] * 200), f"{TIER}.artifacts"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(edit: Edit, path: str) -> None:
    assert refused(edited(edit)).message.endswith(f"at {path}" if not path.startswith(("`", "key")) else path)


@pytest.mark.parametrize(
    "name",
    [
        "../m.gguf",
        "/m.gguf",
        "a/b.gguf",
        "a\\b.gguf",
        "..",
        ".",
        ".hidden",
        "",
        "C:m.gguf",
        "nul",
        "COM1.gguf",
        "a.",
        "a ",
        "m\x00.gguf",
        "m.gguf\n",
        "x" * 129,
        "ü.gguf",
    ],
)
def test_a_file_name_that_leaves_its_folder_is_refused(name: str) -> None:
    error = refused(edited(lambda d: d["models"]["1b"]["artifacts"][1].update(name=name)))
    assert error.message.endswith(f"at {TIER}.artifacts[1].name")


BAD_URLS = [
    "file:///etc/passwd",
    "ftp://cdn.example.com/m.gguf",
    "javascript:alert(1)",
    "data:text/plain,x",
    "C:\\m.gguf",
    "//cdn.example.com/m.gguf",
    "/m.gguf",
    "../m.gguf",
    "blobs/../../m.gguf",
    "blobs/..",
    "./m.gguf",
    "blobs/%2e%2e/m.gguf",
    "blobs/%2E./m.gguf",
    "..%2fm.gguf",
    "blobs/..%2F..%5c%2e%2e/m.gguf",
    "https://cdn.example.com/a%2f..%2fm.gguf",
    "blobs\\..\\m.gguf",
    "https://cdn.example.com/../m.gguf",
    "https://cdn.example.com/a/%2e%2e/m.gguf",
    "https://user:secret@cdn.example.com/m.gguf",
    "https://user@cdn.example.com/m.gguf",
    "https://",
    "https:///m.gguf",
    "http:m.gguf",
    "https://cdn.example.com/m gguf",
    "https://cdn.example.com/m\n.gguf",
    "https://cdn.example.com/\x00",
]


@pytest.mark.parametrize("url", BAD_URLS)
@pytest.mark.parametrize(
    ("place", "path"),
    [
        (lambda d: d["models"]["1b"], f"{TIER}.url"),
        (lambda d: d["models"]["1b"]["rollback"], f"{TIER}.rollback.url"),
        (lambda d: d["models"]["1b"]["candidate"], f"{TIER}.candidate.url"),
        (lambda d: d["models"]["1b"]["artifacts"][1], f"{TIER}.artifacts[1].url"),
        (lambda d: d["models"]["1b"]["artifacts"][0]["chunks"], f"{TIER}.artifacts[0].chunks.url"),
        (lambda d: d["models"]["1b"]["artifacts"][0]["deltas"][0], f"{TIER}.artifacts[0].deltas[0].url"),
    ],
)
def test_an_address_that_climbs_or_has_another_scheme_is_refused(
    place: Callable[[dict[str, Any]], dict[str, Any]], path: str, url: str
) -> None:
    assert f"at {path}: " in refused(edited(lambda d: place(d).update(url=url))).message


@pytest.mark.parametrize(
    "url",
    [
        "https://cdn.example.com/m.gguf",
        "http://127.0.0.1:8080/a/m.gguf?token=x/../y",
        "HTTPS://CDN.example.com/m.gguf",
        "blobs/sha256/ab/abc",
        "m..gguf",
        "a/...b/m.gguf",
        "https://cdn.example.com/mo%20del.gguf",
    ],
)
def test_ordinary_addresses_are_accepted(url: str) -> None:
    assert parse_manifest(edited(lambda d: d["models"]["1b"].update(url=url))).models["1b"].url == url


def test_unknown_fields_are_ignored() -> None:
    document = full_document()
    document["future"] = {"x": [1]}
    document["models"]["1b"]["future"] = None
    document["models"]["1b"]["artifacts"][0]["future"] = 5
    assert parse_manifest(json.dumps(document).encode()) == parse_manifest(json.dumps(full_document()).encode())


def test_unknown_fields_survive_a_new_publication() -> None:
    document = full_document() | {"future": {"x": [1]}}
    document["models"]["1b"]["vendor"] = "y"
    old = json.dumps(document).encode()
    written = json.loads(encode_manifest(parse_manifest(old), over=parse_document(old)))
    assert written["future"] == {"x": [1]}
    assert written["models"]["1b"]["vendor"] == "y"


def test_a_tier_that_is_gone_takes_its_names_along() -> None:
    document = json.loads(PLAIN)
    del document["models"]["3b"]
    written = json.loads(encode_manifest(parse_manifest(json.dumps(document).encode()), over=json.loads(PLAIN)))
    assert sorted(written["models"]) == ["1b"]
    assert "rollback_url_3b" not in written


def test_what_is_written_reads_back_the_same() -> None:
    manifest = parse_manifest(json.dumps(full_document()).encode())
    assert parse_manifest(encode_manifest(manifest)) == manifest


def test_the_classic_names_are_always_written() -> None:
    document = full_document()
    for optional in ("rollback", "candidate", "min_app_version", "release_notes"):
        document["models"]["1b"].pop(optional)
    document.pop("rollback_version")
    written = json.loads(encode_manifest(parse_manifest(json.dumps(document).encode())))
    assert written["current_version"] == "2.1.0"
    assert {"url", "size_bytes", "sha256", "min_app_version", "release_notes"} <= written["models"]["1b"].keys()
    assert written["rollback_version"] == "2.1.0"
    assert written["rollback_url_1b"] == document["models"]["1b"]["url"]


def test_the_rollback_address_is_that_of_the_rollback_release() -> None:
    written = json.loads(encode_manifest(parse_manifest(json.dumps(full_document()).encode())))
    assert written["rollback_url_1b"] == f"blobs/sha256/22/{TWO}"


# --- the schema -----------------------------------------------------------------------------------------------------


def test_the_exported_schema_is_in_step() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == manifest_schema()


def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_accepts_what_we_write_and_the_plain_form() -> None:
    full = encode_manifest(parse_manifest(json.dumps(full_document()).encode()), over={"future": 1})
    for data in (full, PLAIN):
        assert [error.message for error in validator().iter_errors(json.loads(data))] == []


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d.pop("current_version"),
        lambda d: d["models"]["1b"].update(sha256="x"),
        lambda d: d["models"]["1b"].update(size_bytes=-1),
        lambda d: d["models"]["1b"]["candidate"].pop("rollout"),
        lambda d: d["models"]["1b"]["artifacts"][0].update(name="../x"),
        lambda d: d.update(rollback_url_1b=5),
    ],
)
def test_the_schema_refuses_what_is_wrong(edit: Edit) -> None:
    document = copy.deepcopy(full_document())
    edit(document)
    assert not validator().is_valid(document)
