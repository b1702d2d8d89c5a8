"""What every test runs with."""

import os
from datetime import timedelta

import pytest
from hypothesis import settings

# A deadline ends what hangs; it is long, because two cores may be shared by many.
settings.register_profile("quick", max_examples=100, deadline=timedelta(seconds=2))
settings.register_profile("sweep", max_examples=10_000, deadline=timedelta(seconds=5))
settings.load_profile("sweep" if os.environ.get("OVERAIR_SWEEP") == "1" else "quick")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests talk to servers on this machine, which no proxy can reach."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
