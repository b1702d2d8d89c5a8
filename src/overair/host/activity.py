"""Whether somebody uses this machine, and how much it has to do besides our own work."""

import os
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from overair.host import bus

BUSY_SHARE: Final = 0.3
WINDOW_S: Final = 10.0
FIRST_LOOK_S: Final = 0.3
_IDLE_HINT: Final = bus.Property(
    who="logind",
    service="org.freedesktop.login1",
    path="/org/freedesktop/login1",
    interface="org.freedesktop.login1.Manager",
    name="IdleHint",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """What the processors have done since the machine started.

    Args:
        at_s: When it was taken, by a clock that never goes back.
        busy_s: The processor time of all programs, in seconds.
        own_s: The part of it that this process and its finished children took.
    """

    at_s: float
    busy_s: float
    own_s: float


def sample() -> Sample:
    """What the processors have done until now.

    Interrupts are left out: while a model arrives, most of them are the network's.

    Raises:
        OSError: The system does not say.
    """
    import psutil

    times = psutil.cpu_times()
    own = os.times()
    return Sample(
        at_s=time.monotonic(),
        busy_s=times.user + times.system + getattr(times, "nice", 0.0),
        own_s=own.user + own.system + own.children_user + own.children_system,
    )


def share_of_others(earlier: Sample, later: Sample, processors: int) -> float:
    """Which part of all processors other programs had between two samples, from 0 to 1."""
    busy = (later.busy_s - earlier.busy_s) - (later.own_s - earlier.own_s)
    return min(max(busy / ((later.at_s - earlier.at_s) * processors), 0.0), 1.0)


class Load:
    """How busy other programs keep the processors, over the last ten seconds.

    The mean over a while, so that a page that somebody's mail program fetches does not pause an update.
    """

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque()

    def share(self) -> float | None:
        """The part of all processors that others use, from 0 to 1, or None if the system does not say.

        The first call takes a look of 0.3 s.
        """
        try:
            if not self._samples:
                self._samples.append(sample())
                time.sleep(FIRST_LOOK_S)
            self._samples.append(sample())
        except OSError:
            return None
        while len(self._samples) > 2 and self._samples[-1].at_s - self._samples[1].at_s >= WINDOW_S:
            self._samples.popleft()
        return share_of_others(self._samples[0], self._samples[-1], os.cpu_count() or 1)


def read_activity(load: Load) -> tuple[bool | None, str]:
    """Whether nobody uses this machine and it has little to do, and what speaks against it.

    A session counts where logind runs; elsewhere the processors decide alone.
    """
    share = load.share()
    against = []
    if bus.ask(_IDLE_HINT) is False:
        against.append("somebody is at work (logind)")
    if share is not None and share >= BUSY_SHARE:
        against.append(f"other programs take {share:.0%} of the processors")
    if against:
        return False, ", ".join(against)
    return (None, "the system does not say how busy it is") if share is None else (True, "")
