"""What systemd wants to hear from a service, and the unit that runs the agent (sd_notify(3), systemd.exec(5))."""

import contextlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Final

# Below these ProtectHome hides everything.
_HOMES: Final = ("/home", "/root", "/run/user")

_UNIT: Final = """\
[Unit]
Description=Keep the AI model in {store} current
Documentation=man:systemd.exec(5)
After=network.target

[Service]
Type=notify
ExecStart={command}
User={user}
WatchdogSec=2min
TimeoutStopSec=10s
Restart=on-failure
RestartSec=30s
# The call is wrong, or the state has to be recovered by hand: another start does not help.
RestartPreventExitStatus=2 27

# Everything else on the machine comes first, also when memory runs out. A probe loads the new model: enough for the
# largest one that this machine can run, and a probe that is killed for its memory does not take the agent with it.
Nice=10
IOSchedulingClass=best-effort
IOSchedulingPriority=7
MemoryMax=75%
OOMScoreAdjust=500
OOMPolicy=continue
TasksMax=512

# It reads the system, talks to the network, writes to one folder, and probes on a graphics card where there is one.
ReadWritePaths={store_path}
ProtectSystem=strict
ProtectHome={protect_home}
PrivateTmp=yes
DevicePolicy=closed
DeviceAllow=char-drm rw
DeviceAllow=char-kfd rw
DeviceAllow=char-nvidia* rw
PrivateMounts=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
LockPersonality=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
UMask=0027

[Install]
WantedBy=multi-user.target
"""


def notify(*lines: str) -> None:
    """Tell systemd, if it started this process; what it does not hear changes nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    if address.startswith("@"):  # a name that is no file
        address = f"\0{address[1:]}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.sendto("\n".join(lines).encode(), address)


def watchdog_s() -> float | None:
    """After how many seconds of silence systemd ends this process, or None when it never does."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(os.environ["WATCHDOG_USEC"]) / 1_000_000 or None
    except (KeyError, ValueError):
        return None


def unit(store: Path, command: Sequence[str], *, user: str) -> str:
    """A unit that runs the agent for one store, and lets it do nothing else.

    Args:
        store: The store's folder, absolute.
        command: The agent's command line, the program by its absolute path.
        user: Who it runs as: who owns the store, because the app writes there as well.
    """
    at_home = any(PurePath(path).is_relative_to(home) for path in (store, command[0]) for home in _HOMES)
    return _UNIT.format(
        store=str(store).replace("%", "%%"),
        command=" ".join(_quoted(word).replace("$", "$$") for word in command),
        store_path=_quoted(str(store)),
        user=user,
        protect_home="read-only" if at_home else "yes",
    )


def _quoted(word: str) -> str:
    """A word as systemd reads it back (systemd.syntax(7))."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{plain}"' if any(c in plain for c in " \t'\"\\;") or not plain else plain
