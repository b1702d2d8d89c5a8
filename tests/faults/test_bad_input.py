"""What a device does with bad input: the right exit code, one clear line, a hint, and the installed model goes on."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import overair
from overair.store.store import Store
from support.command import COMMAND, Ran, ask, run
from support.misbehaving import CutAt, Fault, FlipByte, Headers, MisbehavingServer, NoETag, Page, Raw, Status
from support.tiny_model import write_tiny_model

TIER = "1b"


class Device:
    """A device with 1.0.0 installed and confirmed, and a plain manifest that offers 1.1.0."""

    def __init__(self, folder: Path, server: MisbehavingServer) -> None:
        self.server = server
        self.site = folder / "site"
        self.store = folder / "device"
        self.first = write_tiny_model(self.site / "first.gguf", seed=1)
        self.second = write_tiny_model(self.site / "second.gguf", seed=2)
        self.offer("1.0.0", self.first)
        url = f"{server.url}/manifest.json"
        with overair.Updater(self.store, url=url, tier=TIER, app_version="3.0.0", insecure=True) as updater:
            updater.update()
            updater.swap()
            updater.confirm()
        self.offer("1.1.0", self.second)

    def offer(self, version: str, model: Path, **changes: Any) -> None:
        """Put a plain manifest, with the classic names only, in its place."""
        entry = {
            "url": f"{self.server.url}/{model.name}",
            "size_bytes": model.stat().st_size,
            "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
            "min_app_version": "1.0.0",
            "release_notes": "",
        }
        self.put({"current_version": version, "models": {TIER: entry | changes}})

    def put(self, document: Any) -> None:
        self.put_bytes(json.dumps(document).encode())

    def put_bytes(self, data: bytes) -> None:
        (self.site / "manifest.json").write_bytes(data)

    def update(self, *words: str) -> Ran:
        return run("device", "update", "--store", self.store, *words)

    def runs_the_first_release(self) -> bool:
        swapped = ask("device", "swap", "--store", self.store)
        return swapped["version"] == "1.0.0" and Path(swapped["path"]).read_bytes() == self.first.read_bytes()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    (tmp_path / "site").mkdir()
    with MisbehavingServer(tmp_path / "site") as server:
        yield Device(tmp_path, server)


def expect(ran: Ran, code: int, *words: str) -> None:
    """One line that says what is wrong, one that says what to do, and no traceback."""
    assert ran.code == code, ran.err
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    hints = [line for line in ran.err.splitlines() if line.startswith("hint: ")]
    assert len(errors) == 1, ran.err
    assert len(hints) == 1, ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in errors[0] + hints[0]


BAD_MANIFESTS: dict[str, tuple[bytes, str]] = {
    "html": (b"<!DOCTYPE html><html>log in</html>", "HTML"),
    "empty": (b"", "empty"),
    "too large": (b'{"current_version": "' + b"1" * 6_000_000 + b'"}', "5000000 bytes"),
    "not utf-8": (b'{"current_version": "\xff\xfe"}', "not JSON"),
    "not json": (b"current_version: 1.1.0", "not JSON"),
    "a list": (b"[]", "expected an object"),
    "deep": (b"[" * 200_000, "not JSON"),
}


@pytest.mark.parametrize("case", BAD_MANIFESTS)
def test_a_manifest_that_is_none_is_refused(device: Device, case: str) -> None:
    data, word = BAD_MANIFESTS[case]
    device.put_bytes(data)
    expect(device.update(), 21, word)
    assert device.runs_the_first_release()


BAD_VALUES: dict[str, tuple[str, object]] = {
    "digest": ("sha256", "../../etc/passwd"),
    "upper-case digest": ("sha256", "A" * 64),
    "negative size": ("size_bytes", -1),
    "huge size": ("size_bytes", 1 << 60),
    "size as text": ("size_bytes", "612000000"),
    "file url": ("url", "file:///etc/passwd"),
    "ftp url": ("url", "ftp://example.com/model.gguf"),
    "climbing url": ("url", "../../model.gguf"),
    "hidden climbing url": ("url", "a/%2e%2e/%2E%2E/model.gguf"),
    "no app version": ("min_app_version", "three"),
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_a_bad_value_in_a_manifest_is_refused_and_its_path_named(device: Device, case: str) -> None:
    field, value = BAD_VALUES[case]
    device.offer("1.1.0", device.second, **{field: value})
    expect(device.update(), 21, f"$.models.{TIER}.{field}")
    assert device.runs_the_first_release()


def test_a_missing_field_is_named(device: Device) -> None:
    device.put({"current_version": "1.1.0", "models": {TIER: {"url": "x", "size_bytes": 1}}})
    expect(device.update(), 21, "sha256", f"$.models.{TIER}")
    assert device.runs_the_first_release()


BAD_ANSWERS: dict[str, tuple[str, Fault, int, str]] = {
    "manifest not found": ("/manifest.json", Status(404), 24, "404"),
    "manifest fails": ("/manifest.json", Status(500), 24, "500"),
    "manifest cut off": ("/manifest.json", CutAt(40), 24, "manifest.json"),
    "manifest is not http": ("/manifest.json", Raw(b"220 ready\r\n"), 24, "manifest.json"),
    "model not found": ("/second.gguf", Status(404), 24, "404"),
    "wrong bytes": ("/second.gguf", FlipByte(1000), 21, "second.gguf"),
    "login page for a model": ("/second.gguf", Page(), 21, "second.gguf"),
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_a_server_that_answers_wrong_is_reported(device: Device, case: str) -> None:
    path, fault, code, word = BAD_ANSWERS[case]
    device.server.faults[path] = fault
    expect(device.update(), code, word)
    assert device.runs_the_first_release()


@pytest.mark.parametrize("change", [-7, 7])
def test_a_model_of_another_length_than_promised_is_refused(device: Device, change: int) -> None:
    device.offer("1.1.0", device.second, size_bytes=device.second.stat().st_size + change)
    expect(device.update(), 21, "second.gguf")
    assert device.runs_the_first_release()


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(device: Device) -> None:
    device.server.faults["/second.gguf"] = [CutAt(200_000), CutAt(400_000)]
    assert device.update().code == 0
    size = device.second.stat().st_size
    assert device.server.bytes_served("/second.gguf") < size * 1.1


def test_a_server_without_entity_tags_is_good_enough(device: Device) -> None:
    device.server.faults["/second.gguf"] = NoETag()
    device.server.faults["/manifest.json"] = Headers({"ETag": None})
    assert device.update().code == 0
    assert ask("device", "swap", "--store", device.store)["version"] == "1.1.0"


def test_a_tier_that_does_not_exist_is_deferred_with_the_ones_that_do(device: Device) -> None:
    ask(
        "device",
        "init",
        "--store",
        device.store,
        "--url",
        f"{device.server.url}/manifest.json",
        "--tier",
        "9b",
        "--insecure",
    )
    ran = device.update()
    assert ran.code == 22
    assert "no tier 9b" in ran.out
    assert TIER in ran.err
    assert device.runs_the_first_release()


def test_an_app_that_is_too_old_is_deferred(device: Device) -> None:
    device.offer("1.1.0", device.second, min_app_version="3.10.0")
    ran = device.update()
    assert ran.code == 22
    assert "3.10.0" in ran.out
    assert device.runs_the_first_release()


def test_a_disk_without_room_is_deferred_before_anything_is_fetched(device: Device) -> None:
    ran = device.update("--min-free", "900000GB")
    assert ran.code == 22
    assert "bytes free" in ran.out
    assert "\nhint: free some space" in ran.err
    asked = ask(
        "device", "update", "--store", device.store, "--min-free", "900000GB", "--between", "00:00-00:00", code=22
    )
    assert (asked["staged"], asked["reason"]) == (None, "conditions")
    assert device.server.bytes_served("/second.gguf") == 0
    assert device.runs_the_first_release()


def test_a_store_that_another_process_downloads_into_is_waited_for_and_said_to_be(device: Device) -> None:
    command: list[str | Path] = [COMMAND, "device", "update", "--store", device.store]
    with Store(device.store).download_lock():
        waiting = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert waiting.stderr is not None
        said = next(line for line in waiting.stderr if "waiting" in line)
        assert f"in use by process {os.getpid()}" in said
        expect(run("device", "gc", "--store", device.store), 26, str(os.getpid()))
    assert waiting.wait(30) == 0
    waiting.stderr.close()


def test_a_state_that_cannot_be_read_is_not_reset(device: Device) -> None:
    copies = list(device.store.glob("state.*.json"))
    assert copies
    for copy in copies:
        copy.write_bytes(b"\0" * 100)
    expect(run("device", "status", "--store", device.store), 27, str(device.store))
    expect(device.update(), 27)
    assert all(copy.read_bytes() == b"\0" * 100 for copy in copies)


def test_a_store_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    ran = run(
        "device",
        "init",
        "--store",
        tmp_path / "file" / "store",
        "--url",
        "http://127.0.0.1:9/m.json",
        "--tier",
        "1b",
        "--insecure",
    )
    expect(ran, 23, "file")


BAD_CALLS: dict[str, tuple[str, ...]] = {
    "no command": ("device", "nonsense"),
    "no store": ("device", "status"),
    "not set up": ("device", "check", "--store", "nowhere"),
    "bad tier": ("device", "init", "--store", "x", "--url", "http://x/m.json", "--tier", "../x", "--insecure"),
    "bad app version": (
        *("device", "init", "--store", "x", "--url", "http://x/m.json", "--tier", "1b", "--insecure"),
        *("--app-version", "3"),
    ),
    "bad rate": ("device", "update", "--store", "x", "--max-rate", "fast"),
    "unsigned without a word": ("device", "init", "--store", "x", "--url", "http://x/m.json", "--tier", "1b"),
    "no repository": ("repo", "log", "--repo", "nowhere"),
    "bad share": ("repo", "rollout", "10", "--repo", "nowhere", "--tier", "1b"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_a_wrong_call_ends_with_code_2(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OVERAIR_STORE", raising=False)
    expect(run(*BAD_CALLS[case]), 2)
    assert list(tmp_path.iterdir()) == []


def test_json_errors_are_one_object_on_standard_output(device: Device) -> None:
    device.put_bytes(b"{}")
    ran = device.update("--json")
    assert ran.code == 21
    assert ran.data["code"] == 21
    assert ran.data["hint"]
