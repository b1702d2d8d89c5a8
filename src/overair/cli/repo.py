"""`overair repo`: the publisher's commands."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from overair.cli import output, passphrase
from overair.cli.options import Channel, Json, KeysDir, Reason, RepoDir, Tier
from overair.cli.quantities import seconds, share
from overair.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from overair.publish.repository import Repository
    from overair.publish.results import Published

app = typer.Typer(help="Publish models, roll them out, take them back.", no_args_is_help=True)

_EXAMPLE: Final = "overair repo publish model.gguf --repo site --tier 1b --version 2.1.0"


def _open(location: Path, keys: Path | None = None) -> "Repository":
    from overair.publish.repository import Repository

    return Repository(location, keys=keys, passphrase=passphrase.provider())


@app.command(epilog="Example: overair repo init --repo site --base-url https://models.example.com --dev")
def init(
    repo: RepoDir,
    base_url: Annotated[str, typer.Option("--base-url", metavar="URL", help="Where devices will find the folder.")],
    channel: Annotated[
        list[str] | None,
        typer.Option("--channel", metavar="CHANNEL", help="A stream of releases; the first is the default one."),
    ] = None,
    dev: Annotated[bool, typer.Option("--dev", help="One open key for everything, to try things out.")] = False,
    expires: Annotated[
        list[str] | None,
        typer.Option(
            "--expires", metavar="ROLE=DAYS", help="How long root, targets, channel or online signatures hold."
        ),
    ] = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option("--mirror", metavar="URL", help="Where a copy of the folder will be; may be given several times."),
    ] = None,
    poll: Annotated[
        str | None, typer.Option("--poll", metavar="TIME", help="How often devices are asked to check, as 6h.")
    ] = None,
    keys: KeysDir = None,
    as_json: Json = False,
) -> None:
    """Make a repository and its keys in two folders, or add a channel to one."""
    from overair.publish.repository import Repository

    made = Repository.init(
        repo,
        base_url=base_url,
        channels=channel or ["stable"],
        keys=keys,
        passphrase=passphrase.provider(new=True),
        dev=dev,
        expires=dict(_role_days(text) for text in expires or ()),
        mirrors=mirror,
        poll_seconds=None if poll is None else seconds(poll),
    )
    root = made.root_path
    data = {
        "repository": str(made.folder),
        "base_url": made.base_url,
        "channel": made.default_channel,
        "manifest_url": f"{made.base_url}/manifest.json",
        "root": str(root),
        "keys": str(root.parent),
        "dev": dev,
    }
    output.result(data, _where_things_go(made.folder, made.base_url, root, dev=dev), as_json=as_json)


def _where_things_go(folder: Path, base_url: str, root: Path, *, dev: bool) -> list[str]:
    """Which file belongs where."""
    lines = [
        f"made the repository {folder}",
        f"  publish   {folder} at {base_url}",
        f"  embed     {root} in the app: it is what devices trust",
    ]
    if dev:
        return [*lines, f"  keep      {root.parent} to yourself: one open key does everything, for development only"]
    return [
        *lines,
        f"  offline   {root.parent}/root-1.pem, root-2.pem, root-3.pem: in three safe places; two of them sign",
        f"  keep      {root.parent}/targets.pem where you make channels, channel-*.pem where you publish",
        f"  cron      {root.parent}/online.pem where `overair repo refresh` runs, at least once in its 30 days",
    ]


def _role_days(text: str) -> tuple[str, int]:
    role, _, days = text.partition("=")
    if not days.isdecimal():
        raise UsageError(f"not an expiry: {text[:40]!r}", hint="write it as ROLE=DAYS, for example online=7")
    return role, int(days)


@app.command(epilog=f"Example: {_EXAMPLE} --rollout 10%")
def publish(
    files: Annotated[list[Path], typer.Argument(metavar="MODEL.gguf...", help="The model; all files of a split one.")],
    repo: RepoDir,
    tier: Tier,
    version: Annotated[str, typer.Option("--version", metavar="VERSION", help="The release's version, as 2.1.0.")],
    channel: Channel = None,
    notes: Annotated[str, typer.Option("--notes", metavar="TEXT", help="What is new.")] = "",
    min_app_version: Annotated[
        str | None, typer.Option("--min-app-version", metavar="VERSION", help="The oldest app that may have it.")
    ] = None,
    rollout: Annotated[
        str | None, typer.Option("--rollout", metavar="SHARE", help="Offer it to a share of the devices, as 10%.")
    ] = None,
    adapter: Annotated[list[Path] | None, typer.Option("--adapter", metavar="FILE", help="A LoRA adapter.")] = None,
    adapter_base: Annotated[
        str | None,
        typer.Option("--adapter-base", metavar="SHA256", help="The model that the adapters were trained on."),
    ] = None,
    mmproj: Annotated[Path | None, typer.Option("--mmproj", metavar="FILE", help="The multimodal projector.")] = None,
    requires: Annotated[
        list[str] | None, typer.Option("--requires", metavar="ENGINE", help="What it needs, as llama.cpp>=6000.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option("--probe-policy", metavar="FILE", help="What probes ask it and expect, as JSON.")
    ] = None,
    no_probe: Annotated[bool, typer.Option("--no-probe", help="Do not load and ask it here first.")] = False,
    keys: KeysDir = None,
    as_json: Json = False,
) -> None:
    """Publish a release: inspect, hash, copy, probe, then let devices know."""
    from overair.publish.probing import read_policy

    line = output.ProgressLine()
    try:
        done = _open(repo, keys).publish(
            files,
            tier=tier,
            version=version,
            channel=channel,
            notes=notes,
            min_app_version=min_app_version,
            rollout=None if rollout is None else share(rollout),
            adapters=adapter or (),
            adapter_base=adapter_base,
            mmproj=mmproj,
            requires=requires or (),
            policy=read_policy(policy) if policy else None,
            probe=not no_probe,
            on_progress=line.copying,
        )
    finally:
        line.close()
    verb = "already published" if done.already_published else "published"
    output.result(
        done,
        [
            f"{verb} {tier} {done.version} on {done.channel}, manifest {done.sequence}",
            f"  model     {output.size(done.size_bytes)}, sha256 {done.sha256}",
            f"  url       {done.url}",
            f"  new here  {output.size(done.new_bytes)}",
            f"  manifest  {done.manifest_url}",
            f"  probe     {_probed(done)}",
            f"  devices   {done.effect}",
        ],
        as_json=as_json,
    )


def _probed(done: "Published") -> str:
    """What became of the probe, in a few words."""
    if done.probe is None:
        return f"none: {done.not_probed}"
    figures = done.probe.figures
    words = [f"passed with {done.probe.engine}"]
    words += [f"{figures.tokens_per_second:.0f} tokens/s"] if figures.tokens_per_second else []
    words += [f"{output.size(figures.peak_bytes)} of memory"] if figures.peak_bytes else []
    return ", ".join(words)


@app.command(epilog="Example: overair repo rollout 50% --repo site --tier 1b")
def rollout(
    to: Annotated[str, typer.Argument(metavar="SHARE", help="As 50%; 0% pauses, 100% is everybody.")],
    repo: RepoDir,
    tier: Tier,
    channel: Channel = None,
    keys: KeysDir = None,
    as_json: Json = False,
) -> None:
    """Change to how many devices the candidate of a tier is offered."""
    _report(_open(repo, keys).set_rollout(tier=tier, share=share(to), channel=channel), as_json=as_json)


@app.command(epilog='Example: overair repo rollback --repo site --tier 1b --reason "answers in the wrong language"')
def rollback(
    repo: RepoDir,
    tier: Tier,
    reason: Reason,
    to: Annotated[str | None, typer.Option("--to", metavar="VERSION", help="The version to return to.")] = None,
    channel: Channel = None,
    keys: KeysDir = None,
    as_json: Json = False,
) -> None:
    """Return all devices of a tier to an earlier release."""
    _report(_open(repo, keys).rollback(tier=tier, to=to, reason=reason, channel=channel), as_json=as_json)


@app.command(epilog='Example: overair repo withdraw 2.1.0 --repo site --tier 1b --reason "wrong weights"')
def withdraw(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="The release to take back.")],
    repo: RepoDir,
    tier: Tier,
    reason: Reason,
    channel: Channel = None,
    keys: KeysDir = None,
    as_json: Json = False,
) -> None:
    """Take one release back from the devices that have it."""
    _report(_open(repo, keys).withdraw(tier=tier, version=version, reason=reason, channel=channel), as_json=as_json)


@app.command(epilog="Example: overair repo refresh --repo site")
def refresh(
    repo: RepoDir,
    role: Annotated[str, typer.Option("--role", help="online, channel, targets or root.")] = "online",
    channel: Channel = None,
    keys: KeysDir = None,
    as_json: Json = False,
) -> None:
    """Sign anew what would expire; with the online key alone, unless another role is named."""
    _open(repo, keys).refresh(role=role, channel=channel)
    output.result({"refreshed": role}, [f"signed anew: {role}"], as_json=as_json)


@app.command(epilog="Example: overair repo rotate online --repo site")
def rotate(
    role: Annotated[str, typer.Argument(metavar="ROLE", help="root, targets, online or channel.")],
    repo: RepoDir,
    channel: Channel = None,
    keys: KeysDir = None,
    as_json: Json = False,
) -> None:
    """Exchange the keys of a role for new ones, after a loss or a theft."""
    opened = _open(repo, keys)
    keyids = opened.rotate(role, channel=channel)
    lines = [f"{role} has new keys: {', '.join(keyid[:16] for keyid in keyids)}"]
    lines += (
        [f"new installations embed {opened.root_path}; devices out there follow by themselves"]
        if role != "channel"
        else []
    )
    output.result({"role": role, "keys": keyids, "root": str(opened.root_path)}, lines, as_json=as_json)


@app.command(epilog="Example: overair repo log --repo site")
def log(
    repo: RepoDir,
    channel: Channel = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many entries at most.")] = 20,
    as_json: Json = False,
) -> None:
    """Show what was published in a channel, the newest first."""
    entries = _open(repo).log(channel=channel, limit=limit)
    if as_json:
        output.result({"log": entries}, (), as_json=True)
    elif not entries:
        output.result(None, ["nothing is published in this channel yet"], as_json=False)
    else:
        rows = [(str(e.sequence), e.published_at or "", "\n".join(e.changes)) for e in entries]
        output.table("", ("manifest", "published", "what"), rows)


@app.command(epilog="Example: overair repo check --repo site --deep")
def check(
    repo: RepoDir,
    deep: Annotated[bool, typer.Option("--deep", help="Read every blob and compare its digest.")] = False,
    keys: KeysDir = None,
    as_json: Json = False,
) -> None:
    """Look whether everything that devices may ask for is there, and whether signatures run out."""
    findings = _open(repo, keys).check(deep=deep)
    bad = [finding for finding in findings if finding.level == "error"]
    lines = [f"{f.level}: {f.path}: {f.message}" for f in findings]
    output.result({"ok": not bad, "findings": findings}, lines or ["everything is there"], as_json=as_json)
    if bad:
        raise typer.Exit(IntegrityError.exit_code)


@app.command(epilog="Example: overair repo serve --repo site --port 8000")
def serve(
    repo: RepoDir,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    as_json: Json = False,
) -> None:
    """Serve a repository over HTTP while you develop; stop it with Ctrl-C."""
    from overair.publish.serve import serve_forever

    def ready(url: str) -> None:
        output.result({"url": url}, [f"serving {repo} at {url}"], as_json=as_json)

    serve_forever(repo, host=host, port=port, on_ready=ready)


def _report(change: Any, *, as_json: bool) -> None:
    """Say what a change of the manifest did."""
    word = "done" if change.changed else "nothing to do"
    first = f"{word}: {change.tier} is at {change.version} on {change.channel}, manifest {change.sequence}"
    output.result(change, [first, f"  devices   {change.effect}"], as_json=as_json)
