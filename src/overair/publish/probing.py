"""Probe a release on the publisher's machine, as devices will on theirs, before it is published."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from overair.core.fit import memory_needed
from overair.engines import base
from overair.errors import EngineMissingError, ProbeError, UsageError
from overair.model.digest import Digest
from overair.model.probe import Expectation, ProbePolicy, ProbeResult
from overair.model.release import Bundle, Requirements
from overair.publish.build import Source
from overair.publish.tree import read_small_file

# What our engines ask for unless an app says otherwise.
CONTEXT_TOKENS: Final = 2048
MAX_POLICY_BYTES: Final = 1 << 20

_SHAPE: Final = "see docs/how-to/probe.md for its shape"
_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9_.-]{1,64}?) *((?:[<>=!]=?) ?[0-9.]+(?:, ?[<>=!]=? ?[0-9.]+)*)")


def read_policy(path: Path) -> ProbePolicy:
    """Read what a probe shall ask from a JSON file, in the shape of the manifest's `probe`.

    Raises:
        UsageError: It is not one; the message names the field.
        StorageError: It cannot be read.
        IntegrityError: It is too long.
    """
    data = read_small_file(path, MAX_POLICY_BYTES)
    try:
        policy = msgspec.json.decode(data, type=ProbePolicy)
        unknown = _unknown(msgspec.json.decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} does not say what a probe shall ask: {error}", hint=_SHAPE) from error
    if unknown:  # devices ignore what they do not know, and a slip of the pen would never be checked
        raise UsageError(f"{path} has fields that no probe knows: {', '.join(sorted(unknown))}", hint=_SHAPE)
    return policy


def _unknown(document: dict[str, Any]) -> set[str]:
    """The fields of a policy, and of its expectations, that are not known."""
    wrong = set(document) - set(ProbePolicy.__struct_fields__)
    for number, expectation in enumerate(document.get("expect", ())):
        fields = set(expectation) - set(Expectation.__struct_fields__)
        wrong |= {f"expect[{number}].{field}" for field in fields}
    return wrong


def parse_requirement(text: str) -> tuple[str, str]:
    """An engine and the range of versions that a release needs, from `llama.cpp>=6000`.

    Raises:
        UsageError: It is not one.
    """
    match = _REQUIREMENT.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"not a requirement: {text[:80]!r}", hint="write it as llama.cpp>=6000 or xllamacpp>=2026.10")
    return match[1], match[2].replace(" ", "")


def requirements(sources: Sequence[Source], requires: Sequence[str]) -> Requirements:
    """What a device needs for a release: the engines that the publisher names, and memory by the model's own figures.

    Raises:
        UsageError: A requirement is not one.
    """
    model = sources[0]
    weights = sum(source.size_bytes for source in sources)
    ram = memory_needed(model.metadata, weights_bytes=weights, context_tokens=CONTEXT_TOKENS)
    return Requirements(ram_bytes=ram, engines=dict(parse_requirement(text) for text in requires))


def probe_sources(
    sources: Sequence[Source], digests: Sequence[Digest], *, version: str, policy: ProbePolicy
) -> tuple[ProbeResult | None, str]:
    """Load the files in a process of their own and ask them; returns what was measured, or why nothing was.

    Raises:
        ProbeError: The release would not become current on devices like this machine.
    """
    from overair.engines.probe import probe

    engine = next(iter(base.installed()), None)
    if engine is None:
        return None, 'no engine is installed here: pip install "overair[xllamacpp]"'

    def paths(role: str) -> tuple[Path, ...]:
        return tuple(source.path for source in sources if source.role == role)

    bundle = Bundle(
        id=digests[0],
        version=version,
        sha256=digests[0],
        model=sources[0].path.absolute(),
        adapters=paths("adapter"),
        projector=next(iter(paths("projector")), None),
    )
    try:
        result = probe(bundle, engine=engine, policy=policy)
    except EngineMissingError as error:
        return None, error.message
    if not result.passed:
        raise ProbeError(
            f"{version} failed its probe with {result.engine}, and is not published: {result.reason}",
            hint="mend the model; if this machine is at fault, publish it with --no-probe",
        )
    return result, ""
