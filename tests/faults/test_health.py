"""The table of `benchmarks/health.py` says what happened: it can say "missed" and "false alarm" as well."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp")
pytest.importorskip("resource", reason="the engines of the benchmark limit their memory by it")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def cells() -> Callable[[str, bool], tuple[str, ...]]:
    """What the table says of an engine of the tests, and of an app around it that crashes for its own reasons."""

    def found(engine: str, good: bool) -> tuple[str, ...]:
        from health import Row, probed
        from health_parts.cases import SHORT, App, Case, breaks, tiny
        from health_parts.trial import on_trial

        app = App(answers=1, crashes=True, timeout_s=20.0)
        case = Case(engine, tiny, engine=breaks(engine), limits=SHORT, app=app)
        row = Row(case, probed(case), on_trial(case))
        return replace(row, case=replace(case, good=good)).cells[1:5]

    return found


def test_a_crash_is_caught_before_and_on_trial(cells: Callable[[str, bool], tuple[str, ...]]) -> None:
    assert cells("SegfaultsAtLoad", False) == ("yes", "yes, after 2 starts", "no", "-")


def test_what_nothing_finds_is_called_missed(cells: Callable[[str, bool], tuple[str, ...]]) -> None:
    assert cells("Good", False) == ("no", "no", "**missed**", "-")


def test_a_good_model_that_is_taken_back_is_called_a_false_alarm(
    cells: Callable[[str, bool], tuple[str, ...]],
) -> None:
    assert cells("Good", True) == ("-", "stays, 3 starts", "-", "no")
    assert cells("SegfaultsAtFirstAnswer", True) == ("-", "goes back, 2 starts", "-", "**yes**")
