"""What the command line prints: results on standard output, everything else on standard error."""

import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from overair.errors import OverairError
from overair.model.progress import Activity, Progress

_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


def result(data: object, lines: Iterable[str], *, as_json: bool) -> None:
    """Print the outcome of a command: one JSON object, or lines for people."""
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(data), indent=2).decode() + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def note(line: str) -> None:
    """Say something on the way."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def failure(error: OverairError, *, as_json: bool) -> None:
    """Print an error: what is wrong in one line, and what to do in another."""
    if as_json:
        body = {"error": type(error).__name__, "message": error.message, "hint": error.hint, "code": error.exit_code}
        result(body, (), as_json=True)
    note(f"error: {_one_line(error.message)}")
    if error.hint:
        note(f"hint: {_one_line(error.hint)}")


def size(count: float) -> str:
    """A number of bytes for people, in decimal units."""
    for unit in _UNITS:
        if abs(count) < 999.5 or unit == _UNITS[-1]:
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.1f} {unit}"


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def table(title: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Draw a table on standard output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawing = Table(title=title or None, title_justify="left", show_header=any(headers))
    for number, header in enumerate(headers):
        drawing.add_column(header, overflow="fold", no_wrap=number == 0)
    for row in rows:
        drawing.add_row(*(Text(cell) for cell in row))
    Console(file=sys.stdout, highlight=False).print(drawing)


class ProgressLine:
    """How far a download or a copy is: one line rewritten in place on a terminal, a line now and then elsewhere."""

    every_s: Final = 5.0

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()
        self._live = sys.stderr.isatty()
        self._activity = Activity.DOWNLOADING

    def __call__(self, progress: Progress) -> None:
        """Show progress of an update; that it does something else now is said at once."""
        rate, left = progress.bytes_per_second, progress.seconds_left
        extra = f", {size(rate)}/s" if rate else ""
        extra += f", {duration(left)} left" if left is not None else ""
        name, is_news = progress.name, progress.activity is not self._activity
        self._activity = progress.activity
        if progress.waiting_for:
            extra = f", waiting: {_plain('; '.join(progress.waiting_for))}"
        elif progress.activity is not Activity.DOWNLOADING:
            name = f"{progress.activity} {name}"
        self._show(name, progress.bytes_done, progress.bytes_total, extra, at_once=is_news)

    def copying(self, done: int, total: int) -> None:
        """Show progress of a copy."""
        elapsed = time.monotonic() - self._started
        self._show("copying", done, total, f", {size(done / elapsed)}/s" if elapsed > 0.5 else "")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _show(self, name: str, done: int, total: int, extra: str, *, at_once: bool = False) -> None:
        share = done / total if total else 1.0
        text = f"{_plain(name)}  {share:4.0%}  {size(done)} of {size(total)}{extra}"
        now = time.monotonic()
        if self._live:
            bar = "#" * round(share * 24)
            width = shutil.get_terminal_size().columns - 1  # a line that wraps cannot be rewritten
            sys.stderr.write("\r\x1b[K" + f"[{bar:<24}] {text}"[:width])
            sys.stderr.flush()
        elif at_once or now - self._last >= self.every_s:
            self._last = now
            note(text)


def _one_line(text: str) -> str:
    return _plain(" ".join(text.split()))


def _plain(text: str) -> str:
    """The text without what a terminal would act on: names and notes come from elsewhere."""
    return "".join(c if c.isprintable() else " " for c in text)
