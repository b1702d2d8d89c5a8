"""HTTP against a server that misbehaves."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overair.core.retry import worth_retrying
from overair.errors import CancelledError, HTTPStatusError, IntegrityError, NetworkError, OverairError, UsageError
from overair.transport.failures import AnswerError, parse_retry_after, shown
from overair.transport.http import HTTP, Document, NotModified, Stream, check_url, resolve
from support.misbehaving import (
    CutAt,
    EndlessBody,
    EndlessContinue,
    EndlessHeaders,
    Fault,
    Gzip,
    Headers,
    IgnoreRange,
    MisbehavingServer,
    NeverAnswer,
    Page,
    Raw,
    Redirect,
    StallAt,
    Status,
    Trickle,
    WrongContentRange,
)

DATA = bytes(range(256)) * 400
PATH = "/a.json"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MisbehavingServer]:
    (tmp_path / "a.json").write_bytes(DATA)
    with MisbehavingServer(tmp_path) as server:
        yield server


@pytest.fixture
def http() -> Iterator[HTTP]:
    with HTTP(connect_timeout_s=2.0, read_timeout_s=0.3) as http:
        yield http


def _get(http: HTTP, url: str, *, max_bytes: int = 1_000_000, total_timeout_s: float = 5.0) -> Document:
    document = http.get(url, max_bytes=max_bytes, total_timeout_s=total_timeout_s)
    assert isinstance(document, Document)
    return document


def _read_all(stream: Stream) -> bytes:
    buffer = memoryview(bytearray(10_000))
    whole = bytearray()
    while count := stream.read_into(buffer):
        whole += buffer[:count]
    return bytes(whole)


def _is_one_clear_line(error: OverairError) -> None:
    text = error.message
    assert "\n" not in text
    assert len(text) < 250
    for soup in ("urllib3", "HTTPConnection", "object at 0x", "Errno", "Error(", "Max retries", "_ssl.c"):
        assert soup not in text
    assert error.hint


def test_importing_http_does_not_import_urllib3() -> None:
    code = "import sys, overair.transport.download; sys.exit('urllib3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- documents -------------------------------------------------------------------------------------------------


def test_a_document_comes_with_its_tag_and_its_url(server: MisbehavingServer, http: HTTP) -> None:
    document = _get(http, server.url + PATH)
    assert document.data == DATA
    assert document.url == server.url + PATH
    assert http.get(server.url + PATH, max_bytes=1, etag=document.etag) == NotModified()
    assert server.bytes_served(PATH) == len(DATA)


def test_every_request_asks_for_the_bytes_as_they_are(server: MisbehavingServer, http: HTTP) -> None:
    _get(http, server.url + PATH)
    headers = server.requests()[0].headers
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"] == "overair"
    assert "authorization" not in headers


@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "expired"), (403, "expired"), (404, "published"), (429, "later"), (500, "network"), (503, "later")],
)
def test_another_status_is_named_with_a_hint_and_without_the_query(
    server: MisbehavingServer, http: HTTP, status: int, hint: str
) -> None:
    server.faults[PATH] = Status(status)
    with pytest.raises(HTTPStatusError) as caught:
        _get(http, server.url + PATH + "?signature=secret")
    assert caught.value.status == status
    assert f"{server.url}{PATH}: the server answered {status}" in caught.value.message
    assert "secret" not in caught.value.message
    assert hint in caught.value.hint
    _is_one_clear_line(caught.value)


def test_status_304_that_was_not_asked_for_is_an_error(server: MisbehavingServer, http: HTTP) -> None:
    server.faults[PATH] = Raw(b"HTTP/1.1 304 Not Modified\r\n\r\n")
    with pytest.raises(HTTPStatusError, match="304"):
        _get(http, server.url + PATH)


def test_the_time_that_a_busy_server_asks_for_is_kept(server: MisbehavingServer, http: HTTP) -> None:
    server.faults[PATH] = Status(503, {"Retry-After": "17"})
    with pytest.raises(AnswerError) as caught:
        http.open(server.url + PATH)
    assert caught.value.retry_after_s == 17.0


def test_retry_after_is_read_in_both_forms_and_nonsense_is_ignored() -> None:
    now = 784_111_777.0
    assert parse_retry_after("120", now=now) == 120.0
    assert parse_retry_after("Sun, 06 Nov 1994 08:50:37 GMT", now=now) == 60.0
    assert parse_retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now=now) == 0.0
    for nonsense in (None, "", "soon", "-5", "9" * 400, "Sun, 99 Nov 1994 08:50:37 GMT"):
        assert parse_retry_after(nonsense, now=now) is None


def test_a_body_longer_than_allowed_is_refused_before_it_is_read(server: MisbehavingServer, http: HTTP) -> None:
    with pytest.raises(IntegrityError, match="longer than 1000 bytes"):
        _get(http, server.url + PATH, max_bytes=1000)


def test_an_endless_body_is_refused_after_the_allowed_bytes(server: MisbehavingServer, http: HTTP) -> None:
    server.faults[PATH] = EndlessBody()
    with pytest.raises(IntegrityError, match="longer than 200000 bytes"):
        _get(http, server.url + PATH, max_bytes=200_000)
    assert server.bytes_served(PATH) < 20_000_000


def test_a_body_of_the_allowed_length_is_taken(server: MisbehavingServer, http: HTTP) -> None:
    assert _get(http, server.url + PATH, max_bytes=len(DATA)).data == DATA


def test_a_page_that_was_compressed_on_the_way_is_refused(server: MisbehavingServer, http: HTTP) -> None:
    server.faults[PATH] = Gzip()
    with pytest.raises(IntegrityError, match="changed the bytes"):
        _get(http, server.url + PATH)
    with pytest.raises(IntegrityError, match="changed the bytes"):
        http.open(server.url + PATH)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (CutAt(1000), "the connection was cut"),
        (CutAt(1000, reset=True), "the connection was cut"),
        (Headers({"Content-Length": str(len(DATA) + 1), "Connection": "close"}), "the connection was cut"),
        (Headers({"Content-Length": "5, 6"}), "not valid HTTP"),
        (Raw(b""), "closed the connection without an answer"),
        (Raw(b"SSH-2.0-OpenSSH_9.6\r\n"), "not valid HTTP"),
        (Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"), "the connection was cut"),
        (Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab"), "the connection was cut"),
        (EndlessHeaders(), "not valid HTTP"),
        (StallAt(1000), "the server sent nothing for 0.3 s"),
        (NeverAnswer(), "the server sent nothing for 0.3 s"),
    ],
)
def test_what_is_no_whole_answer_is_a_network_error_of_one_line(
    server: MisbehavingServer, http: HTTP, fault: Fault, why: str
) -> None:
    server.faults[PATH] = fault
    with pytest.raises(NetworkError, match=why) as caught:
        _get(http, server.url + PATH)
    assert f"{server.url}{PATH}" in caught.value.message
    _is_one_clear_line(caught.value)


def test_a_trickle_ends_with_the_total_time(server: MisbehavingServer, http: HTTP) -> None:
    server.faults[PATH] = Trickle()
    with pytest.raises(NetworkError, match=r"no whole answer within 0\.5 s"):
        _get(http, server.url + PATH, total_timeout_s=0.5)


def test_endless_interim_answers_end_with_the_total_time_and_leave_no_thread(
    server: MisbehavingServer, http: HTTP
) -> None:
    server.faults[PATH] = EndlessContinue()
    with pytest.raises(NetworkError, match=r"no whole answer within 0\.5 s"):
        _get(http, server.url + PATH, total_timeout_s=0.5)
    _wait_until_no_thread_is_named("overair-open")


def test_a_refused_connection_is_one_clear_line(http: HTTP, tmp_path: Path) -> None:
    with MisbehavingServer(tmp_path) as gone:
        url = gone.url
    with pytest.raises(NetworkError, match="no connection: connection refused") as caught:
        _get(http, url + PATH)
    _is_one_clear_line(caught.value)


def test_a_name_that_nobody_knows_is_one_clear_line(http: HTTP) -> None:
    with pytest.raises(NetworkError) as caught:
        _get(http, "http://models.invalid/a.json", total_timeout_s=2.0)
    assert "http://models.invalid/a.json" in caught.value.message
    _is_one_clear_line(caught.value)


def test_a_host_name_that_cannot_be_one_is_a_network_error(http: HTTP) -> None:
    with pytest.raises(NetworkError):
        _get(http, f"http://{'a' * 80}.invalid/a.json")


# --- redirects -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server: MisbehavingServer, http: HTTP, code: int) -> None:
    server.faults["/old"] = Redirect("a.json?x=1", code)
    assert _get(http, server.url + "/old").url == f"{server.url}{PATH}?x=1"


def test_a_redirect_keeps_the_range(server: MisbehavingServer, http: HTTP) -> None:
    server.faults["/old"] = Redirect(PATH)
    with http.open(server.url + "/old", start=100) as stream:
        assert (stream.start, _read_all(stream)) == (100, DATA[100:])


def test_five_redirects_are_followed_and_the_sixth_is_not(server: MisbehavingServer, http: HTTP) -> None:
    server.faults["/loop"] = [Redirect("/loop")] * 4 + [Redirect(PATH)]
    assert _get(http, server.url + "/loop").data == DATA
    server.faults["/loop"] = Redirect("/loop")
    server.forget()
    with pytest.raises(NetworkError, match="more than 5 redirects"):
        _get(http, server.url + "/loop")
    assert len(server.requests()) == 6


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://example.com/x", "http://user:pw@127.0.0.1/x", "javascript:1"]
)
def test_a_redirect_to_anything_but_a_plain_web_address_is_refused(
    server: MisbehavingServer, http: HTTP, target: str
) -> None:
    server.faults[PATH] = Redirect(target)
    with pytest.raises(NetworkError, match="which is refused"):
        _get(http, server.url + PATH)


def test_a_redirect_without_a_target_is_an_unexpected_status(server: MisbehavingServer, http: HTTP) -> None:
    server.faults[PATH] = Status(302)
    with pytest.raises(HTTPStatusError, match="302"):
        _get(http, server.url + PATH)


def test_a_redirect_to_another_host_is_refused_before_it_is_asked(
    server: MisbehavingServer, http: HTTP, tmp_path: Path
) -> None:
    with MisbehavingServer(tmp_path) as other:
        server.faults["/moved"] = Redirect(f"http://LocalHost:{other.port}{PATH}")
        for fetch in (lambda: _get(http, server.url + "/moved"), lambda: http.open(server.url + "/moved")):
            with pytest.raises(NetworkError, match=r"redirects to another host.* which is refused") as caught:
                fetch()
            assert "publisher" in caught.value.hint
            _is_one_clear_line(caught.value)
        assert other.requests() == []
        server.faults["/port"] = Redirect(other.url + PATH)
        assert _get(http, server.url + "/port").url == other.url + PATH


def test_a_redirect_that_is_refused_is_not_tried_again(server: MisbehavingServer, http: HTTP) -> None:
    server.faults[PATH] = Redirect("http://models.invalid/")
    with pytest.raises(NetworkError) as caught:
        http.open(server.url + PATH)
    assert not worth_retrying(caught.value)


def test_a_redirect_from_https_to_http_is_refused_and_the_other_way_is_fine(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    with MisbehavingServer(tmp_path, tls=True) as secure, HTTP(ca_file=secure.ca_file) as http:
        secure.faults["/down"] = Redirect(server.url + PATH)
        server.faults["/up"] = Redirect(secure.url + PATH)
        assert _get(http, server.url + "/up").url == secure.url + PATH
        server.forget()
        with pytest.raises(NetworkError, match="redirects from https"):
            _get(http, secure.url + "/down")
        assert server.requests() == []


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path, http: HTTP) -> None:
    with MisbehavingServer(tmp_path, tls=True) as secure:
        with pytest.raises(NetworkError, match="certificate is not valid: self-signed certificate") as caught:
            _get(http, secure.url + PATH)
        _is_one_clear_line(caught.value)
        assert secure.requests() == []


def test_a_stalled_stream_over_tls_ends_too(server: MisbehavingServer, tmp_path: Path) -> None:
    with (
        MisbehavingServer(tmp_path, tls=True) as secure,
        HTTP(read_timeout_s=0.3, ca_file=secure.ca_file) as http,
    ):
        secure.faults[PATH] = StallAt(50_000)
        with http.open(secure.url + PATH) as stream, pytest.raises(NetworkError, match="sent nothing"):
            _read_all(stream)
    assert server.requests() == []


# --- URLs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/a",
        "a.json",
        "",
        "http:///a",
        "https://user@example.com/",
        "https://user:pw@example.com/",
        "http://example.com:port/",
        "http://exa mple.com/",
        "http://example.com/\r\nX: y",
        "http://[::1",
    ],
)
def test_what_is_no_plain_web_address_is_refused_without_a_request(http: HTTP, url: str) -> None:
    with pytest.raises(UsageError, match=r"not an http\(s\) URL"):
        http.get(url, max_bytes=10)
    with pytest.raises(UsageError):
        check_url(url)


def test_addresses_are_resolved_against_the_manifest() -> None:
    base = "https://cdn.example.com/models/stable/manifest.json?x=1"
    assert resolve(base, "../blobs/a") == "https://cdn.example.com/models/blobs/a"
    assert resolve(base, "http://other.example.com/a") == "http://other.example.com/a"
    for reference in ("file:///etc/passwd", "//user@example.com/a", "data:,x"):
        with pytest.raises(UsageError):
            resolve(base, reference)


def test_what_is_shown_of_an_address_holds_no_secret_and_no_control_character() -> None:
    assert shown("https://user:pw@example.com/a?sig=s#f") == "https://example.com/a"
    assert shown("https://example.com/\x1b[31m") == "https://example.com/?[31m"
    assert len(shown("https://example.com/" + "a" * 9999)) == 300
    assert shown("http://[::1?sig=s") == "http://[::1"


# --- streams ---------------------------------------------------------------------------------------------------


def test_a_stream_starts_where_it_was_asked_to(server: MisbehavingServer, http: HTTP) -> None:
    with http.open(server.url + PATH) as stream:
        etag = stream.etag
        assert (stream.start, stream.total, stream.content_type) == (0, len(DATA), "application/octet-stream")
        assert _read_all(stream) == DATA
    with http.open(server.url + PATH, start=1234, if_range=etag) as stream:
        assert (stream.start, stream.total, stream.etag) == (1234, len(DATA), etag)
        assert _read_all(stream) == DATA[1234:]


@pytest.mark.parametrize(
    ("start", "stop", "header"), [(0, 10, "bytes=0-9"), (5, 11, "bytes=5-10"), (7, None, "bytes=7-")]
)
def test_a_part_comes_as_it_was_asked_for(
    server: MisbehavingServer, http: HTTP, start: int, stop: int | None, header: str
) -> None:
    with http.open(server.url + PATH, start=start, stop=stop) as stream:
        assert (stream.start, stream.stop, stream.total) == (start, stop or len(DATA), len(DATA))
        assert _read_all(stream) == DATA[start:stop]
    assert server.requests()[0].headers["range"] == header


def test_more_than_was_asked_for_is_refused(server: MisbehavingServer, http: HTTP) -> None:
    server.faults[PATH] = Headers({"Content-Range": f"bytes 5-99/{len(DATA)}"})
    with pytest.raises(AnswerError, match="206"):
        http.open(server.url + PATH, start=5, stop=11)


def test_a_part_that_was_read_to_its_end_leaves_its_connection_for_the_next(
    server: MisbehavingServer, http: HTTP
) -> None:
    for start in range(0, 1000, 100):
        with http.open(server.url + PATH, start=start, stop=start + 100) as stream:
            assert _read_all(stream) == DATA[start : start + 100]
    assert server.connections == 1


def test_a_body_in_pieces_of_unknown_number_is_read_whole(server: MisbehavingServer, http: HTTP) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (DATA[:10], DATA[10:5000], b""))
    server.faults[PATH] = Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    with http.open(server.url + PATH) as stream:
        assert (stream.stop, stream.total) == (None, None)
        assert _read_all(stream) == DATA[:5000]


@pytest.mark.parametrize("fault", [NeverAnswer(), Trickle(1, 0.01)])
def test_the_caller_can_stop_every_wait_at_once(server: MisbehavingServer, fault: Fault) -> None:
    server.faults[PATH] = fault
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()
    began = time.monotonic()
    with HTTP(cancel=cancel) as http, pytest.raises(CancelledError):
        http.get(server.url + PATH, max_bytes=1_000_000)
    assert time.monotonic() - began < 0.5


def test_a_server_that_ignores_the_range_sends_all(server: MisbehavingServer, http: HTTP) -> None:
    server.faults[PATH] = IgnoreRange()
    with http.open(server.url + PATH, start=1234) as stream:
        assert (stream.start, _read_all(stream)) == (0, DATA)


@pytest.mark.parametrize(
    "fault",
    [
        WrongContentRange(),
        Headers({"Content-Range": None}),
        Headers({"Content-Range": "bytes */100"}),
        Headers({"Content-Range": "items 100-200/300"}),
        Headers({"ETag": '"another"'}),
        Headers({"ETag": 'W/"weak"'}),
    ],
)
def test_a_range_other_than_asked_for_is_refused(server: MisbehavingServer, http: HTTP, fault: Fault) -> None:
    with http.open(server.url + PATH) as stream:
        etag = stream.etag
    server.faults[PATH] = fault
    with pytest.raises(HTTPStatusError) as caught:
        http.open(server.url + PATH, start=100, if_range=etag)
    assert caught.value.status == 206


def test_a_part_that_nobody_asked_for_is_refused(server: MisbehavingServer, http: HTTP) -> None:
    server.faults[PATH] = Status(206, {"Content-Range": "bytes 0-1/2"})
    with pytest.raises(HTTPStatusError) as caught:
        http.open(server.url + PATH)
    assert caught.value.status == 206


@pytest.mark.parametrize("etag", [None, 'W/"weak"', "bare", '"a b"', '"' + "x" * 300 + '"', '"é"'])
def test_only_a_strong_tag_counts(server: MisbehavingServer, http: HTTP, etag: str | None) -> None:
    server.faults[PATH] = Headers({"ETag": etag})
    with http.open(server.url + PATH) as stream:
        assert stream.etag is None


def test_a_page_says_that_it_is_one(server: MisbehavingServer, http: HTTP) -> None:
    server.faults[PATH] = Page(content_type="Text/HTML; charset=utf-8")
    with http.open(server.url + PATH) as stream:
        assert stream.content_type == "text/html"


@pytest.mark.parametrize("fault", [NeverAnswer(), StallAt(50_000)])
def test_the_caller_can_stop_while_the_server_is_silent(
    server: MisbehavingServer, tmp_path: Path, fault: Fault
) -> None:
    server.faults[PATH] = fault
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()
    began = time.monotonic()
    with HTTP(read_timeout_s=60.0) as http, pytest.raises(CancelledError):
        _read_all(http.open(server.url + PATH, cancel=cancel))
    assert time.monotonic() - began < 0.2 + 0.5
    _wait_until_no_thread_is_named("overair-open")
    assert tmp_path.exists()


def test_a_connection_is_used_again(server: MisbehavingServer, http: HTTP) -> None:
    _get(http, server.url + PATH)
    open_connections = len(server._server._open)
    for _ in range(3):
        _get(http, server.url + PATH)
    assert len(server._server._open) == open_connections == 1


# --- proxies ---------------------------------------------------------------------------------------------------


def test_the_proxy_of_the_environment_is_used(
    server: MisbehavingServer, http: HTTP, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url.replace("http://", "http://me:p%40ss@"))
    assert _get(http, "http://models.invalid/a.json").data == DATA
    request = server.requests()[0]
    assert request.target == "http://models.invalid/a.json"
    assert request.headers["proxy-authorization"] == "Basic bWU6cEBzcw=="


def test_no_proxy_is_obeyed(server: MisbehavingServer, http: HTTP, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert _get(http, server.url + PATH).data == DATA


def test_https_goes_through_a_tunnel_of_the_proxy(
    server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", server.url)
    with MisbehavingServer(tmp_path, tls=True) as secure, HTTP(ca_file=secure.ca_file) as http:
        assert _get(http, secure.url + PATH).data == DATA
        assert [request.target for request in server.requests()] == [f"127.0.0.1:{secure.port}"]


def test_a_proxy_that_is_gone_is_named_as_the_culprit(
    http: HTTP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MisbehavingServer(tmp_path) as gone:
        monkeypatch.setenv("http_proxy", gone.url)
    with pytest.raises(NetworkError, match="the proxy failed: no connection: connection refused") as caught:
        _get(http, "http://models.invalid/a.json")
    assert "HTTP_PROXY" in caught.value.hint
    _is_one_clear_line(caught.value)


def test_a_proxy_of_another_kind_is_refused_with_a_hint(http: HTTP, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1080")
    with pytest.raises(NetworkError, match="neither http nor https"):
        _get(http, "http://models.invalid/a.json")


def _wait_until_no_thread_is_named(name: str) -> None:
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(timeout=5.0)
            assert not thread.is_alive()
