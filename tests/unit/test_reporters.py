"""Reports: what is told, to whom, how often, and that none of it matters to the device."""

import itertools
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from overair.core.reports import reportable
from overair.device import http_reporter
from overair.device.http_reporter import HTTPReporter
from overair.device.reporters import JSONLinesReporter, LoggingReporter, OpenTelemetryReporter, Reporter
from overair.device.session import Session
from overair.errors import EngineError, UsageError
from overair.model.events import Cause, Event, Happening
from overair.store import history
from overair.store.store import Store
from support.devices import SUPPORT, new_store, staged
from support.engines import ScriptedEngine
from support.receiver import Receiver, dead_url, receiver
from support.states import AT, digest_of

FIELDS = {"tier": "1b", "version": "2.0.0", "release_id": digest_of("2.0.0"), "at": AT}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path / "store")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with receiver() as taken:
        yield taken


def event(what: Happening = Happening.SWAPPED, reason: str = "", cause: Cause | None = None) -> Event:
    return Event(what=what, reason=reason, cause=cause, **FIELDS)  # type: ignore[arg-type]  # texts, all of them


def use(store: Store, *reporters: Reporter, prompt: str = "hi") -> None:
    with Session(store, ScriptedEngine(), app_version="3.0.0", reporters=reporters) as session:
        session.generate(prompt)


def told(store: Store) -> list[str]:
    return [event.id for event in history.read(store.layout.history)]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- what is told -----------------------------------------------------------------------------------------------------


def test_every_event_has_a_name_and_the_versions_under_which_it_happened(store: Store) -> None:
    staged(store, "1.0.0")
    use(store)
    events = history.read(store.layout.history)
    assert [e.what for e in events] == ["staged", "swapped", "confirmed"]
    assert len({e.id for e in events}) == 3
    assert [(e.app_version, e.engine, e.sha256 == e.release_id) for e in events[1:]] == [
        ("3.0.0", "scripted 1", True)
    ] * 2


def test_lines_from_before_there_were_names_are_read(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"what":"confirmed","tier":"1b","version":"1.0.0","release_id":"' + digest_of("a") + '"}\n')
    (old,) = history.read(path)
    assert (old.what, old.id, old.figures) == (Happening.CONFIRMED, "", {})


@pytest.mark.parametrize("cause", [None, *Cause])
def test_words_of_a_user_or_a_model_are_not_told(cause: Cause | None) -> None:
    """Which causes carry words that are not ours is a list of its own here: a new cause must be thought about."""
    theirs = {Cause.PROBE, Cause.ANSWER, Cause.OBSERVED, Cause.APP, Cause.BY_HAND}
    assert reportable(event(reason="the words", cause=cause)).reason == ("" if cause in theirs else "the words")
    assert reportable(event(cause=cause)).cause is cause


def test_no_prompt_and_no_answer_is_in_any_report(store: Store, server: Receiver, tmp_path: Path) -> None:
    class Telltale(ScriptedEngine):
        def generate(self, prompt: str, *, max_tokens: int = 128) -> str:
            raise EngineError(f"cannot answer {prompt!r} in {max_tokens}: the answer was SECRET-ANSWER")

    staged(store, "1.0.0")
    use(store)
    lines = tmp_path / "events.jsonl"
    reporter = HTTPReporter(server.url, store.layout.root)
    reporters = (reporter, JSONLinesReporter(lines))
    staged(store, "2.0.0")
    with Session(store, Telltale(), reporters=reporters) as session:
        for _ in range(2):
            with pytest.raises(EngineError):
                session.generate("SECRET-PROMPT")
    staged(store, "3.0.0")
    with Session(store, None, reporters=reporters) as session:
        with pytest.raises(ValueError, match="SECRET"), session.observe():
            raise ValueError("SECRET-PROMPT")
        session.fail("SECRET-ANSWER")
    reporter.close()
    assert b"SECRET" not in b"".join(server.raw) + lines.read_bytes()
    assert {e["what"] for e in server.events()} >= {"failed", "rolled-back", "quarantined"}
    assert {e.get("cause") for e in server.events()} >= {"answer", "observed", "app"}
    assert "SECRET" in store.layout.history.read_text(), "the device itself keeps why"


# --- where to ---------------------------------------------------------------------------------------------------------


def test_a_file_takes_one_event_a_line_and_stays_bounded(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reporter = JSONLinesReporter(path, max_bytes=2_000)
    for _ in range(50):
        reporter.report(event())
    assert path.stat().st_size <= 2_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["events.jsonl", "events.jsonl.old"]
    assert {json.loads(line)["what"] for line in path.read_text().splitlines()} == {"swapped"}


def test_the_log_takes_the_bad_ones_as_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reporter = LoggingReporter()
    reporter.report(event())
    reporter.report(event(Happening.QUARANTINED, "no tries left", Cause.CRASH))
    assert [(r.name, r.levelname) for r in caplog.records] == [
        ("overair.events", "INFO"),
        ("overair.events", "WARNING"),
    ]
    assert caplog.messages == ["swapped 2.0.0: ", "quarantined 2.0.0: no tries left"]
    assert caplog.records[1].__dict__["event"]["cause"] == "crash"


def test_without_opentelemetry_that_is_said() -> None:
    with pytest.raises(UsageError, match="not installed") as caught:
        OpenTelemetryReporter()
    assert "opentelemetry-api" in caught.value.hint


FAKE = """
spans = []
class Span:
    def end(self, end_time=None): self.row["end"] = end_time
class Tracer:
    def start_span(self, name, *, attributes, start_time):
        span = Span(); span.row = {"name": name, "attributes": attributes, "start": start_time}; spans.append(span.row)
        return span
def get_tracer(name): return Tracer()
"""


def test_opentelemetry_gets_a_span_for_each_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry is not installed here: this package stands in for the three calls of its interface that we use."""
    package = tmp_path / "opentelemetry"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "trace.py").write_text(FAKE)
    monkeypatch.syspath_prepend(str(tmp_path))
    probed = msgspec.structs.replace(event(Happening.PROBED), figures={"tokens_per_second": 2.5})
    OpenTelemetryReporter().report(probed)
    (row,) = sys.modules["opentelemetry.trace"].spans
    assert row["name"] == "overair.probed"
    assert row["start"] == row["end"] == 1_795_428_000 * 10**9
    assert row["attributes"]["overair.version"] == "2.0.0"
    assert row["attributes"]["overair.figures.tokens_per_second"] == 2.5
    assert all(isinstance(value, str | float) for value in row["attributes"].values())


class Broken:
    def report(self, event: Event) -> None:
        raise RuntimeError(f"no room for {event.what}")


def test_a_reporter_that_raises_changes_nothing(store: Store, tmp_path: Path) -> None:
    lines = tmp_path / "no such folder" / "events.jsonl"
    staged(store, "1.0.0")
    use(store, Broken(), JSONLinesReporter(lines))
    current = store.read().current
    assert current is not None
    assert current.proven


# --- to a server ------------------------------------------------------------------------------------------------------


def test_a_server_is_told_of_everything_once(store: Store, server: Receiver) -> None:
    staged(store, "1.0.0")  # by another process, as it were: nobody reported that
    reporter = HTTPReporter(server.url, store.layout.root, headers={"Authorization": "Bearer t"})
    use(store, reporter)
    wait_until(lambda: len(server.events()) == 3)
    staged(store, "2.0.0")
    use(store, reporter)
    reporter.close()
    assert [e["id"] for e in server.events()] == told(store)
    assert server.headers[0]["Authorization"] == "Bearer t"
    again = HTTPReporter(server.url, store.layout.root)
    again.report(event())
    again.close()
    assert [e["id"] for e in server.events()] == told(store), "told twice by another process"


def test_another_server_is_told_for_itself(store: Store, server: Receiver) -> None:
    staged(store, "1.0.0")
    reporters = [HTTPReporter(f"{server.url}/{n}", store.layout.root) for n in range(2)]
    for reporter in reporters:
        reporter.report(event())
        reporter.close()
    assert [e["id"] for e in server.events()] == told(store) * 2


@pytest.mark.parametrize("way", ["500", "502", "garbage", "cut"])
def test_what_a_server_may_have_taken_is_not_told_again(store: Store, server: Receiver, way: str) -> None:
    server.ways = [way, "200"]
    staged(store, "1.0.0")
    reporter = HTTPReporter(server.url, store.layout.root)
    use(store, reporter)
    wait_until(lambda: [e["id"] for e in server.events()] == told(store))
    staged(store, "2.0.0")
    use(store, reporter)
    reporter.close()
    assert [e["id"] for e in server.events()] == told(store)


@pytest.mark.parametrize("way", ["503", "429", "302", "404"])
def test_what_a_server_surely_has_not_taken_is_told_again(store: Store, server: Receiver, way: str) -> None:
    server.ways = [way, "200"]
    staged(store, "1.0.0")
    reporter = HTTPReporter(server.url, store.layout.root)
    reporter.report(event())
    wait_until(lambda: len(server.bodies) == 2)
    reporter.close()
    assert server.bodies[0] == server.bodies[1]
    assert [e["id"] for e in server.bodies[1]["events"]] == told(store)


def test_a_server_that_is_away_is_told_when_it_is_back_and_nobody_waits_for_it(store: Store, server: Receiver) -> None:
    away = HTTPReporter(dead_url(), store.layout.root)
    staged(store, "1.0.0")
    started = time.monotonic()
    use(store, away)
    assert time.monotonic() - started < 2
    away.close()
    assert time.monotonic() - started < 2 + http_reporter.EXIT_S
    assert store.read().current is not None
    here = HTTPReporter(server.url, store.layout.root)
    here.report(event())
    here.close()
    assert [e["id"] for e in server.events()] == told(store)


def test_a_server_that_stalls_holds_up_neither_the_session_nor_the_end(
    store: Store, server: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_reporter, "EXIT_S", 0.2)
    server.ways = ["stall"]
    staged(store, "1.0.0")
    reporter = HTTPReporter(server.url, store.layout.root)
    started = time.monotonic()
    use(store, reporter)
    reporter.close()
    assert time.monotonic() - started < 2
    current = store.read().current
    assert current is not None
    assert current.proven


def test_a_process_that_dies_while_it_reports_does_not_report_twice(store: Store, server: Receiver) -> None:
    """The server has it and the process never learned that."""
    staged(store, "1.0.0")
    server.ways = ["stall", "200"]
    program = (
        "import sys, time; from overair.device.http_reporter import HTTPReporter; "
        "r = HTTPReporter(sys.argv[1], sys.argv[2]); r.report(None); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, server.url, str(store.layout.root)])
    wait_until(lambda: len(server.bodies) == 1)
    child.kill()
    child.wait(timeout=30)
    staged(store, "2.0.0")
    reporter = HTTPReporter(server.url, store.layout.root)
    reporter.report(event())
    reporter.close()
    assert [e["id"] for e in server.events()] == told(store)


def test_a_program_that_ends_at_once_still_reports(store: Store, server: Receiver) -> None:
    staged(store, "1.0.0")
    program = (
        "import sys; from overair.device.http_reporter import HTTPReporter; "
        "HTTPReporter(sys.argv[1], sys.argv[2]).report(None)"
    )
    command = [sys.executable, "-c", program, server.url, str(store.layout.root)]
    subprocess.run(command, check=True, timeout=30, env=os.environ | {"PYTHONPATH": str(SUPPORT.parent)})
    assert [e["id"] for e in server.events()] == told(store)


def test_many_events_come_in_batches(store: Store, server: Receiver) -> None:
    history.append(store.layout.history, itertools.repeat(event(), 250))
    reporter = HTTPReporter(server.url, store.layout.root)
    reporter.report(event())
    wait_until(lambda: len(server.bodies) == 3)
    reporter.close()
    assert [len(body["events"]) for body in server.bodies] == [100, 100, 50]
    assert [e["id"] for e in server.events()] == told(store)


def test_a_mark_that_is_lost_to_age_or_damage_repeats_nothing(store: Store, server: Receiver) -> None:
    history.append(store.layout.history, [event()])
    for spoilt in (b"nonsense", b'{"id":"gone","at":"' + AT.encode() + b'"}'):
        reporter = HTTPReporter(server.url, store.layout.root)
        reporter.report(event())
        reporter.close()
        (mark,) = store.layout.root.glob("reported-*.json")
        mark.write_bytes(spoilt)
    later = msgspec.structs.replace(event(), at="2026-11-23T10:00:01Z")
    history.append(store.layout.history, [later])
    reporter = HTTPReporter(server.url, store.layout.root)
    reporter.report(event())
    reporter.close()
    assert [e["id"] for e in server.events()] == told(store)


@pytest.mark.parametrize(
    "url", ["", "ftp://example.com/x", "https://user:secret@example.com/x", "https://", "http://h:x/"]
)
def test_what_is_not_a_url_to_report_to_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        HTTPReporter(url, tmp_path)
