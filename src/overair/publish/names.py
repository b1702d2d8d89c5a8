"""What a publisher may call things; whatever else is refused before any work begins."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from overair.errors import UsageError
from overair.model.manifest import ChannelName
from overair.model.release import MAX_MIRRORS, TierName
from overair.model.urls import is_safe_url
from overair.model.version import parse_version
from overair.publish.tree import Settings

MAX_NOTES: Final = 20_000
MAX_REASON: Final = 2_000
MIN_POLL_S: Final = 300
MAX_POLL_S: Final = 7 * 86_400

# A channel is a folder beside the first three, and a role of the metadata beside the others.
_RESERVED: Final = frozenset({"blobs", "targets", "metadata", "root", "snapshot", "timestamp"})


def check_names(*, tier: str, version: str, min_app_version: str | None, notes: str) -> None:
    """Check what a release is called.

    Raises:
        UsageError: One of them is not what it should be.
    """
    _check(tier, TierName, "the name of a tier")
    parse_version(version)
    if min_app_version is not None:
        parse_version(min_app_version)
    _check_length(notes, MAX_NOTES, "release notes")


def check_reason(reason: str) -> None:
    """Check the reason of a withdrawal, which devices show.

    Raises:
        UsageError: There is none, or it is too long.
    """
    if not reason.strip():
        raise UsageError("no reason given", hint="say why in a line: devices show it to their users")
    _check_length(reason, MAX_REASON, "reason")


def channel_name(text: str) -> str:
    """Return `text` if a channel may be called that.

    Raises:
        UsageError: It may not.
    """
    if text in _RESERVED:
        raise UsageError(f"a channel cannot be called {text}", hint="the repository has a folder of that name")
    _check(text, ChannelName, "the name of a channel")
    return text


def base_url_of(text: str) -> str:
    """Return an address that paths can be added to, without its final slash.

    Raises:
        UsageError: It is not an http(s) URL, or it has a query.
    """
    url = text.rstrip("/")
    if "://" not in url or not is_safe_url(url) or "?" in url or "#" in url:
        raise UsageError(f"not a base URL: {text[:200]!r}", hint="write it as https://cdn.example.com/models")
    return url


def _check(text: str, kind: Any, what: str) -> None:
    try:
        msgspec.convert(text, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"not {what}: {text[:80]!r}", hint="use letters, digits, dashes and underscores") from error


def _check_length(text: str, limit: int, what: str) -> None:
    if len(text) > limit:
        raise UsageError(f"{len(text)} characters of {what} are too many", hint=f"use at most {limit}")


def changed(settings: Settings, *, mirrors: Sequence[str] | None, poll_seconds: int | None) -> Settings:
    """The settings of a repository with other mirrors or another interval, where they are given.

    Raises:
        UsageError: A mirror is not a URL, or there are too many; the interval is not one that devices would keep.
    """
    if mirrors is not None:
        if len(mirrors) > MAX_MIRRORS:
            raise UsageError(f"{len(mirrors)} mirrors given", hint=f"name at most {MAX_MIRRORS}")
        settings = replace(settings, mirrors=tuple(base_url_of(mirror) for mirror in mirrors))
    if poll_seconds is not None:
        if not MIN_POLL_S <= poll_seconds <= MAX_POLL_S:
            raise UsageError(
                f"devices do not check every {poll_seconds} s", hint="choose from 5 minutes to 7 days: 5m, 6h, 7d"
            )
        settings = replace(settings, poll_seconds=poll_seconds)
    return settings
