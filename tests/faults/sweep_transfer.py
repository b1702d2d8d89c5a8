"""Downloads that are killed, cut, given wrong bytes and held to a rate, more often than CI has time for.

A part of it:  PYTHONPATH=src:tests python tests/faults/sweep_transfer.py
All of it:     PYTHONPATH=src:tests python tests/faults/sweep_transfer.py --full
"""

import argparse
import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from overair.errors import OverairError
from support.trouble import Trouble, TroubleServer
from support.trouble_device import (
    CHUNK,
    CHUNKS,
    DATA,
    PATH,
    PROXIES,
    Device,
    keep_to_a_rate,
    kill_at_random_moments,
)

CUTS = 200
RATES = (50_000, 200_000, 1_000_000, 5_000_000, 20_000_000)
RATE_S = 5.0

# Each attempt says what it tried, and what was wrong or nothing.
Attempts = Iterator[tuple[str, str]]


def killed(folder: Path, *, full: bool) -> Attempts:
    """100 kills of one download at random moments: 1.1 of its size, and one chunk per kill and connection."""
    for connections in (1, 4, 8) if full else (4,):
        kills = 100 if full else 20
        result = kill_at_random_moments(
            folder / f"{connections}", kills=kills, seed=connections, connections=connections
        )
        tried = f"{kills} kills, {connections} connections: {result.sent / result.size:.3f} of {result.size} bytes sent"
        yield tried, "" if result.size <= result.sent <= result.most else f"more than {result.most}"


def cut(folder: Path, *, full: bool) -> Attempts:
    """200 cuts of one download at random bytes: 1.1 of its size, and one chunk per connection."""
    for seed in range(50 if full else 5):
        for connections in (1, 2, 4, 8, None):
            device = Device(folder / f"{seed}-{connections}", DATA * 8)  # six cuts within 1 KiB would be the end
            with TroubleServer({PATH: device.data}) as server:
                places = random.Random(seed).sample(range(1, len(device.data)), CUTS)  # noqa: S311 - no secret
                server.cuts[PATH] = set(places)
                wrong = outcome(device, server.url + PATH, connections=connections)
                sent = server.bytes_sent(PATH)
            tried = (
                f"{CUTS} cuts with seed {seed}, {connections or 'some'} connections: {sent / len(device.data):.3f} sent"
            )
            yield tried, wrong or ("" if sent <= 1.1 * len(device.data) + 8 * CHUNK else "too much")


def outcome(device: Device, *urls: str, connections: int | None) -> str:
    """Download; returns what is wrong with that, or nothing."""
    try:
        return "" if device.fetch(*urls, connections=connections) == device.data else "another file"
    except OverairError as error:
        return str(error)


def flipped(folder: Path, *, full: bool) -> Attempts:
    """A flipped bit in each chunk in turn from one of two mirrors: the right file, and one mirror less at most."""
    for number in range(0, CHUNKS, 1 if full else 8):
        for connections in (2, 4, None):
            device = Device(folder / f"{number}-{connections}")
            with TroubleServer({PATH: DATA}) as bad, TroubleServer({PATH: DATA}) as good:
                bad.trouble[PATH] = Trouble(flips=frozenset({number * CHUNK}))
                wrong = outcome(device, bad.url + PATH, good.url + PATH, connections=connections)
            tried = f"chunk {number}, {connections or 'some'} connections: {device.received - len(DATA)} bytes twice"
            # Whatever the bad mirror had under way is dropped with it.
            yield tried, wrong or ("" if device.received <= 1.1 * len(DATA) + 8 * CHUNK else "too much")


def paced(folder: Path, *, full: bool) -> Attempts:
    """A rate over all connections together: within 5% over 5 seconds, as the server sees it."""
    for rate in RATES if full else RATES[2:3]:
        most, holds = keep_to_a_rate(folder / str(rate), rate=rate, seconds=RATE_S)
        yield f"{rate} bytes/s: {most} bytes in {RATE_S:g} s", "" if holds else "not within 5%"


KINDS: dict[str, Callable[..., Attempts]] = {"killed": killed, "cut": cut, "flipped": flipped, "paced": paced}


def sweep(name: str, *, full: bool) -> int:
    """Try all of a kind; returns how many were wrong."""
    began, count, wrong = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for tried, why in KINDS[name](Path(folder), full=full):
            count += 1
            wrong += bool(why)
            if why or name in {"killed", "paced"}:
                print(f"  {tried}{f': {why}' if why else ''}", flush=True)
    print(f"{name}: {count} tried, {wrong} wrong, {time.monotonic() - began:.0f} s", flush=True)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="all of it, not a part")
    parser.add_argument("--kind", choices=KINDS)
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    for name in PROXIES:
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)
    return min(1, sum(sweep(name, full=chosen.full) for name in KINDS if chosen.kind in {None, name}))


if __name__ == "__main__":
    sys.exit(main())
