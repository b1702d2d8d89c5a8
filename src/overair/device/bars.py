"""Progress for programs that draw it with tqdm, or with what looks like it."""

from collections.abc import Callable
from typing import Protocol

from overair.model.progress import Activity, Progress


class Bar(Protocol):
    """What a progress bar has to have; `tqdm.tqdm` does."""

    n: float
    total: float | None
    initial: float

    def update(self, n: float = 1) -> object:
        """Move on by so many units."""

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> object:
        """Show a text behind the bar."""


def tqdm_progress(bar: Bar) -> Callable[[Progress], None]:
    """Show an update on a bar: `updater.update(on_progress=tqdm_progress(bar))`.

    One bar stands for all files of a release; it never goes backwards. Bytes that an earlier try brought do not count
    for the rate that it shows. Make it with `tqdm(unit="B", unit_scale=True)`.
    """
    is_new = True

    def show(progress: Progress) -> None:
        nonlocal is_new
        if is_new:
            is_new, bar.initial, bar.n = False, progress.bytes_done, progress.bytes_done
        bar.total = progress.bytes_total
        bar.set_postfix_str(_postfix(progress), refresh=False)
        bar.update(max(0, progress.bytes_done - bar.n))

    return show


def _postfix(progress: Progress) -> str:
    if progress.waiting_for:
        return f"{progress.activity}: {'; '.join(progress.waiting_for)}"
    return progress.name if progress.activity is Activity.DOWNLOADING else f"{progress.activity} {progress.name}"
