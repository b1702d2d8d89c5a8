"""The rules of the house that no other tool checks."""

import inspect
import re
import subprocess
from pathlib import Path

import pytest

import overair

ROOT = Path(__file__).resolve().parents[2]
# Each is split, so that this file does not name them either.
FORBIDDEN = [
    "pypi" + ".org",
    "python" + "hosted.org",
    "npm" + "js.org",
    "crates" + ".io",
    "anaconda" + ".org",
    "jfrog" + ".io",
    "index" + "-url =",
    "index" + "_url =",
    "file:///" + "opt",
]
PINNED = re.compile(r"[a-z0-9.-]+==[^ ;]+( ; [^\\]+?)?((?: --hash=sha256:[0-9a-f]{64})+)")


def files_of_the_repository() -> list[Path]:
    # A clone that another user made is refused by git unless it is named safe; CI clones so.
    git = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(git, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout
    return [ROOT / name for name in names.split("\0") if (ROOT / name).is_file()]


def requirements(path: Path) -> list[str]:
    joined = re.sub(r"\s*\\\n\s*", " ", path.read_text(encoding="utf-8"))
    return [line for line in joined.splitlines() if line and not line.lstrip().startswith("#")]


def test_no_file_names_a_package_registry() -> None:
    files = files_of_the_repository()
    assert ROOT / "pyproject.toml" in files
    naming = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in files
        for content in [path.read_bytes().lower()]
        for word in FORBIDDEN
        if word.encode() in content
    ]
    assert naming == []


@pytest.mark.parametrize("name", ["constraints.txt", "requirements/smollm2.txt", "requirements/gemma3-270m.txt"])
def test_every_requirement_is_pinned_with_hashes(name: str) -> None:
    lines = requirements(ROOT / name)
    assert lines
    assert [line for line in lines if not PINNED.fullmatch(line)] == []


def test_every_public_class_and_function_has_a_docstring() -> None:
    public = {name: getattr(overair, name) for name in overair.__all__}
    documented = [name for name, value in public.items() if inspect.isclass(value) or inspect.isroutine(value)]
    assert documented
    assert [name for name in documented if not has_docstring(public[name])] == []


def has_docstring(value: object) -> bool:
    # `__doc__` and not inspect.getdoc(), which takes a parent's; a dataclass without one gets its signature as one.
    doc = (value.__doc__ or "").strip()
    return bool(doc) and not doc.startswith(f"{getattr(value, '__name__', '')}(")


def test_no_source_file_is_longer_than_400_lines() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "src").rglob("*.py")}
    assert lengths
    assert {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > 400} == {}
