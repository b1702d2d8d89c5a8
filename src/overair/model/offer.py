"""The answer to "is there a model for this device?": an offer, or why not."""

from enum import StrEnum
from typing import Annotated

import msgspec

from overair.model.release import Release


class Reason(StrEnum):
    """Why a release is offered, or is not."""

    FIRST_INSTALL = "first-install"
    NEWER = "newer"
    ROLLOUT = "rollout"
    WITHDRAWN = "withdrawn"
    REMOTE_ROLLBACK = "remote-rollback"

    UP_TO_DATE = "up-to-date"
    STAGED = "staged"
    NEWER_INSTALLED = "newer-installed"
    NOT_IN_COHORT = "not-in-cohort"
    QUARANTINED = "quarantined"
    UNFIT = "unfit"

    TIER_MISSING = "tier-missing"
    APP_TOO_OLD = "app-too-old"
    ENGINE_TOO_OLD = "engine-too-old"
    TOO_LITTLE_MEMORY = "too-little-memory"
    CONDITIONS = "conditions"


Sentence = Annotated[str, msgspec.Meta(description="one line for people")]


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A release that this device should download."""

    release: Release
    reason: Reason
    explanation: Sentence


class UpToDate(msgspec.Struct, frozen=True, kw_only=True):
    """There is nothing for this device to do; `release` is what stays."""

    reason: Reason
    explanation: Sentence


class Deferred(msgspec.Struct, frozen=True, kw_only=True):
    """There may be something for this device, but not now; `hint` says what would change that."""

    reason: Reason
    explanation: Sentence
    hint: str = ""


Answer = Offer | UpToDate | Deferred
