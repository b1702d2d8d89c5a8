"""The code in the guide for phones does what it says."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overair.store.store import Store
from support.job_scene import LIMIT_S, SLOW, Scene, until
from support.misbehaving import Status
from support.models import ROOT


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Scene(tmp_path) as scene:
        scene.set_up().close()
        yield scene


@pytest.fixture
def module() -> dict[str, Any]:
    page = (ROOT / "docs" / "how-to" / "phones.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(block, "phones.md", "exec"), names)  # noqa: S102 - the page is ours
    return names


def test_a_run_brings_the_update(scene: Scene, module: dict[str, Any]) -> None:
    scene.publish()
    assert module["update"](str(scene.store)) == "success"
    assert Store(scene.store).read().pending is not None
    assert module["update"](str(scene.store)) == "success"


def test_a_run_that_the_system_ends_is_to_be_repeated_and_continues(scene: Scene, module: dict[str, Any]) -> None:
    size = scene.publish(fault=SLOW)
    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(module["update"](str(scene.store))))
    thread.start()
    until(lambda: scene.served() > 300_000, "bytes flow")
    module["cancel"].set()
    thread.join(LIMIT_S)
    assert results == ["retry"]
    served = scene.served()
    del scene.server.faults[scene.blob]
    module["cancel"].clear()
    assert module["update"](str(scene.store)) == "success"
    assert scene.served() - served < 0.95 * size, "it began again"


def test_a_server_that_fails_is_asked_again(scene: Scene, module: dict[str, Any]) -> None:
    scene.publish(fault=Status(404))
    assert module["update"](str(scene.store)) == "retry"


def test_a_device_that_was_never_set_up_is_not(tmp_path: Path, module: dict[str, Any]) -> None:
    assert module["update"](str(tmp_path / "nothing")) == "failure"
