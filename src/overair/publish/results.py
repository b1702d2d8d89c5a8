"""What the publisher's calls give back."""

import msgspec

from overair.model.digest import Digest
from overair.model.probe import ProbeResult


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What `publish` did.

    Args:
        tier: The release's tier.
        version: The release's version.
        channel: Where it was published.
        sequence: The number of the manifest that stands now.
        sha256: The digest of the model; of a split model, of its first file.
        size_bytes: The length of that file.
        url: Where that file is, absolute.
        manifest_url: Where the channel's manifest is.
        already_published: Whether it was there before, so that nothing changed.
        new_bytes: How many bytes the tree did not have before.
        rollout_basis_points: To how many of 10,000 devices it is offered; None for everybody.
        effect: One sentence about what devices will do.
        probe: What a probe on this machine measured; None if there was none.
        not_probed: Why there was none.
    """

    tier: str
    version: str
    channel: str
    sequence: int
    sha256: Digest
    size_bytes: int
    url: str
    manifest_url: str
    already_published: bool
    new_bytes: int
    rollout_basis_points: int | None
    effect: str
    probe: ProbeResult | None = None
    not_probed: str = ""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollback, a withdrawal or a change of a rollout did; `version` is what everybody in the tier has now."""

    tier: str
    version: str
    channel: str
    sequence: int
    manifest_url: str
    changed: bool
    effect: str
