"""What names a blob: its SHA-256."""

import re
from typing import Annotated, Final

import msgspec

from overair.errors import IntegrityError

HEX_LENGTH: Final = 64

# The length is checked as well because `$` also matches before a final newline.
Digest = Annotated[
    str,
    msgspec.Meta(
        pattern="^[0-9a-f]{64}$",
        max_length=HEX_LENGTH,
        description="SHA-256, 64 lower-case hexadecimal digits",
    ),
]

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def parse_digest(text: str) -> Digest:
    """Return `text` if it is a digest.

    Raises:
        IntegrityError: It is anything else, a path or an upper-case digest included.
    """
    if _DIGEST.fullmatch(text) is None:
        raise IntegrityError(f"not a digest: {text[:80]!r} (expected 64 lower-case hexadecimal digits)")
    return text
