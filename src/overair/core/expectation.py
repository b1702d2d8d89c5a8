"""Whether an answer is what a publisher expects of it.

A regular expression can take for ever, and a schema becomes a program: this runs in the probe's process, under its
time limit, and on the publisher's machine.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from overair.errors import UsageError
from overair.model.probe import Expectation, ProbePolicy

# Models often put JSON into a block of Markdown.
_FENCE: Final = re.compile(r"```[a-zA-Z]*\n(.*)\n```", re.DOTALL)


class UncheckableError(ValueError):
    """An expectation cannot be checked: its pattern or its schema is none."""


def unmet(expectation: Expectation, answer: str) -> str:
    """Say how an answer is not what was expected, or return "" if it is. Nothing of the answer is in the words.

    Raises:
        UncheckableError: The expectation itself is wrong, or of a kind that this version does not know.
    """
    answer = answer.strip()
    if expectation.matches is not None:
        return "" if _compiled(expectation.matches).search(answer) else "does not match its pattern"
    if expectation.schema is not None:
        return _unfulfilled(_validator(expectation.schema), answer)
    if expectation.one_of:
        allowed = {text.strip().casefold() for text in expectation.one_of}
        return "" if answer.casefold() in allowed else "is not one of the answers allowed"
    raise UncheckableError("this version does not know its kind")


def require_checkable(policy: ProbePolicy) -> None:
    """Look at the expectations of a policy before it is published.

    Raises:
        UsageError: One of them cannot be checked.
    """
    for number, expectation in enumerate(policy.expect):
        try:
            unmet(expectation, "")
        except UncheckableError as error:
            raise UsageError(f"probe: $.expect[{number}] cannot be checked: {error}") from error


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UncheckableError(f"not a regular expression: {error}") from error


def _unfulfilled(validate: Callable[[Any], Any], answer: str) -> str:
    from fastjsonschema import JsonSchemaValueException

    fenced = _FENCE.fullmatch(answer)
    try:
        value = json.loads(fenced[1] if fenced else answer)
    except (ValueError, RecursionError):
        return "is not JSON"
    try:
        validate(value)
    except JsonSchemaValueException:
        return "does not fulfil its schema"
    return ""


def _validator(schema: dict[str, Any]) -> Callable[[Any], Any]:
    import fastjsonschema

    try:
        # Without formats and defaults, so that what passes does not depend on the version of the library.
        compiled: Callable[[Any], Any] = fastjsonschema.compile(
            schema, handlers=_NothingOutside(), use_default=False, use_formats=False
        )
    except Exception as error:  # it writes a program from the schema, and fails in many ways
        raise UncheckableError(f"not a schema: {str(error)[:200]}") from error
    return compiled


class _NothingOutside(Mapping[str, Callable[[str], Any]]):
    """What fastjsonschema asks for other documents: without it, it would fetch them."""

    def __contains__(self, scheme: object) -> bool:
        return True

    def __getitem__(self, scheme: str) -> Callable[[str], Any]:
        def refuse(address: str) -> Any:
            raise ValueError(f"it refers to another document: {address[:100]}")

        return refuse

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
