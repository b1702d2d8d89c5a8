"""Who is told of every transition of a device. A report that fails changes nothing, and is not worth an error.

What a reporter is given holds no prompt and no generated text (`overair.core.reports`).
"""

import importlib
import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from overair.core.reports import reportable
from overair.errors import UsageError
from overair.model.events import Event, Happening
from overair.store import history

DEFAULT_MAX_BYTES: Final = 1_000_000

_LOG: Final = logging.getLogger("overair")
_BAD: Final = frozenset(
    {Happening.FAILED, Happening.CRASHED, Happening.QUARANTINED, Happening.REFUSED, Happening.ROLLED_BACK}
)


class Reporter(Protocol):
    """Takes what happened, one event at a time, in the thread that caused it: it should return at once."""

    def report(self, event: Event) -> None:
        """Take one event. Whatever this raises is logged and forgotten."""


def pass_on(reporters: Sequence[Reporter], events: Sequence[Event]) -> None:
    """Give events to reporters, as far as they may leave the device. Raises nothing."""
    for event in events:
        for reporter in reporters:
            try:
                reporter.report(reportable(event))
            except Exception as error:  # noqa: BLE001 - a report that fails changes nothing, whoever wrote the reporter
                _LOG.info("not reported by %s: %r", type(reporter).__name__, error)


class JSONLinesReporter:
    """Appends each event to a file, one JSON object a line. A full file becomes `.old`, in the place of an older one.

    Args:
        path: The file.
        max_bytes: How long it may become.
    """

    def __init__(self, path: str | Path, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._path = Path(path)
        self._max_bytes = max_bytes

    def report(self, event: Event) -> None:
        """See `Reporter.report`."""
        history.append(self._path, [event], max_bytes=self._max_bytes)


class LoggingReporter:
    """Logs each event: what went wrong as a warning, the rest as information, with its fields in `record.event`.

    Args:
        logger: Where to; `overair.events` unless told otherwise.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("overair.events")

    def report(self, event: Event) -> None:
        """See `Reporter.report`."""
        level = logging.WARNING if event.what in _BAD else logging.INFO
        extra = {"event": msgspec.to_builtins(event)}
        self._logger.log(level, "%s %s: %s", event.what, event.version, event.reason or event.cause or "", extra=extra)


class OpenTelemetryReporter:
    """Makes each event a span without length, named `overair.` and what happened, by the tracer of this process.

    Raises:
        UsageError: OpenTelemetry is not installed.
    """

    def __init__(self) -> None:
        try:
            trace: Any = importlib.import_module("opentelemetry.trace")
        except ImportError as error:
            raise UsageError("OpenTelemetry is not installed", hint="pip install opentelemetry-api") from error
        self._tracer = trace.get_tracer("overair")

    def report(self, event: Event) -> None:
        """See `Reporter.report`."""
        fields: dict[str, Any] = msgspec.to_builtins(event)
        figures = fields.pop("figures", {})
        attributes = {f"overair.{name}": value for name, value in fields.items() if value is not None}
        attributes |= {f"overair.figures.{name}": value for name, value in figures.items()}
        at = None if event.at is None else int(datetime.fromisoformat(event.at).timestamp()) * 1_000_000_000
        self._tracer.start_span(f"overair.{event.what}", attributes=attributes, start_time=at).end(end_time=at)
