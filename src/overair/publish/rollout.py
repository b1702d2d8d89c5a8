"""What a publisher may change: pure edits that turn the log of a channel into its next manifest.

An edit takes the manifests of a channel, the newest first, and never looks at a disk, a clock or a die. It keeps
these rules: a version of a tier stands for the same bytes for ever; what was withdrawn stays withdrawn; a tier always
has a release for every device; and the release that a manifest names to return to is the newest older one that was
released to everybody and is not withdrawn.
"""

import math
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from overair.errors import UsageError
from overair.model.manifest import (
    BASIS_POINTS,
    SCHEMA_VERSION,
    CandidateEntry,
    Manifest,
    ReleaseEntry,
    Rollout,
    TierEntry,
    Withdrawal,
)
from overair.model.version import compare, parse_version
from overair.publish.releases import bare, everything, find, id_of, is_withdrawn, newest, released, standing, version_of

# As long as the signature of a channel holds.
EXPIRES_AFTER: Final = timedelta(days=365)

Log = tuple[Manifest, ...]
Entry = TypeVar("Entry", bound=ReleaseEntry)


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """The next manifest, and one sentence about what devices will do.

    Args:
        manifest: What to publish; the manifest that stands, if nothing changes.
        effect: For people.
        changed: Whether there is anything to publish.
    """

    manifest: Manifest
    effect: str
    changed: bool = True


def basis_points(share: float) -> int:
    """A share of the devices as a rollout counts it: 0.1 is 1000.

    Raises:
        UsageError: It is not a number from 0.0001 (one device in 10,000) to 1.
    """
    if not (math.isfinite(share) and 0 < share <= 1) or round(share * BASIS_POINTS) == 0:
        raise UsageError(
            f"not a share of the devices: {share}", hint="give a number from 0.0001 to 1: a tenth is 0.1, or 10%"
        )
    return round(share * BASIS_POINTS)


def refuse_old_version(log: Log, tier: str, version: str) -> None:
    """Refuse a version that is older than what the tier has, before anything is read or copied.

    Raises:
        UsageError: It is older, and it was not published before: a known one is `release`'s to judge.
    """
    if log and tier in log[0].models and find(everything(log, tier), version) is None:
        current = standing(log[0], tier)
        if compare(version, version_of(current)) < 0:
            raise UsageError(
                f"version {version} is older than {version_of(current)}, which tier {tier} has",
                hint=f"give it a newer version, or return to an older one with: overair repo rollback --tier {tier}",
            )


def release(log: Log, *, channel: str, tier: str, entry: ReleaseEntry, rollout: Rollout | None, now: datetime) -> Edit:
    """Publish a release of a tier: to everybody, or to the share of a rollout as the tier's candidate.

    Raises:
        UsageError: The version is older than the tier's, or stands for other bytes; the bytes were withdrawn; there
            is nothing that devices outside the rollout could run.
    """
    refuse_old_version(log, tier, version_of(entry))
    _refuse_withdrawn(log, tier, entry)
    known = find(everything(log, tier), version_of(entry))
    if known is not None:
        _refuse_other_bytes(tier, known, entry)
        if (same := _already_published(log[0], tier, known, rollout)) is not None:
            return same
    head = log[0].models.get(tier) if log else None
    if rollout is not None and rollout.basis_points < BASIS_POINTS:
        if head is None:
            raise UsageError(
                f"tier {tier} has no release yet, so there is nothing for the devices outside the rollout",
                hint="publish the first release of a tier to everybody: without --rollout",
            )
        return _with_candidate(log, tier, _as(CandidateEntry, entry, rollout=rollout), now)
    first = Manifest(current_version=version_of(entry), models={}, channel=channel)
    return _to_everybody(log or (first,), tier, entry, now)


def set_rollout(log: Log, *, tier: str, basis_points: int, now: datetime) -> Edit:
    """Offer a tier's candidate to another share of the devices; 10000 makes it the tier's release, 0 pauses it.

    The salt stays, so that a growing share keeps the devices that it had.

    Raises:
        UsageError: The tier has no candidate.
    """
    candidate = _tier(log, tier).candidate
    if candidate is None:
        version = version_of(standing(log[0], tier))
        raise UsageError(
            f"tier {tier} has no candidate: {version} is released to everybody",
            hint="begin a rollout with: overair repo publish --rollout 10%",
        )
    if basis_points >= BASIS_POINTS:
        return _to_everybody(log, tier, bare(candidate), now)
    if basis_points == candidate.rollout.basis_points:
        return Edit(manifest=log[0], effect=f"Nothing changes: {_offered(candidate, tier)}.", changed=False)
    return _with_candidate(
        log, tier, replace(candidate, rollout=replace(candidate.rollout, basis_points=basis_points)), now
    )


def rollback(log: Log, *, tier: str, to: str | None, reason: str, now: datetime) -> Edit:
    """Return a tier to an older release, and withdraw all that is newer, so that devices return from it too.

    The same call again changes nothing: a publisher that died may repeat it without going back twice.

    Raises:
        UsageError: There is nothing to return to, or `to` is unknown, withdrawn or not older.
    """
    if to is None and len(log) > 1 and _repeats(log, tier, reason, now):
        version = version_of(standing(log[0], tier))
        return Edit(
            manifest=log[0],
            effect=f"Nothing changes: tier {tier} was just returned to {version}; to go further, name a version.",
            changed=False,
        )
    return _rolled_back(log, tier, to, reason, now)


def withdraw(log: Log, *, tier: str, version: str, reason: str, now: datetime) -> Edit:
    """Take one release back. If it is the tier's release, the tier returns to the one before; a candidate goes on.

    Raises:
        UsageError: The version is unknown; there is nothing to return to.
    """
    head = _tier(log, tier)
    known = everything(log, tier)
    entry = find(known, version)
    if entry is None:
        raise UsageError(f"tier {tier} has no release {version}", hint=_listed("known", known))
    if is_withdrawn(log[0], tier, entry):
        return Edit(
            manifest=log[0], effect=f"Nothing changes: {version_of(entry)} of tier {tier} is withdrawn.", changed=False
        )
    manifest = _withdrawing(log[0], tier, [entry], reason)
    candidate = head.candidate
    if candidate is not None and id_of(candidate, tier) == id_of(entry, tier):
        candidate = None
    current = standing(log[0], tier)
    if id_of(entry, tier) == id_of(current, tier):
        current = _default_target((manifest, *log[1:]), tier, current)
        effect = f"Devices of tier {tier} that run {version} return to {version_of(current)}."
    else:
        effect = f"Devices of tier {tier} that run {version} move to {version_of(current)}; the others are unaffected."
    return _edit((manifest, *log), tier, current, candidate, now=now, effect=effect)


def _to_everybody(log: Log, tier: str, entry: ReleaseEntry, now: datetime) -> Edit:
    head = log[0].models.get(tier)
    candidate = head.candidate if head else None
    before = f" from {version_of(standing(log[0], tier))}" if head else ""
    effect = f"Devices of tier {tier} update{before} to {version_of(entry)} at their next check."
    if candidate and compare(version_of(candidate), version_of(entry)) <= 0:
        if compare(version_of(candidate), version_of(entry)) < 0:
            effect += f" The rollout of {version_of(candidate)} ends."
        candidate = None
    elif candidate:
        effect += f" The rollout of {version_of(candidate)} goes on."
    return _edit(log, tier, entry, candidate, now=now, effect=effect)


def _with_candidate(log: Log, tier: str, candidate: CandidateEntry, now: datetime) -> Edit:
    before = log[0].models[tier].candidate
    current = standing(log[0], tier)
    effect = f"{_offered(candidate, tier)}; the others stay on {version_of(current)}."
    if before and version_of(before) != version_of(candidate):
        effect += f" The rollout of {version_of(before)} ends."
    return _edit(log, tier, current, candidate, now=now, effect=effect)


def _rolled_back(log: Log, tier: str, to: str | None, reason: str, now: datetime) -> Edit:
    _tier(log, tier)
    current = standing(log[0], tier)
    target = _default_target(log, tier, current) if to is None else _named_target(log, tier, to)
    if version_of(target) == version_of(current):
        return Edit(manifest=log[0], effect=f"Nothing changes: tier {tier} stands at {to}.", changed=False)
    newer = [
        entry
        for entry in everything(log, tier)
        if compare(version_of(entry), version_of(target)) > 0
        and id_of(entry, tier) != id_of(target, tier)
        and not is_withdrawn(log[0], tier, entry)
    ]
    manifest = _withdrawing(log[0], tier, newer, reason)
    gone = " and ".join(sorted((version_of(entry) for entry in newer), key=parse_version)) or version_of(current)
    effect = f"Devices of tier {tier} that run {gone} return to {version_of(target)}."
    return _edit((manifest, *log), tier, target, None, now=now, effect=effect)


def _repeats(log: Log, tier: str, reason: str, now: datetime) -> bool:
    """Whether the newest publication is what this very rollback would have made of the one before it."""
    try:
        again = _rolled_back(log[1:], tier, None, reason, now).manifest
    except UsageError:
        return False
    return again.models == log[0].models and again.withdrawn == log[0].withdrawn


def _default_target(log: Log, tier: str, current: ReleaseEntry) -> ReleaseEntry:
    older = newest(log, tier, than=current)
    if older is None:
        raise UsageError(
            f"nothing to return to: tier {tier} has no release before {version_of(current)} that is not withdrawn",
            hint="publish a newer release that works",
        )
    return older


def _named_target(log: Log, tier: str, to: str) -> ReleaseEntry:
    known = released(log, tier)
    target = find(known, to)
    if target is None:
        raise UsageError(f"tier {tier} was never released as {to}", hint=_listed("released", known))
    if is_withdrawn(log[0], tier, target):
        raise UsageError(
            f"{to} of tier {tier} is withdrawn itself", hint="name another version: overair repo log lists them"
        )
    current = version_of(standing(log[0], tier))
    if compare(to, current) > 0:
        raise UsageError(f"{to} is newer than {current}, which tier {tier} has", hint="name an older version")
    return target


def _refuse_withdrawn(log: Log, tier: str, entry: ReleaseEntry) -> None:
    taken_back = log[0].withdrawal(tier, id_of(entry, tier)) if log else None
    if taken_back is not None:
        raise UsageError(
            f"these bytes were withdrawn from tier {tier} as version {taken_back.version}: {taken_back.reason}",
            hint="publish changed bytes under a new version",
        )


def _refuse_other_bytes(tier: str, known: ReleaseEntry, entry: ReleaseEntry) -> None:
    if version_of(known) != version_of(entry) or id_of(known, tier) != id_of(entry, tier):
        raise UsageError(
            f"version {version_of(known)} of tier {tier} exists already with other bytes",
            hint="a published version never changes: give the new bytes a new version",
        )


def _already_published(head: Manifest, tier: str, known: ReleaseEntry, rollout: Rollout | None) -> Edit | None:
    """Nothing to do for a version that stands or stood; None for a newer one that is no longer offered."""
    current = standing(head, tier)
    candidate = head.models[tier].candidate
    to_everybody = rollout is None or rollout.basis_points >= BASIS_POINTS
    if candidate is not None and version_of(candidate) == version_of(known):
        if to_everybody:
            raise UsageError(
                f"version {version_of(known)} of tier {tier} is being rolled out, not released to everybody",
                hint=f"release it with: overair repo rollout --tier {tier} 100%",
            )
        where = _offered(candidate, tier)
    elif compare(version_of(known), version_of(current)) <= 0:
        where = f"devices of tier {tier} stay on {version_of(current)}"
    else:
        return None
    return Edit(
        manifest=head, effect=f"Nothing changes: {version_of(known)} is published already; {where}.", changed=False
    )


def _edit(
    log: Log, tier: str, current: ReleaseEntry, candidate: CandidateEntry | None, *, now: datetime, effect: str
) -> Edit:
    """The next manifest, in which `tier` has this release and this candidate; the rest is as in `log[0]`."""
    head = log[0]
    models = dict(head.models)
    models[tier] = _as(TierEntry, current, rollback=newest(log, tier, than=current), candidate=candidate)
    version = max((version_of(entry) for entry in models.values()), key=parse_version)
    returns = [
        entry.rollback.version
        for entry in models.values()
        if entry.rollback and entry.rollback.version and compare(version_of(entry), version) == 0
    ]
    manifest = replace(
        head,
        schema=SCHEMA_VERSION,
        sequence=head.sequence + 1,
        published_at=timestamp(now),
        expires=timestamp(now + EXPIRES_AFTER),
        current_version=version,
        rollback_version=max(returns, key=parse_version, default=None),
        models=models,
    )
    return Edit(manifest=manifest, effect=effect)


def timestamp(moment: datetime) -> str:
    """A moment as a manifest spells it, to the second, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _withdrawing(head: Manifest, tier: str, entries: list[ReleaseEntry], reason: str) -> Manifest:
    taken_back = {
        id_of(entry, tier): Withdrawal(tier=tier, version=version_of(entry), sha256=id_of(entry, tier), reason=reason)
        for entry in entries
    }
    return replace(head, withdrawn=(*head.withdrawn, *taken_back.values()))


def _tier(log: Log, tier: str) -> TierEntry:
    if not log or tier not in log[0].models:
        known = ", ".join(sorted(log[0].models)) if log else "none"
        raise UsageError(f"nothing was published for tier {tier}", hint=f"tiers of this channel: {known}")
    return log[0].models[tier]


def _offered(candidate: CandidateEntry, tier: str) -> str:
    share = candidate.rollout.basis_points / 100
    return f"{version_of(candidate)} is offered to {share:g}% of the devices of tier {tier}"


def _listed(what: str, entries: list[ReleaseEntry]) -> str:
    return f"{what}: " + ", ".join(sorted((version_of(entry) for entry in entries), key=parse_version))


def _as(kind: type[Entry], entry: ReleaseEntry, **more: object) -> Entry:
    return kind(
        **{name: getattr(entry, name) for name in entry.__struct_fields__ if name in kind.__struct_fields__} | more
    )
