"""Progress on a real tqdm bar."""

import io

from tqdm import tqdm

from overair.device.bars import tqdm_progress
from overair.model.progress import Activity, Progress


def at(done: int, total: int = 1000, activity: Activity = Activity.DOWNLOADING, *waiting_for: str) -> Progress:
    return Progress(
        name="model.gguf", bytes_done=done, bytes_total=total, activity=activity, waiting_for=tuple(waiting_for)
    )


def test_a_bar_shows_the_bytes_and_never_goes_backwards() -> None:
    with tqdm(unit="B", unit_scale=True, file=io.StringIO(), mininterval=0) as bar:
        show = tqdm_progress(bar)
        shown = []
        for done in (100, 400, 350, 400, 1000):
            show(at(done))
            shown.append(bar.n)
    assert shown == [100, 400, 400, 400, 1000]
    assert bar.total == 1000


def test_bytes_of_an_earlier_try_do_not_count_for_the_rate() -> None:
    with tqdm(unit="B", file=io.StringIO(), mininterval=0) as bar:
        show = tqdm_progress(bar)
        show(at(900))
        show(at(910))
        assert bar.format_dict["initial"] == 900
        assert bar.format_dict["n"] - bar.format_dict["initial"] == 10


def test_a_bar_says_what_is_done_and_what_is_waited_for() -> None:
    drawn = io.StringIO()
    with tqdm(unit="B", file=drawn, mininterval=0, ncols=200) as bar:
        show = tqdm_progress(bar)
        show(at(0))
        assert bar.postfix == "model.gguf"
        show(at(0, 1000, Activity.WAITING, "the network is metered", "the battery has 12%"))
        assert bar.postfix == "waiting: the network is metered; the battery has 12%"
        show(at(1000, 1000, Activity.VERIFYING))
        assert bar.postfix == "verifying model.gguf"
    assert "verifying model.gguf" in drawn.getvalue()
    assert "100%" in drawn.getvalue()
