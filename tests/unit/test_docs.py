"""What the documents say exists: commands, options, files."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from overair.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"(?:^ {4}|[`(&|\"] ?)(overair (?:repo|device|inspect|demo)[^`\n|&)#]*)", re.MULTILINE)


def commands() -> list[tuple[str, str]]:
    return [(page.name, found.strip()) for page in PAGES for found in COMMAND.findall(page.read_text(encoding="utf-8"))]


def find(words: list[str]) -> tuple[Any, list[str]]:
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while rest and getattr(command, "commands", None):
        assert rest[0] in command.commands, f"no command {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def test_the_documents_name_commands() -> None:
    assert len(commands()) > 30


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_in_the_documents_exists(page: str, line: str) -> None:
    words = shlex.split(line.replace("…", "").rstrip("\"'") if line.count('"') % 2 else line.replace("…", ""))
    command, rest = find(words)
    options = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    unknown = [word for word in rest if word.startswith("--") and word.split("=")[0] not in options]
    assert unknown == [], f"{page}: {line}"


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []


@pytest.mark.parametrize(
    ("tool", "page"), [("command_line_reference.py", "command-line.md"), ("state_diagram.py", "states.md")]
)
def test_a_page_that_a_tool_writes_is_in_step(tool: str, page: str) -> None:
    command = [sys.executable, str(ROOT / "tools" / tool)]
    written = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8") == written
