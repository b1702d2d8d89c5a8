"""Which addresses a manifest may name."""

import re
from typing import Final

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_WEB: Final = re.compile(r"(?i:https?)://[^/?#\s@]+(?:[/?#].*)?")
_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f\\]")
_CLIMBING: Final = re.compile(r"(?i)(^|/|\\|%2f|%5c)(\.|%2e){1,2}($|/|\\|%2f|%5c)")


def is_safe_url(text: str) -> bool:
    """Whether `text` is an http(s) URL without credentials, or a relative path that stays below the manifest.

    Relative paths neither start with a slash nor climb; a dot segment is refused in absolute URLs too, since what
    a server makes of it is its own affair (RFC 3986 section 5.2.4).
    """
    if _UNSAFE.search(text) or _CLIMBING.search(text.split("?", 1)[0].split("#", 1)[0]):
        return False
    if _SCHEME.match(text):
        return _WEB.fullmatch(text) is not None
    return bool(text) and not text.startswith("/")
