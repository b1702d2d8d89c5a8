"""Which release a device should run, and why: the answer to a check."""

from collections.abc import Iterator
from datetime import datetime

import msgspec

from overair.core import fit
from overair.core.cohort import in_cohort, reach
from overair.core.quarantine import is_quarantined
from overair.model.manifest import BASIS_POINTS, Manifest
from overair.model.offer import Answer, Deferred, Offer, Reason, UpToDate
from overair.model.release import Release
from overair.model.state import Slot, State
from overair.model.version import compare


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """What a selection needs to know of a device besides its state. What is not known stands in nobody's way.

    Args:
        id: The device's own name, by chance.
        tier: The size class that it runs.
        app_version: The version of the app around the model.
        engine: The engine that would probe and run a release, with its version, as `Engine.version` gives it.
        memory_bytes: All the memory that this machine has.
    """

    id: str
    tier: str
    app_version: str | None = None
    engine: str | None = None
    memory_bytes: int | None = None


def select(manifest: Manifest, state: State, device: Device, now: datetime) -> Answer:
    """Choose the release that this device should run (DESIGN section 4).

    The candidate comes first, if a rollout reaches the device, then the tier's release, then, for a device whose
    release was taken back, the one to return to. The first that the device may have is the answer; when there is none,
    the answer is why the best one was passed over.
    """
    if device.tier not in manifest.models:
        return Deferred(
            reason=Reason.TIER_MISSING,
            explanation=f"the manifest has no tier {device.tier}",
            hint=f"it has: {', '.join(sorted(manifest.models))}; choose one with: overair device init --tier",
        )
    obstacles: list[Answer] = []
    for release in _choices(manifest, state, device, now):
        answer = _judge(release, manifest, state, device)
        if isinstance(answer, Offer) or answer.reason is Reason.STAGED:
            return answer
        obstacles.append(_explain_rollout(answer, manifest, device, now))
    return obstacles[0]


def _choices(manifest: Manifest, state: State, device: Device, now: datetime) -> Iterator[Release]:
    """The releases to consider, the most wanted first."""
    candidate = manifest.candidate(device.tier)
    if candidate is not None and in_cohort(candidate[1], device.id, now):
        yield candidate[0]
    yield manifest.release(device.tier)
    rollback = manifest.rollback(device.tier)
    if rollback is not None and state.current is not None and state.current.withdrawn:
        yield rollback


def _judge(release: Release, manifest: Manifest, state: State, device: Device) -> Answer:
    """Whether the device may have this release."""
    obstacle = _obstacle(release, manifest, state, device)
    if obstacle is not None:
        return obstacle
    reason = _direction(release, manifest, state.current)
    if reason in {Reason.UP_TO_DATE, Reason.NEWER_INSTALLED}:
        return UpToDate(reason=reason, explanation=_SENTENCES[reason].format(new=release.version, old=_version(state)))
    if state.pending is not None and state.pending.id == release.id:
        return UpToDate(
            reason=Reason.STAGED, explanation=f"{release.version} is downloaded: the next session starts it"
        )
    misfit = _misfit(release, device)
    if misfit is not None:
        return misfit
    candidate = manifest.candidate(device.tier)
    if reason is Reason.NEWER and candidate is not None and candidate[0].id == release.id:
        reason = Reason.ROLLOUT
    explanation = _SENTENCES[reason].format(new=release.version, old=_version(state))
    return Offer(release=release, reason=reason, explanation=explanation)


def _obstacle(release: Release, manifest: Manifest, state: State, device: Device) -> Answer | None:
    withdrawal = manifest.withdrawal(device.tier, release.id)
    if withdrawal is not None:
        return UpToDate(
            reason=Reason.WITHDRAWN,
            explanation=f"{release.version} was withdrawn: {withdrawal.reason or 'no reason given'}",
        )
    if is_quarantined(state, release.id, device.app_version, device.engine):
        quarantined = next(q for q in reversed(state.quarantine) if q.release_id == release.id)
        return UpToDate(
            reason=Reason.QUARANTINED,
            explanation=f"{release.version} is in quarantine since {quarantined.at}: {quarantined.reason}",
        )
    least = release.min_app_version
    if least is not None and device.app_version is not None and compare(device.app_version, least) < 0:
        return Deferred(
            reason=Reason.APP_TOO_OLD,
            explanation=f"{release.version} needs the app in version {least} or later, this is {device.app_version}",
            hint="update the app first",
        )
    return None


def _misfit(release: Release, device: Device) -> Answer | None:
    """Why a release would not run here, as far as its manifest and this device tell."""
    adapters = fit.adapters_on_another_base(release)
    if adapters:
        return UpToDate(reason=Reason.UNFIT, explanation=f"{release.version} does not fit together: {adapters}")
    engine = fit.engine_too_old(release.requires, device.engine)
    if engine:
        return Deferred(
            reason=Reason.ENGINE_TOO_OLD, explanation=f"{release.version} {engine}", hint="update the engine first"
        )
    memory = fit.short_of_memory(release.requires, device.memory_bytes)
    if memory:
        return Deferred(
            reason=Reason.TOO_LITTLE_MEMORY,
            explanation=f"{release.version} {memory}",
            hint="choose a smaller tier with: overair device init --tier",
        )
    return None


def _direction(release: Release, manifest: Manifest, current: Slot | None) -> Reason:
    """What taking this release would mean for a device."""
    if current is None:
        return Reason.FIRST_INSTALL
    if current.id == release.id:
        return Reason.UP_TO_DATE
    order = compare(release.version, current.release.version)
    written_by_hand = manifest.schema is None
    if order > 0 or (order == 0 and written_by_hand):
        return Reason.NEWER
    if current.withdrawn:
        return Reason.WITHDRAWN
    return Reason.REMOTE_ROLLBACK if written_by_hand else Reason.NEWER_INSTALLED


def _explain_rollout(answer: Answer, manifest: Manifest, device: Device, now: datetime) -> Answer:
    """Say so when a device is up to date only because a rollout does not reach it yet."""
    candidate = manifest.candidate(device.tier)
    if answer.reason is not Reason.UP_TO_DATE or candidate is None or in_cohort(candidate[1], device.id, now):
        return answer
    share = reach(candidate[1], now) * 100 / BASIS_POINTS
    return UpToDate(
        reason=Reason.NOT_IN_COHORT,
        explanation=f"{candidate[0].version} is rolled out to {share:g}% of the devices, and not to this one yet",
    )


def _version(state: State) -> str:
    return state.current.release.version if state.current else "nothing"


_SENTENCES = {
    Reason.FIRST_INSTALL: "{new} is the first model for this device",
    Reason.NEWER: "{new} is newer than {old}",
    Reason.ROLLOUT: "{new} is rolled out to this device, which runs {old}",
    Reason.WITHDRAWN: "{old} was withdrawn by the publisher: {new} takes its place",
    Reason.REMOTE_ROLLBACK: "the publisher went back from {old} to {new}",
    Reason.UP_TO_DATE: "{new} is installed",
    Reason.NEWER_INSTALLED: "{old} is installed, which is newer than {new}",
}
