"""Over-the-air updates for the AI models inside applications.

The public names are loaded when they are first used, so that `import overair` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from overair._version import __version__

if TYPE_CHECKING:
    from overair.core.plan import Plan
    from overair.device.background import Job
    from overair.device.bars import tqdm_progress
    from overair.device.http_reporter import HTTPReporter
    from overair.device.reporters import JSONLinesReporter, LoggingReporter, OpenTelemetryReporter, Reporter
    from overair.device.session import Session
    from overair.device.updater import Updater
    from overair.engines.base import Engine
    from overair.errors import OverairError
    from overair.model.cache import cache_key
    from overair.model.conditions import GB, KB, MB, Conditions, DailyWindow
    from overair.model.job import JobState, JobStatus
    from overair.model.offer import Deferred, Offer, Reason, UpToDate
    from overair.model.progress import Activity, Progress
    from overair.model.release import Bundle
    from overair.model.report import Staged, Status, Verified
    from overair.publish.repository import Repository

__all__ = [
    "GB",
    "KB",
    "MB",
    "Activity",
    "Bundle",
    "Conditions",
    "DailyWindow",
    "Deferred",
    "Engine",
    "HTTPReporter",
    "JSONLinesReporter",
    "Job",
    "JobState",
    "JobStatus",
    "LoggingReporter",
    "Offer",
    "OpenTelemetryReporter",
    "OverairError",
    "Plan",
    "Progress",
    "Reason",
    "Reporter",
    "Repository",
    "Session",
    "Staged",
    "Status",
    "UpToDate",
    "Updater",
    "Verified",
    "__version__",
    "cache_key",
    "tqdm_progress",
]

_HOMES = {
    "GB": "overair.model.conditions",
    "KB": "overair.model.conditions",
    "MB": "overair.model.conditions",
    "Activity": "overair.model.progress",
    "Bundle": "overair.model.release",
    "Conditions": "overair.model.conditions",
    "DailyWindow": "overair.model.conditions",
    "Deferred": "overair.model.offer",
    "Engine": "overair.engines.base",
    "HTTPReporter": "overair.device.http_reporter",
    "JSONLinesReporter": "overair.device.reporters",
    "LoggingReporter": "overair.device.reporters",
    "OpenTelemetryReporter": "overair.device.reporters",
    "Reporter": "overair.device.reporters",
    "cache_key": "overair.model.cache",
    "Job": "overair.device.background",
    "JobState": "overair.model.job",
    "JobStatus": "overair.model.job",
    "Offer": "overair.model.offer",
    "OverairError": "overair.errors",
    "Plan": "overair.core.plan",
    "Progress": "overair.model.progress",
    "Reason": "overair.model.offer",
    "Repository": "overair.publish.repository",
    "Session": "overair.device.session",
    "Staged": "overair.model.report",
    "Status": "overair.model.report",
    "UpToDate": "overair.model.offer",
    "Updater": "overair.device.updater",
    "Verified": "overair.model.report",
    "tqdm_progress": "overair.device.bars",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its home (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'overair' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, for completion."""
    return __all__
