"""The development server, asked as devices ask and as RFC 9110 says."""

import hashlib
import http.client
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from overair.errors import UsageError
from overair.publish.repository import Repository
from overair.publish.serve import Server, serve_forever
from overair.store.durable import write_file
from support.published import model_file


class Answer(NamedTuple):
    status: int
    headers: Message
    body: bytes


class Tree(NamedTuple):
    server: Server
    folder: Path
    blob: str
    content: bytes

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """One request, exactly as written: no client tidies the path."""
        where = urlsplit(self.server.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=10)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): v for name, v in headers.items()})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    folder = tmp_path_factory.mktemp("served") / "repo"
    folder.mkdir()
    (folder.parent / "secret.txt").write_text("secret")
    with Server(folder) as server:
        repo = Repository.init(folder, base_url=server.url, dev=True)
        model = model_file(folder.parent / "m.gguf", floats=2500)
        done = repo.publish([model], tier="1b", version="1.0.0", probe=False)
        yield Tree(server, folder, urlsplit(done.url).path, model.read_bytes())


def test_a_blob_comes_whole_with_its_digest_as_a_strong_tag(tree: Tree) -> None:
    answer = tree.ask(tree.blob)
    assert (answer.status, answer.body) == (200, tree.content)
    assert answer.headers["etag"] == f'"{hashlib.sha256(tree.content).hexdigest()}"'
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-length"] == str(len(tree.content))
    assert answer.headers["content-encoding"] is None


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-199", 100, 200),
        ("bytes=5000-", 5000, None),
        ("bytes=-7", -7, None),
        ("bytes=5000-99999999", 5000, None),
        ("bytes=-99999999", 0, None),
    ],
)
def test_a_range_comes_with_206_and_says_which_it_is(tree: Tree, asked: str, first: int, end: int | None) -> None:
    answer = tree.ask(tree.blob, Range=asked)
    expected = tree.content[first:end]
    start = first % len(tree.content)
    assert (answer.status, answer.body) == (206, expected)
    assert answer.headers["content-range"] == f"bytes {start}-{start + len(expected) - 1}/{len(tree.content)}"
    assert answer.headers["content-length"] == str(len(expected))
    assert answer.headers["etag"] == tree.ask(tree.blob).headers["etag"]


def test_several_ranges_come_as_parts(tree: Tree) -> None:
    answer = tree.ask(tree.blob, Range="bytes=0-9,200-209")
    boundary = re.fullmatch(r"multipart/byteranges; boundary=(\w+)", answer.headers["content-type"] or "")
    assert answer.status == 206
    assert boundary is not None
    parts = answer.body.split(b"--" + boundary[1].encode())[1:-1]
    bodies = [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts]
    assert bodies == [tree.content[0:10], tree.content[200:210]]
    assert f"bytes 200-209/{len(tree.content)}".encode() in parts[1]


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0"])
def test_a_range_beyond_the_end_is_416_with_the_length(tree: Tree, asked: str) -> None:
    answer = tree.ask(tree.blob, Range=asked)
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{len(tree.content)}"


def test_a_range_in_another_unit_is_ignored(tree: Tree) -> None:
    answer = tree.ask(tree.blob, Range="items=0-1")
    assert (answer.status, answer.body) == (200, tree.content)


def test_a_range_continues_only_the_same_file(tree: Tree) -> None:
    tag = tree.ask(tree.blob).headers["etag"] or ""
    assert tree.ask(tree.blob, Range="bytes=10-", If_Range=tag).status == 206
    for other in ('"' + "0" * 64 + '"', f"W/{tag}", "Mon, 23 Nov 2026 10:00:00 GMT"):
        answer = tree.ask(tree.blob, Range="bytes=10-", If_Range=other)
        assert (answer.status, answer.body) == (200, tree.content)
    # A range that cannot be satisfied is not 416 when the file is another one: the client must start over.
    assert tree.ask(tree.blob, Range="bytes=99999999-", If_Range='"other"').status == 200


def test_what_a_reader_has_is_not_sent_again(tree: Tree) -> None:
    for path in (tree.blob, "/manifest.json"):
        tag = tree.ask(path).headers["etag"] or ""
        for asked in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            answer = tree.ask(path, If_None_Match=asked)
            assert (answer.status, answer.body) == (304, b"")
            assert answer.headers["etag"] == tag
            assert answer.headers["cache-control"] is not None
        assert tree.ask(path, If_None_Match='"other"').status == 200


def test_head_is_get_without_the_body_and_ignores_a_range(tree: Tree) -> None:
    for path in (tree.blob, "/manifest.json"):
        get, head = tree.ask(path), tree.ask(path, "HEAD", Range="bytes=0-1")
        assert (head.status, head.body) == (200, b"")
        for name in ("content-length", "etag", "cache-control", "content-type"):
            assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed(tree: Tree, method: str) -> None:
    answer = tree.ask("/manifest.json", method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_manifests_are_asked_for_again_and_hashed_ones_are_kept(tree: Tree) -> None:
    for path in ("/manifest.json", "/stable/manifest.json"):
        answer = tree.ask(path)
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["content-type"] == "application/json"
        digest = hashlib.sha256(answer.body).hexdigest()
        assert answer.headers["etag"] == f'"{digest}"'
        hashed = tree.ask(f"/targets/stable/{digest}.manifest.json")
        assert hashed.body == answer.body
        assert "immutable" in (hashed.headers["cache-control"] or "")
    (tree.folder / "metadata").mkdir(exist_ok=True)
    for name, kept in (("timestamp.json", False), ("1.root.json", True), ("12.snapshot.json", True)):
        (tree.folder / "metadata" / name).write_text("{}")
        assert ("immutable" in (tree.ask(f"/metadata/{name}").headers["cache-control"] or "")) is kept


def test_a_manifest_replaced_in_the_same_instant_by_one_of_the_same_length_has_another_tag(tree: Tree) -> None:
    path = tree.folder / "beta" / "manifest.json"
    path.parent.mkdir(exist_ok=True)
    tags = set()
    for digit in b"0123456789":
        write_file(path, bytes([digit]) * 100)
        os.utime(path, ns=(10**18, 10**18))
        tags.add(tree.ask("/beta/manifest.json").headers["etag"])
    assert len(tags) == 10


def test_a_large_file_without_a_digest_in_its_name_changes_its_tag_when_it_is_replaced(tree: Tree) -> None:
    tags = []
    for name in ("first.tmp", "second.tmp"):
        with (tree.folder / name).open("wb") as file:
            file.truncate(6_000_000)
        os.utime(tree.folder / name, ns=(10**18, 10**18))
    for name in ("first.tmp", "second.tmp"):
        (tree.folder / name).replace(tree.folder / "model.gguf")
        tags.append(tree.ask("/model.gguf", "HEAD").headers["etag"])
    assert tags[0] != tags[1]


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/stable/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%5csecret.txt",
        "/stable/..%5c..%5csecret.txt",
        "//secret.txt",
        "/./manifest.json",
        "/stable//manifest.json",
        "/manifest.json/",
        "/manifest.json%00.txt",
        "/%ff%fe",
        "/" + "a" * 5000,
        "/link.txt",
        "/",
        "/stable",
        "/stable/",
        "/blobs/",
        "/nothing.json",
        "/.lock",
        "/.lock.pid",
        "/.git/config",
        "/blobs/incoming-0.tmp",
        "/manifest.json.tmp",
        "/blobs/sha256/00/" + "0" * 64,
    ],
)
def test_nothing_but_published_files_is_served(tree: Tree, path: str) -> None:
    (tree.folder / ".git").mkdir(exist_ok=True)
    (tree.folder / ".git" / "config").write_text("secret")
    (tree.folder / ".lock.pid").write_text("secret")
    (tree.folder / "blobs" / "incoming-0.tmp").write_text("secret")
    (tree.folder / "manifest.json.tmp").write_text("secret")
    link = tree.folder / "link.txt"
    if not link.is_symlink():
        link.symlink_to(tree.folder.parent / "secret.txt")
    answer = tree.ask(path)
    assert answer.status == 404
    assert b"secret" not in answer.body


def test_a_manifest_is_whole_at_every_moment_while_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    contents = [b"a" * 50_000, b"b" * 70_000]
    write_file(path, contents[0])
    stop = threading.Event()

    def replace() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            path.with_name("next").write_bytes(contents[number % 2])
            path.with_name("next").replace(path)

    writer = threading.Thread(target=replace)
    with Server(tmp_path) as server:
        tree = Tree(server, tmp_path, "", b"")
        writer.start()
        try:
            for _ in range(100):
                answer = tree.ask("/manifest.json")
                assert answer.body in contents
                assert answer.headers["etag"] == f'"{hashlib.sha256(answer.body).hexdigest()}"'
        finally:
            stop.set()
            writer.join()


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is the kibibyte on Linux only")
def test_a_large_blob_takes_no_memory(tmp_path: Path) -> None:
    size = 300_000_000
    digest = "ab" + "0" * 62
    blob = tmp_path / "blobs" / "sha256" / "ab" / digest
    blob.parent.mkdir(parents=True)
    with blob.open("wb") as file:
        file.truncate(size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Server(tmp_path) as server:
        where = urlsplit(server.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
        connection.request("GET", f"/blobs/sha256/ab/{digest}")
        answer = connection.getresponse()
        buffer, received = bytearray(1 << 20), 0
        while count := answer.readinto(buffer):
            received += count
        connection.close()
    assert received == size
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32_000


def test_it_listens_to_this_machine_alone_and_ends_at_once_with_a_download_under_way(tmp_path: Path) -> None:
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(1 << 30)
    with Server(tmp_path) as server:
        where = urlsplit(server.url)
        assert where.hostname == "127.0.0.1"
        client = socket.create_connection(("127.0.0.1", where.port or 0), timeout=10)
        client.sendall(b"GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
    client.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", where.port or 0), timeout=10)


def test_an_address_that_is_taken_is_an_error_with_a_hint(tree: Tree) -> None:
    with pytest.raises(UsageError, match="cannot listen on") as caught:
        Server(tree.folder, port=urlsplit(tree.server.url).port or 0)
    assert "--port 0" in caught.value.hint


def test_only_a_repository_is_served_for_ever(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no repository"):
        serve_forever(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        Server(tmp_path / "none")


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_the_server_of_the_command_line_ends_quietly_when_it_is_interrupted(tree: Tree) -> None:
    child = "import sys; from overair.publish.serve import serve_forever as s; "
    child += "s(sys.argv[1], on_ready=lambda url: print(url, flush=True))"
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", child, str(tree.folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().decode().strip()
        with urllib.request.urlopen(f"{url}/manifest.json", timeout=10) as answer:
            assert answer.status == 200
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=10)
    assert (server.returncode, errors) == (0, b"")
