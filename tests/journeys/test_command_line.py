"""The whole journey through the installed command, on SmolLM2 in a real llama.cpp."""

from pathlib import Path

import pytest

from support.command import ask, free_port, run, serving
from support.models import smollm2
from support.tiny_model import break_weights, retouch

PROMPT = "In one sentence, what is the sea?"
TIER = "135m"

pytestmark = [pytest.mark.model, pytest.mark.slow]


class Journey:
    """A repository, its server's address, and a device."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.site = folder / "site"
        self.store = folder / "device"
        self.port = port

    def publish(self, version: str, file: Path, *words: str, code: int = 0) -> dict[str, object]:
        place = ("--repo", self.site, "--tier", TIER, "--version", version)
        return ask("repo", "publish", file, *place, *words, code=code)

    def device(self, command: str, *words: str, code: int = 0) -> dict[str, object]:
        return ask("device", command, "--store", self.store, *words, code=code)

    def run(self) -> dict[str, object]:
        return self.device("run", "--engine", "xllamacpp", "--prompt", PROMPT, "--max-tokens", "24")

    def versions(self) -> tuple[str | None, ...]:
        status = self.device("status")
        slots = (status[name] for name in ("current", "previous", "pending"))
        return tuple(slot["version"] if isinstance(slot, dict) else None for slot in slots)


def test_a_model_is_published_updated_swapped_reverted_and_taken_back(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    base = smollm2()
    journey = Journey(tmp_path, free_port())
    url = f"http://127.0.0.1:{journey.port}"
    made = ask("repo", "init", "--repo", journey.site, "--base-url", url, "--dev")
    with serving(journey.site, journey.port):
        published = journey.publish("1.0.0", base)
        assert published["size_bytes"] == base.stat().st_size
        assert isinstance(published["probe"], dict)
        assert published["probe"]["figures"]["tokens_per_second"] > 0
        ask("device", "init", "--store", journey.store, "--url", url, "--root", made["root"], "--tier", TIER)

        first_answer = install_the_first_release(journey, str(published["sha256"]))
        second_answer = update_to_a_second_release(journey, base)
        assert second_answer != first_answer
        refuse_a_release_that_does_not_load(journey, base, second_answer)
        return_when_the_publisher_withdraws(journey, first_answer)
        return_by_hand(journey, base, first_answer)


def install_the_first_release(journey: Journey, digest: str) -> str:
    offer = journey.device("check")
    assert offer["reason"] == "first-install"
    assert isinstance(offer["offer"], dict)
    assert offer["offer"]["sha256"] == digest
    journey.device("update", "--any-network")
    assert journey.versions() == (None, None, "1.0.0")
    ran = journey.run()
    assert ran["version"] == "1.0.0"
    assert str(ran["text"]).strip()
    assert Path(str(ran["path"])).is_file()
    assert journey.device("check")["reason"] == "up-to-date"
    assert journey.device("status")["trial"] is None
    return str(ran["text"])


def update_to_a_second_release(journey: Journey, base: Path) -> str:
    journey.publish("1.1.0", retouch(base, journey.folder / "second.gguf"), "--no-probe")
    assert journey.device("check")["reason"] == "newer"
    journey.device("update", "--any-network")
    assert journey.versions() == ("1.0.0", None, "1.1.0")
    ran = journey.run()
    assert ran["version"] == "1.1.0"
    assert journey.versions() == ("1.1.0", "1.0.0", None)
    return str(ran["text"])


def refuse_a_release_that_does_not_load(journey: Journey, base: Path, answer_before: str) -> None:
    bad = break_weights(base, journey.folder / "third.gguf")
    assert "output_norm" in str(journey.publish("1.2.0", bad, code=25)["message"])
    assert journey.device("check")["reason"] == "up-to-date"
    journey.publish("1.2.0", bad, "--no-probe")
    assert "output_norm" in str(journey.device("update", "--any-network", code=25)["message"])
    assert journey.versions() == ("1.1.0", "1.0.0", None)
    ran = journey.run()
    assert (ran["version"], ran["text"]) == ("1.1.0", answer_before)
    quarantine = journey.device("status")["quarantine"]
    assert isinstance(quarantine, list)
    assert [entry["version"] for entry in quarantine] == ["1.2.0"]
    assert "output_norm" in quarantine[0]["reason"]
    again = journey.device("check")
    assert (again["offer"], again["reason"]) == (None, "quarantined")
    assert journey.device("update", "--any-network")["staged"] is None


def return_when_the_publisher_withdraws(journey: Journey, first_answer: str) -> None:
    ask("repo", "withdraw", "1.1.0", "--repo", journey.site, "--tier", TIER, "--reason", "answers differ")
    assert journey.device("check")["reason"] == "withdrawn"
    journey.device("update", "--any-network")
    ran = journey.run()
    assert (ran["version"], ran["text"]) == ("1.0.0", first_answer)
    assert journey.versions() == ("1.0.0", None, None)


def return_by_hand(journey: Journey, base: Path, first_answer: str) -> None:
    journey.publish("1.3.0", retouch(base, journey.folder / "fourth.gguf", seed=3), "--no-probe")
    journey.device("update", "--any-network")
    assert journey.run()["version"] == "1.3.0"
    journey.device("rollback", "--reason", "the user said so")
    ran = journey.run()
    assert (ran["version"], ran["text"]) == ("1.0.0", first_answer)
    assert journey.device("check")["reason"] == "quarantined"
    history = journey.device("history")["history"]
    assert isinstance(history, list)
    assert history[-1]["reason"] == "the user said so"
    assert ask("repo", "check", "--repo", journey.site, "--deep")["ok"] is True


def test_every_command_has_help_with_an_example() -> None:
    for group in ("repo", "device"):
        listed = run(group, "--help").out.split("Commands:")[1]
        names = [line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line.split()]
        assert len(names) > 5
        for name in names:
            shown = run(group, name, "--help")
            assert shown.code == 0
            assert "Example: " in shown.out, f"{group} {name}"
