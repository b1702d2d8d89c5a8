"""Who fetches which bytes."""

from hypothesis import given
from hypothesis import strategies as st

from overair.core.spans import Span, Spans

CHUNK = 100
RATES = {0: 1000.0, 1: 1000.0}


def _spans(chunks: int = 10, missing: list[int] | None = None, size_bytes: int | None = None) -> Spans:
    return Spans(
        size_bytes=size_bytes or chunks * CHUNK,
        chunk_bytes=CHUNK,
        missing=range(chunks) if missing is None else missing,
    )


def _take(
    spans: Spans, lane: int, *, lanes: int = 1, longest: int = 10_000, rates: dict[int, float] | None = None
) -> Span | None:
    return spans.take(lane, lanes=lanes, longest_bytes=longest, rates=RATES if rates is None else rates)


def test_one_lane_gets_all_there_is_up_to_the_longest_request() -> None:
    assert _take(_spans(), 0) == Span(0, 1000)
    assert _take(_spans(), 0, longest=450) == Span(0, 500)


def test_the_file_may_end_within_a_chunk() -> None:
    assert _take(_spans(3, size_bytes=250), 0) == Span(0, 250)


def test_several_lanes_share_and_no_crumbs_are_left() -> None:
    spans = _spans(16)
    assert [_take(spans, lane, lanes=2) for lane in (0, 1)] == [Span(0, 400), Span(400, 700)]
    spans = _spans(3)
    assert _take(spans, 0, lanes=8) == Span(0, 300)


def test_only_what_is_missing_is_fetched() -> None:
    spans = _spans(missing=[2, 3, 7])
    assert [_take(spans, 0), _take(spans, 1)] == [Span(200, 400), Span(700, 800)]
    assert spans.free_bytes == 0


def test_bytes_belong_to_a_lane_before_they_are_written() -> None:
    spans = _spans(4)
    _take(spans, 0)
    assert spans.reserve(0, 130) == 130
    assert spans.wrote(Span(0, 130)) == [0]
    assert spans.wrote(Span(130, 130)) == []
    assert spans.reserve(0, 1000) == 270
    assert spans.wrote(Span(130, 400)) == [1, 2, 3]


def test_what_a_lane_gives_back_is_joined_with_its_neighbours() -> None:
    spans = _spans(8)
    first, second = _take(spans, 0, lanes=2), _take(spans, 1, lanes=2)
    assert (first, second) == (Span(0, 200), Span(200, 400))
    spans.reserve(0, 150)
    spans.give_back(1)
    spans.give_back(0)
    assert _take(spans, 5) == Span(150, 800)


def test_a_refused_chunk_is_missing_again() -> None:
    spans = _spans(2)
    _take(spans, 0)
    spans.reserve(0, 200)
    assert spans.wrote(Span(0, 200)) == [0, 1]
    spans.refuse(1)
    assert _take(spans, 0) == Span(100, 200)
    spans.reserve(0, 100)
    assert spans.wrote(Span(100, 200)) == [1]


def test_bytes_that_could_not_be_written_are_missing_again() -> None:
    spans = _spans(2)
    _take(spans, 0)
    spans.reserve(0, 50)
    spans.lost(Span(0, 50))
    spans.give_back(0)
    assert _take(spans, 0) == Span(0, 200)


def test_an_idle_lane_takes_the_far_half_of_what_would_end_last() -> None:
    spans = _spans(40)
    _take(spans, 0)
    assert _take(spans, 1) == Span(2000, 4000)
    assert spans.stop_of(0) == 2000
    assert _take(spans, 2, rates={0: 1000, 1: 1000, 2: 3000}) == Span(500, 2000)


def test_help_that_did_not_come_leaves_the_lane_with_what_it_had() -> None:
    spans = _spans(40)
    _take(spans, 0)
    _take(spans, 1)
    assert spans.stop_of(0) == 2000
    spans.give_back(1)
    assert (spans.stop_of(0), spans.free_bytes) == (4000, 0)
    _take(spans, 1)
    spans.reserve(1, 100)
    spans.give_back(1)
    assert (spans.stop_of(0), spans.free_bytes) == (2000, 1900)


def test_help_that_is_over_before_it_begins_is_not_given() -> None:
    spans = _spans(40)
    _take(spans, 0)
    assert _take(spans, 1, rates={0: 1e6, 1: 1e6}) is None
    assert _take(spans, 1, rates={}) is None
    assert spans.stop_of(0) == 4000


def test_a_lane_that_is_far_too_slow_loses_all_that_it_has_left() -> None:
    spans = _spans(1)
    _take(spans, 0)
    spans.reserve(0, 10)
    assert _take(spans, 1, rates={0: 40.0, 1: 1000.0}) is None
    assert _take(spans, 1, rates={0: 1.0, 1: 1000.0}) == Span(10, 100)
    assert spans.reserve(0, 30) == 0, "bytes that come late are not written"


def test_a_lane_that_gets_everything_takes_what_is_missing_in_order() -> None:
    spans = _spans(missing=[1, 2, 5])
    _take(spans, 0)
    assert spans.take_from(0, 0) == Span(100, 300)
    assert spans.take_from(0, 250) == Span(250, 300)
    assert spans.take_from(0, 300) == Span(500, 600)
    assert spans.take_from(0, 600) is None
    assert spans.free_bytes == 300


@given(
    st.integers(1, 30),
    st.integers(1, 99),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["take", "read", "leave", "from"]), st.integers(0, 500))),
)
def test_whatever_lanes_do_every_byte_is_written_once(
    chunks: int, tail: int, steps: list[tuple[int, str, int]]
) -> None:
    size = (chunks - 1) * CHUNK + tail
    spans = Spans(size_bytes=size, chunk_bytes=CHUNK, missing=range(chunks))
    at: dict[int, int] = {}
    written = bytearray(size)
    complete: list[int] = []

    def read(lane: int, count: int) -> None:
        own = spans.reserve(lane, count)
        written[at[lane] : at[lane] + own] = bytes(b + 1 for b in written[at[lane] : at[lane] + own])
        complete.extend(spans.wrote(Span(at[lane], at[lane] + own)))
        at[lane] += own

    for lane, what, number in steps:
        span = None
        if what == "take":
            span = _take(spans, lane, lanes=3, rates={0: 1.0, 1: 50.0, 2: 100.0})
        elif what == "from":
            span = spans.take_from(lane, number)
        elif what == "leave":
            spans.give_back(lane)
        elif lane in at:
            read(lane, number)
            continue
        at.pop(lane, None)
        if span:
            at[lane] = span.start
    for lane in range(4):
        spans.give_back(lane)
    while span := _take(spans, 0):
        at[0] = span.start
        read(0, size)
    assert written == b"\x01" * size
    assert sorted(complete) == list(range(chunks))
