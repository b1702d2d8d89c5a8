"""`overair inspect`: what a GGUF file is."""

from pathlib import Path

from overair.cli import output
from overair.errors import GGUFError, StorageError
from overair.formats.gguf import GGUF, describe, read_gguf, summary


def inspect_file(path: Path, *, as_json: bool) -> None:
    """Print what a file is.

    Raises:
        GGUFError: It is not a whole GGUF; the message names what is wrong.
        StorageError: It cannot be read.
    """
    gguf = _read(path)
    if as_json:
        output.result({"file": str(path), "whole": True, **summary(gguf)}, (), as_json=True)
    else:
        output.table("", ("", ""), [("file", str(path)), *describe(gguf), ("whole", "yes")])


def _read(path: Path) -> GGUF:
    try:
        with path.open("rb") as file:
            return read_gguf(file, path.stat().st_size)
    except GGUFError as error:
        raise GGUFError(f"{path}: {error.message}", hint=error.hint) from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}", hint="is the path right?") from error
