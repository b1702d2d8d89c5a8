"""A download over one stream from one place, in a call."""

from pathlib import Path
from typing import Any

from overair.transport.download import StreamDownload
from overair.transport.pace import Pace
from overair.transport.source import Source


def download(
    http: Source, url: str, *, cancel: Any = None, max_bytes_per_second: int | None = None, **options: Any
) -> Path:
    """Fetch a file; the other options are those of `StreamDownload`."""
    clock = {"clock": options["clock"]} if "clock" in options else {}
    pace = Pace(max_bytes_per_second, *clock.values())
    return StreamDownload(http, urls=[url], pace=pace, **options).run(cancel)
