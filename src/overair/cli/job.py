"""`overair device progress`, `pause`, `resume`, `cancel`, and `update --background`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from overair.cli import output
from overair.cli.options import Json, StoreDir
from overair.errors import IllegalEventError

if TYPE_CHECKING:
    from overair.device.background import Job
    from overair.model.conditions import Conditions
    from overair.model.job import JobStatus

_FOLLOW_S: Final = 0.25


def update_in_background(store: Path, conditions: "Conditions", folder: Path | None, *, as_json: bool) -> None:
    """What `overair device update --background` does once the store is known to be set up."""
    from overair.device import background

    running = background.find(store)
    if running is not None and not running.progress().state.is_end:
        output.note("an update runs already, with the conditions that it was started with")
        output.note("hint: to start it with others, end it first with: overair device cancel")
    status = background.start(store, conditions=conditions, folder=folder).progress()
    watch = f"overair device progress --store {store} --follow"
    lines = [f"process {status.pid} goes on in the background", f"  watch it with: {watch}"]
    output.result(status, lines, as_json=as_json)


def progress(
    store: StoreDir,
    follow: Annotated[bool, typer.Option("--follow", help="Stay until it has ended.")] = False,
    as_json: Json = False,
) -> None:
    """Show how far the update in the background is, or how it ended."""
    job = _job(store)
    status = _follow(job) if follow else job.progress()
    _show(status, as_json=as_json)
    if follow and status.exit_code:
        raise typer.Exit(status.exit_code)


def pause(store: StoreDir, as_json: Json = False) -> None:
    """Let the update in the background leave the network alone; what came is kept."""
    _show(_job(store).pause(), as_json=as_json)


def resume(store: StoreDir, as_json: Json = False) -> None:
    """Let the update in the background go on after a pause."""
    _show(_job(store).resume(), as_json=as_json)


def cancel(store: StoreDir, as_json: Json = False) -> None:
    """End the update in the background; what came is kept."""
    _show(_job(store).cancel(), as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add the commands to `overair device`."""
    for command in (progress, pause, resume, cancel):
        app.command(epilog=f"Example: overair device {command.__name__} --store dev")(command)


def _job(store: Path) -> "Job":
    from overair.device import background

    job = background.find(store.absolute())
    if job is None:
        raise IllegalEventError(
            f"no update ever ran in the background of {store}",
            hint="start one with: overair device update --background",
        )
    return job


def _follow(job: "Job") -> "JobStatus":
    line = output.ProgressLine()
    try:
        while not (status := job.wait(_FOLLOW_S)).state.is_end:
            if status.progress is not None:
                line(status.progress)
    finally:
        line.close()
    return status


def _show(status: "JobStatus", *, as_json: bool) -> None:
    lines = [f"{status.state}{f' {status.version}' if status.version else ''}"]
    progress = status.progress
    if progress is not None and not status.state.is_end:
        rate, left = progress.bytes_per_second, progress.seconds_left
        done = f"{output.size(progress.bytes_done)} of {output.size(progress.bytes_total)}"
        done += f", {output.size(rate)}/s" if rate else ""
        lines.append(f"  fetched   {done}{f', {output.duration(left)} left' if left is not None else ''}")
    lines += [f"  {status.message}"] if status.message else []
    lines += [f"  hint: {status.hint}"] if status.hint else []
    output.result(status, lines, as_json=as_json)
