"""`overair device agent`: the update as a service."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from overair.cli import output
from overair.cli.conditions import (
    AnyNetwork,
    Between,
    Charging,
    Idle,
    MaxRate,
    MinBattery,
    MinFree,
    UnknownNetwork,
    conditions,
)
from overair.cli.options import Json, StoreDir
from overair.cli.quantities import seconds
from overair.errors import CancelledError, DeferredError, UsageError

if TYPE_CHECKING:
    from overair.device.attempt import Outcome

SHORTEST_INTERVAL_S: Final = 60


def agent(
    context: typer.Context,
    store: StoreDir,
    interval: Annotated[
        str | None, typer.Option("--interval", metavar="TIME", help="How often to check, as 6h; else as published.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Check once and end, for a timer.")] = False,
    print_unit: Annotated[
        bool, typer.Option("--print-unit", help="Print a systemd unit for this command, and end.")
    ] = False,
    any_network: AnyNetwork = False,
    unknown_network: UnknownNetwork = False,
    charging: Charging = False,
    min_battery: MinBattery = None,
    idle: Idle = False,
    between: Between = None,
    min_free: MinFree = None,
    max_rate: MaxRate = None,
    as_json: Json = False,
) -> None:
    """Run as a service: check at an interval, and download what is offered when the conditions hold."""
    wanted = conditions(
        any_network=any_network,
        unknown_network=unknown_network,
        charging=charging,
        min_battery=min_battery,
        idle=idle,
        between=between,
        min_free=min_free,
        max_rate=max_rate,
    )
    interval_s = None if interval is None else seconds(interval)
    if interval_s is not None and interval_s < SHORTEST_INTERVAL_S:
        raise UsageError(f"an interval of {interval} is too short", hint="an agent checks once a minute at most")
    if print_unit:
        _print_unit(store.absolute(), context.params, as_json=as_json)
        return

    from overair.device.agent import Agent
    from overair.device.updater import Updater

    stop = threading.Event()
    _stop_by_signal(stop)
    logging.getLogger("overair").setLevel(logging.INFO)
    with Updater(store) as updater:
        service = Agent(updater, conditions=wanted, interval_s=interval_s)
        if once:
            try:
                _show(service.once(stop), as_json=as_json)
            except CancelledError:
                if not stop.is_set():
                    raise
                output.result({"stopped": True}, ["stopped; what came is kept"], as_json=as_json)
            return
        output.note(f"keeping {updater.path} current")
        service.run(stop)
    output.result({"stopped": True}, ["stopped; what came is kept"], as_json=as_json)
    if threading.active_count() > 1:
        # A thread that waits for a server would keep the process; all that it does survives a kill.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)


def register(app: typer.Typer) -> None:
    """Add the command to `overair device`."""
    app.command(epilog="Example: overair device agent --store dev --interval 6h --between 01:00-05:00")(agent)


def _stop_by_signal(stop: threading.Event) -> None:
    def obey(_number: int, _frame: object) -> None:
        # By a thread: the main thread may be inside the very event, whose lock it cannot take twice.
        threading.Thread(target=stop.set, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, obey)


def _show(outcome: "Outcome", *, as_json: bool) -> None:
    from overair.model.offer import Deferred
    from overair.model.report import Staged

    if isinstance(outcome, Staged):
        version = outcome.release.version
        output.result({"staged": version}, [f"staged {version}; the next session starts it"], as_json=as_json)
        return
    data = {"staged": None, "reason": outcome.reason, "explanation": outcome.explanation}
    word = "deferred" if isinstance(outcome, Deferred) else "nothing to do"
    output.result(data, [f"{word}: {outcome.explanation}"], as_json=as_json)
    if isinstance(outcome, Deferred):
        raise typer.Exit(DeferredError.exit_code)


def _print_unit(store: Path, options: Mapping[str, object], *, as_json: bool) -> None:
    from overair.device import systemd

    command = [sys.executable, "-m", "overair", "device", "agent", "--store", str(store)]
    for name, value in options.items():
        if name in {"store", "print_unit", "once", "as_json"} or value is None or value is False:
            continue
        option = f"--{name.replace('_', '-')}"
        command += [option] if value is True else [option, str(value)]
    text = systemd.unit(store, command, user=_owner(store))
    output.result({"unit": text}, text.splitlines(), as_json=as_json)


def _owner(store: Path) -> str:
    """Who owns the store, or will."""
    try:
        return store.owner()
    except (OSError, KeyError, NotImplementedError):
        import getpass

        return getpass.getuser()
