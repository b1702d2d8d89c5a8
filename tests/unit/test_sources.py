"""Which of several places a connection fetches from."""

from overair.core import retry
from overair.core.sources import PROGRESS_BYTES, Source, Sources
from overair.errors import HTTPStatusError, IntegrityError, NetworkError, OverairError

CUT = NetworkError("cut")
GONE = HTTPStatusError("gone", status=404)


def _pick(sources: Sources, now: float = 0.0) -> Source:
    source = sources.pick(now)
    assert source is not None
    return source


def _fail(
    sources: Sources,
    source: Source,
    error: OverairError = CUT,
    *,
    now: float = 0.0,
    asked_at: float | None = None,
    works: bool = False,
) -> None:
    asked = now if asked_at is None else asked_at
    sources.failed(source, error, asked_at=asked, now=now, chance=1.0, works=works)


def test_the_first_is_preferred_and_the_others_are_used_beside_it() -> None:
    sources = Sources(["a", "b", "a"])
    urls = []
    for _ in range(4):
        source = _pick(sources)
        source.lanes += 1
        urls.append(source.url)
    assert urls == ["a", "b", "a", "b"]


def test_one_that_failed_rests_while_others_go_on() -> None:
    sources = Sources(["a", "b"])
    _fail(sources, _pick(sources))
    assert [_pick(sources, now).url for now in (0.0, 0.9, 1.0)] == ["b", "b", "a"]
    assert sources.why_none_is_left() is None


def test_it_is_given_up_after_failures_without_progress_only() -> None:
    sources = Sources(["a"])
    source = _pick(sources)
    for failures in range(retry.MAX_FAILURES - 1):
        _fail(sources, source, now=failures * 100.0)
    assert sources.why_none_is_left() is None
    sources.brought(source, PROGRESS_BYTES - 1)
    assert source.failures == retry.MAX_FAILURES - 1
    sources.brought(source, 1)
    assert source.failures == 0
    for failures in range(retry.MAX_FAILURES):
        _fail(sources, source, now=failures * 100.0)
    assert sources.why_none_is_left() is CUT


def test_connections_that_were_cut_off_together_count_once() -> None:
    sources = Sources(["a"])
    source = _pick(sources)
    for lane in range(8):
        _fail(sources, source, now=5.0 + lane / 100, asked_at=1.0)
    assert source.failures == 1
    _fail(sources, source, now=7.0, asked_at=6.0)
    assert source.failures == 2


def test_a_server_that_asks_for_patience_is_given_it() -> None:
    sources = Sources(["a"])
    busy = HTTPStatusError("busy", status=503)
    busy.retry_after_s = 20.0  # type: ignore[attr-defined] # as transport's errors have it
    _fail(sources, _pick(sources), busy)
    assert sources.pick(19.9) is None
    assert _pick(sources, 20.0).url == "a"


def test_one_that_says_no_is_not_asked_again() -> None:
    sources = Sources(["a", "b"])
    _fail(sources, _pick(sources), GONE)
    assert _pick(sources, 1e9).url == "b"
    assert not sources.others(_pick(sources))


def test_one_that_says_no_to_one_connection_more_is_asked_again() -> None:
    sources = Sources(["a"])
    _fail(sources, _pick(sources), GONE, works=True)
    assert sources.why_none_is_left() is None
    assert sources.pick(0.5) is None
    assert _pick(sources, 1.0).url == "a"


def test_one_without_ranges_has_one_connection() -> None:
    sources = Sources(["a"])
    source = _pick(sources)
    source.has_ranges, source.lanes = False, 1
    assert sources.pick(0.0) is None
    source.lanes = 0
    assert sources.pick(0.0) is source


def test_wrong_bytes_say_more_than_an_expired_link_and_that_more_than_silence() -> None:
    sources = Sources(["a", "b", "c"])
    wrong = IntegrityError("wrong")
    for url, error in (("a", CUT), ("b", GONE), ("c", wrong)):
        sources.put_out(sources.at(url), error)
    assert sources.why_none_is_left() is wrong
    sources.at("c").error = None
    assert sources.why_none_is_left() is GONE
    sources.at("b").error = None
    assert sources.why_none_is_left() is CUT


def test_another_tag_is_another_file_and_one_that_always_changes_is_left_out() -> None:
    sources = Sources(["a"])
    source = _pick(sources)
    assert not sources.saw(source, '"1"')
    assert not sources.saw(source, '"1"')
    assert sources.saw(source, '"2"')
    assert (source.etag, source.edition) == ('"2"', 2)
    assert sources.saw(source, None)
    assert not sources.saw(source, '"3"')
    assert sources.saw(source, '"4"')
    assert source.etag is None
    assert not sources.saw(source, '"5"')
    assert source.etag is None
