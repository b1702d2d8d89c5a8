"""Versions and their order: Semantic Versioning 2.0.0, section 11."""

from typing import Annotated, Final

import msgspec
from semver import Version

from overair.errors import UsageError

MAX_LENGTH: Final = 128

_NUMBER: Final = r"(0|[1-9][0-9]*)"
_IDENTIFIER: Final = r"(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)"
# `$` alone also matches before a final newline, which the look-ahead refuses.
PATTERN: Final = (
    rf"^{_NUMBER}\.{_NUMBER}\.{_NUMBER}"
    rf"(-{_IDENTIFIER}(\.{_IDENTIFIER})*)?"
    r"(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$(?!\n)"
)

VersionText = Annotated[
    str,
    msgspec.Meta(pattern=PATTERN, max_length=MAX_LENGTH, description="a version by Semantic Versioning, as 2.10.0"),
]


def parse_version(text: str) -> Version:
    """Parse a version so that it can be ordered.

    Raises:
        UsageError: It is not a version by Semantic Versioning.
    """
    if len(text) > MAX_LENGTH or not Version.is_valid(text):
        raise UsageError(
            f"not a version: {text[:80]!r}", hint="write it as MAJOR.MINOR.PATCH, for example 2.10.0 or 2.10.0-rc.1"
        )
    return Version.parse(text)


def compare(left: str, right: str) -> int:
    """Compare two versions by precedence: negative when `left` is older, 0 when neither is newer.

    Build metadata does not count (Semantic Versioning section 10), so 1.0.0+a and 1.0.0+b compare as 0.

    Raises:
        UsageError: One of them is not a version.
    """
    return parse_version(left).compare(parse_version(right))
