"""Whether the bytes of a network cost something."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from overair.host import bus
from overair.model.facts import Metered

_METERED: Final = bus.Property(
    who="NetworkManager",
    service="org.freedesktop.NetworkManager",
    path="/org/freedesktop/NetworkManager",
    interface="org.freedesktop.NetworkManager",
    name="Metered",
)
# NMMetered in NetworkManager's D-Bus API.
_VALUES: Final[Mapping[int, Metered]] = {
    1: Metered.YES,
    2: Metered.NO,
    3: Metered.GUESSED_YES,
    4: Metered.GUESSED_NO,
}


def metered(url: str) -> tuple[Metered, str]:
    """Whether bytes cost something on the network that leads to a URL, and who says so or why nobody does.

    This machine itself costs nothing. For every other place NetworkManager is asked about the network that this
    machine uses by default, for one second at most.
    """
    if _is_here(url):
        return Metered.NO, "this machine itself"
    answer = bus.ask(_METERED)
    if isinstance(answer, bus.NoAnswer):
        return Metered.UNKNOWN, answer.why
    known = _VALUES.get(answer, Metered.UNKNOWN)
    return known, "NetworkManager does not know" if known is Metered.UNKNOWN else "NetworkManager"


def _is_here(url: str) -> bool:
    """Whether a URL names this machine, and no proxy carries the question away from it."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    if not host:  # a folder
        return True
    return _is_loopback(host) and not _has_proxy(parts.scheme, parts.netloc)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _has_proxy(scheme: str, place: str) -> bool:
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    return bool(proxies.get(scheme) or proxies.get("all")) and not proxy_bypass(place)
