"""The options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
StoreDir = Annotated[
    Path,
    typer.Option("--store", envvar="OVERAIR_STORE", metavar="DIR", help="The device's folder for models and state."),
]
RepoDir = Annotated[
    Path, typer.Option("--repo", envvar="OVERAIR_REPO", metavar="LOCATION", help="The folder that is published.")
]
Tier = Annotated[str, typer.Option("--tier", metavar="TIER", help="The size class, as 1b.")]
Channel = Annotated[
    str | None,
    typer.Option("--channel", metavar="CHANNEL", help="The stream of releases; the default one if left out."),
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for people and for the log.")]
KeysDir = Annotated[
    Path | None,
    typer.Option(
        "--keys", envvar="OVERAIR_KEYS", metavar="DIR", help="The folder with the keys; LOCATION-keys if left out."
    ),
]
