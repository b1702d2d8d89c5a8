"""What a type check found, for people."""

from collections.abc import Iterable
from typing import Any, get_args

import msgspec


def explain(error: msgspec.ValidationError, texts: Iterable[Any], path: str = "$") -> str:
    """Say what was expected, and where.

    Args:
        error: What the type check raised.
        texts: The annotated text types that may be meant; their descriptions say more than their patterns.
        path: Where the value stands that was checked.
    """
    what, _, where = str(error).partition(" - at ")
    described = {repr(kind.pattern): f"expected {kind.description}" for kind in (get_args(text)[1] for text in texts)}
    what = described.get(what.removeprefix("Expected `str` matching regex "), what)
    at = where.strip("`").replace("` in `", " of ").replace("$", path, 1) or path
    return f"{what[:1].lower()}{what[1:]} at {at}"
