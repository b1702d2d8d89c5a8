"""`overair device`: the device's commands."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overair.cli import agent, job, output
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
from overair.errors import DeferredError, IntegrityError

if TYPE_CHECKING:
    from overair.device.updater import Updater
    from overair.model.report import SlotStatus, Status

app = typer.Typer(help="Keep the model on this device current.", no_args_is_help=True)

Engine = Annotated[str, typer.Option("--engine", metavar="ENGINE", help="xllamacpp, llama_cpp or llama_server.")]


@contextmanager
def _open(store: Path, **settings: Any) -> "Iterator[Updater]":
    from overair.device.updater import Updater

    with Updater(store, **settings) as updater:
        yield updater


@app.command(
    epilog="Example: overair device init --store dev --url https://models.example.com --root root.json --tier 1b"
)
def init(
    store: StoreDir,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Where the repository or its manifest is.")],
    tier: Annotated[str, typer.Option("--tier", metavar="TIER", help="The size class that this device runs.")],
    root: Annotated[
        Path | None, typer.Option("--root", metavar="FILE", help="The publisher's root.json: what this device trusts.")
    ] = None,
    channel: Annotated[str, typer.Option("--channel", help="The stream of releases to follow.")] = "stable",
    app_version: Annotated[
        str | None, typer.Option("--app-version", metavar="VERSION", help="The version of the app around the model.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", metavar="ENGINE", help="What the app runs; new models are probed with it.")
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option("--ca-file", metavar="FILE", help="Certificate authorities to trust, as PEM.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Take manifests that are not signed. For development only.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Set a device up, or change its settings; installed models stay."""
    settings = {"url": url, "tier": tier, "channel": channel, "app_version": app_version, "engine": engine}
    with _open(store, **settings, root=root, insecure=insecure, ca_file=ca_file) as updater:
        config = updater.config
        trusts = "anybody who controls that server" if config.insecure else "what the publisher's root vouches for"
        output.result(
            {
                "store": str(updater.path),
                "url": config.url,
                "tier": config.tier,
                "channel": config.channel,
                "insecure": config.insecure,
            },
            [f"{updater.path} follows tier {config.tier} of {config.channel} at {config.url}", f"  trusts    {trusts}"],
            as_json=as_json,
        )


@app.command(epilog="Example: overair device check --store dev --charging")
def check(
    store: StoreDir,
    any_network: AnyNetwork = False,
    unknown_network: UnknownNetwork = False,
    charging: Charging = False,
    min_battery: MinBattery = None,
    idle: Idle = False,
    between: Between = None,
    min_free: MinFree = None,
    as_json: Json = False,
) -> None:
    """Ask whether there is a model for this device, and why or why not; an offer says what it would wait for now."""
    from overair.model.offer import Deferred, Offer

    wanted = conditions(
        any_network=any_network,
        unknown_network=unknown_network,
        charging=charging,
        min_battery=min_battery,
        idle=idle,
        between=between,
        min_free=min_free,
    )
    with _open(store) as updater:
        answer = updater.check()
        offer = _offered(answer.release) if isinstance(answer, Offer) else None
        hint = answer.hint if isinstance(answer, Deferred) else ""
        data: dict[str, object] = {
            "offer": offer,
            "reason": answer.reason,
            "explanation": answer.explanation,
            "hint": hint,
        }
        word = "offer" if offer else "deferred" if isinstance(answer, Deferred) else "nothing to do"
        lines = [f"{word}: {answer.explanation}"]
        if isinstance(answer, Offer):
            plan = updater.plan(answer, conditions=wanted)
            data["bytes_to_fetch"] = plan.bytes_to_fetch
            data["blocked_by"] = plan.blocked_by
            lines.append(f"  to fetch  {output.size(plan.bytes_to_fetch)} of {output.size(answer.release.size_bytes)}")
            lines += [f"  notes     {answer.release.release_notes}"] if answer.release.release_notes else []
            lines += [f"  not yet   {reason}" for reason in plan.blocked_by]
        elif hint:
            lines.append(f"  hint: {hint}")
        output.result(data, lines, as_json=as_json)
    if isinstance(answer, Deferred):
        raise typer.Exit(DeferredError.exit_code)


@app.command(epilog="Example: overair device update --store dev --max-rate 2MB/s --background")
def update(
    store: StoreDir,
    any_network: AnyNetwork = False,
    unknown_network: UnknownNetwork = False,
    charging: Charging = False,
    min_battery: MinBattery = None,
    idle: Idle = False,
    between: Between = None,
    min_free: MinFree = None,
    max_rate: MaxRate = None,
    folder: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="A copy of the repository, as on a USB stick.")
    ] = None,
    background: Annotated[
        bool, typer.Option("--background", help="In another process, which goes on when this one has ended.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check, download, verify and stage; the next session starts the new model."""
    from overair.model.offer import Deferred
    from overair.model.report import Staged

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
    with _open(store) as updater:
        if background:
            job.update_in_background(updater.path, wanted, folder, as_json=as_json)
            return
        line = output.ProgressLine()
        try:
            answer = updater.update(conditions=wanted, on_progress=line, folder=folder)
        finally:
            line.close()
    if isinstance(answer, Staged):
        release = answer.release
        output.result(
            {"staged": _offered(release), "bytes_fetched": answer.bytes_fetched, "seconds": answer.seconds},
            [
                f"staged {release.version}; the next session starts it",
                f"  fetched   {output.size(answer.bytes_fetched)} in {output.duration(answer.seconds)}",
            ],
            as_json=as_json,
        )
        return
    data = {"staged": None, "reason": answer.reason, "explanation": answer.explanation}
    deferred = isinstance(answer, Deferred)
    word = "deferred" if deferred else "nothing to do"
    output.result(data, [f"{word}: {answer.explanation}"], as_json=as_json)
    if isinstance(answer, Deferred):
        if answer.hint:
            output.note(f"hint: {answer.hint}")
        raise typer.Exit(DeferredError.exit_code)


@app.command(epilog='Example: llama-server -m "$(overair device swap --store dev)"')
def swap(store: StoreDir, as_json: Json = False) -> None:
    """Make the pending model current and print the path to open, for an engine that you run yourself."""
    with _open(store) as updater:
        done = updater.swap()
    bundle = done.bundle
    data = {
        "version": bundle.version,
        "path": str(bundle.model),
        "adapters": [str(path) for path in bundle.adapters],
        "sha256": bundle.sha256,
        "session": done.session,
        "swapped": done.swapped,
    }
    output.result(data, [str(bundle.model)], as_json=as_json)


@app.command(epilog='Example: overair device run --store dev --engine xllamacpp --prompt "Hello"')
def run(
    store: StoreDir,
    prompt: Annotated[str, typer.Option("--prompt", metavar="TEXT", help="What to ask the model.")],
    engine: Engine = "xllamacpp",
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="The longest answer.")] = 128,
    as_json: Json = False,
) -> None:
    """Run one session: swap, load, answer, verdict."""
    with _open(store) as updater, updater.session(engine) as session:
        text = session.generate(prompt, max_tokens=max_tokens)
        bundle, happened = session.bundle, session.happened
    data = {
        "version": bundle.version,
        "path": str(bundle.model),
        "sha256": bundle.sha256,
        "text": text,
        "events": happened,
    }
    output.result(data, [text], as_json=as_json)


@app.command(epilog="Example: overair device confirm --store dev")
def confirm(store: StoreDir, as_json: Json = False) -> None:
    """Confirm that the model of the last `swap` does well."""
    with _open(store) as updater:
        updater.confirm()
        _show_status(updater.status(), as_json=as_json)


@app.command(epilog='Example: overair device rollback --store dev --reason "answers in the wrong language"')
def rollback(
    store: StoreDir,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why, for the history.")
    ] = "rolled back by hand",
    as_json: Json = False,
) -> None:
    """Return to the previous model and do not take the current one again."""
    with _open(store) as updater:
        _show_status(updater.rollback(reason=reason), as_json=as_json)


@app.command(epilog="Example: overair device status --store dev")
def status(store: StoreDir, as_json: Json = False) -> None:
    """Show which models are here, and what state they are in."""
    with _open(store) as updater:
        _show_status(updater.status(), as_json=as_json)


@app.command(epilog="Example: overair device history --store dev")
def history(store: StoreDir, as_json: Json = False) -> None:
    """Show what happened on this device, the oldest first."""
    with _open(store) as updater:
        events = updater.history()
    if as_json:
        output.result({"history": events}, (), as_json=True)
    elif not events:
        output.result(None, ["nothing has happened yet"], as_json=False)
    else:
        from overair.core.why import why_it_went_back

        rows = [(e.at or "", e.what, e.version, e.replaced or "", e.reason, _figures(e.figures)) for e in events]
        output.table("", ("when", "what", "version", "instead of", "why", "measured"), rows)
        why = why_it_went_back(events)
        output.result(None, ["why it went back:", *why.splitlines()] if why else [], as_json=False)


@app.command(epilog="Example: overair device verify --store dev --repair")
def verify(
    store: StoreDir,
    repair: Annotated[bool, typer.Option("--repair", help="Fetch what is damaged again.")] = False,
    as_json: Json = False,
) -> None:
    """Read every installed file and compare it with its digest."""
    with _open(store) as updater:
        found = updater.verify(repair=repair)
    lines = [f"{found.sound} sound", *(f"repaired: {text}" for text in found.repaired)]
    lines += [f"damaged: {text}" for text in found.damaged]
    output.result(found, lines, as_json=as_json)
    if found.damaged:
        output.note("hint: fetch what is damaged again with: overair device verify --repair")
        raise typer.Exit(IntegrityError.exit_code)


@app.command(epilog="Example: overair device recover --store dev")
def recover(store: StoreDir, as_json: Json = False) -> None:
    """Rebuild a state that cannot be read, from what can be proved, and say what was lost."""
    with _open(store) as updater:
        found = updater.recover()
    lines = [f"current: {found.current or 'nothing'}", f"previous: {found.previous or 'nothing'}"]
    lines += [f"pending: {found.pending}"] if found.pending else []
    lines += [f"in quarantine: {', '.join(found.quarantine)}"] if found.quarantine else []
    lines += [f"lost: {line}" for line in found.lost] + [f"kept: {path}" for path in found.kept]
    output.result(found, lines, as_json=as_json)


@app.command(epilog="Example: overair device gc --store dev")
def gc(store: StoreDir, as_json: Json = False) -> None:
    """Remove the files that no slot and no session needs."""
    with _open(store) as updater:
        freed = updater.collect_garbage()
    output.result({"bytes_freed": freed}, [f"freed {output.size(freed)}"], as_json=as_json)


def _offered(release: Any) -> dict[str, object]:
    return {
        "version": release.version,
        "sha256": release.model.sha256,
        "size_bytes": release.size_bytes,
        "release_notes": release.release_notes,
    }


def _show_status(status: "Status", *, as_json: bool) -> None:
    if as_json:
        output.result(status, (), as_json=True)
        return
    from overair.core.why import why_no_update

    rows = [_slot_row(name, getattr(status, name)) for name in ("current", "previous", "pending")]
    output.table(f"tier {status.tier} of {status.channel}", ("slot", "version", "size", "sha256", "state"), rows)
    lines = [f"trial: {status.trial.version} has {status.trial.tries_left} tries left"] if status.trial else []
    lines += [f"quarantine: {q.version} since {q.at}: {q.reason}" for q in status.quarantine]
    lines += ["", *why_no_update(status).splitlines()]
    output.result(None, lines, as_json=False)


def _figures(figures: "Mapping[str, float]") -> str:
    """What a probe measured, as far as it fits into a table."""
    words = [f"{figures['tokens_per_second']:.0f} tokens/s"] if "tokens_per_second" in figures else []
    words += [f"{output.size(figures['peak_bytes'])}"] if "peak_bytes" in figures else []
    return ", ".join(words)


def _slot_row(name: str, slot: "SlotStatus | None") -> tuple[str, ...]:
    if slot is None:
        return (name, "-", "", "", "")
    state = "withdrawn by the publisher" if slot.withdrawn else "proven" if slot.proven else "not proven yet"
    return (name, slot.version, output.size(slot.size_bytes), slot.sha256[:16], state)


job.register(app)
agent.register(app)
