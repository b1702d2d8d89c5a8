"""The command `overair`."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from overair._version import __version__
from overair.cli import device, output, repo
from overair.cli.options import Json
from overair.errors import OverairError, UsageError

INTERRUPTED: Final = 130

# The root of what the parser raises. Typer hands out only its leaves.
_ParserError: Final[type[Any]] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="overair",
    help="Over-the-air updates for the AI models inside applications.",
    epilog="Start with: overair demo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(repo.app, name="repo")
app.add_typer(device.app, name="device")


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on standard error.")] = False,
) -> None:
    """Over-the-air updates for the AI models inside applications."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr
    )
    if version:
        output.result({"version": __version__}, [f"overair {__version__}"], as_json=False)
        raise typer.Exit


@app.command(epilog="Example: overair inspect model-1b-q4.gguf")
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to look at.")],
    as_json: Json = False,
) -> None:
    """Say what a GGUF file is, and whether it is whole."""
    from overair.cli.inspect import inspect_file

    inspect_file(file, as_json=as_json)


@app.command(epilog="Example: overair demo --keep my-demo")
def demo(
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Leave repository and device in this new folder.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="FILE", help="The GGUF file to tell the story with.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell the whole story on this machine, on a real model, in about a minute."""
    from overair.cli.demo import run_demo

    run_demo(keep=keep, model=model, as_json=as_json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code (DESIGN section 8)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(words, standalone_mode=False)
    except OverairError as error:
        output.failure(error, as_json="--json" in words)
        return error.exit_code
    except typer.Abort:
        return INTERRUPTED
    except _ParserError as error:
        output.failure(_usage(error), as_json="--json" in words)
        return UsageError.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    if code == INTERRUPTED:  # what the parser makes of Ctrl-C
        output.note("interrupted: what was done is kept; run the same command again to go on")
    return int(code or 0)


def _usage(error: Any) -> UsageError:
    """The parser's complaint as one of ours."""
    command = error.ctx.command_path if getattr(error, "ctx", None) else "overair"
    return UsageError(error.format_message() or "a command is missing", hint=f"see: {command} --help")


if __name__ == "__main__":
    sys.exit(main())
