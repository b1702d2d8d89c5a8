"""When a download tries again."""

import pytest

from overair.core.retry import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    LONGEST_RETRY_AFTER_S,
    MAX_FAILURES,
    pause_s,
    worth_retrying,
)
from overair.errors import (
    CancelledError,
    HTTPStatusError,
    IntegrityError,
    NetworkError,
    NoSpaceError,
    OverairError,
    UsageError,
)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_statuses_that_pass_are_worth_retrying(status: int) -> None:
    assert worth_retrying(HTTPStatusError("x", status=status))


@pytest.mark.parametrize("status", [206, 304, 400, 401, 403, 404, 410, 416])
def test_statuses_that_stay_are_not(status: int) -> None:
    assert not worth_retrying(HTTPStatusError("x", status=status))


def test_a_cut_connection_is_worth_retrying() -> None:
    assert worth_retrying(NetworkError("cut"))


@pytest.mark.parametrize("error", [CancelledError("x"), IntegrityError("x"), NoSpaceError("x"), UsageError("x")])
def test_what_the_network_did_not_cause_is_not(error: OverairError) -> None:
    assert not worth_retrying(error)


def test_pauses_double_up_to_the_longest_and_then_end() -> None:
    longest = [pause_s(failures, 1.0) for failures in range(1, MAX_FAILURES + 2)]
    assert longest == [FIRST_PAUSE_S, 2.0, 4.0, 8.0, 16.0, None, None]
    assert all(pause is None or pause <= LONGEST_PAUSE_S for pause in longest)


def test_chance_spreads_a_pause_from_nothing_to_the_whole() -> None:
    assert [pause_s(3, chance) for chance in (0.0, 0.25, 1.0)] == [0.0, 1.0, 4.0]


def test_the_server_may_ask_for_more_patience_but_not_for_ever() -> None:
    assert pause_s(1, 1.0, retry_after_s=42.0) == 42.0
    assert pause_s(5, 1.0, retry_after_s=2.0) == 16.0
    assert pause_s(1, 0.0, retry_after_s=86_400.0) == LONGEST_RETRY_AFTER_S
    assert pause_s(MAX_FAILURES, 0.0, retry_after_s=1.0) is None
