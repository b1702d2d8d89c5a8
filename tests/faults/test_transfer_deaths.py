"""Downloads whose process is killed again and again, and whose disk is full."""

import hashlib
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from overair.errors import CancelledError, NoSpaceError
from support.disks import fill, small_disk
from support.trouble import Trouble, TroubleServer
from support.trouble_device import PATH, Device, kill_at_random_moments

KILLS = 15
SEED = 11


def test_killed_at_15_random_moments_it_fetches_little_twice(tmp_path: Path) -> None:
    killed = kill_at_random_moments(tmp_path, kills=KILLS, seed=SEED)
    assert killed.size <= killed.sent <= killed.most


# --- full disks --------------------------------------------------------------------------------------------------

LARGE = hashlib.shake_256(b"larger than the disk").digest(2_000_000)
SMALL = LARGE[:600_000]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


def test_a_file_larger_than_the_disk_is_refused_before_a_byte_is_fetched(disk: Path) -> None:
    with TroubleServer({PATH: LARGE}) as server:
        with pytest.raises(NoSpaceError):
            Device(disk / "partial", LARGE).fetch(server.url + PATH)
        assert server.asked == []
    assert shutil.disk_usage(disk).free > 900_000


def test_a_disk_that_is_full_says_so_and_the_download_succeeds_once_there_is_space(disk: Path) -> None:
    filler = fill(disk)
    device = Device(disk / "partial", SMALL)
    with TroubleServer({PATH: SMALL}) as server:
        with pytest.raises(NoSpaceError):
            device.fetch(server.url + PATH)
        filler.unlink()
        assert device.fetch(server.url + PATH) == SMALL


def test_a_disk_that_others_fill_in_the_middle_does_not_stop_a_download_that_has_its_space(disk: Path) -> None:
    device = Device(disk / "partial", SMALL)
    with TroubleServer({PATH: SMALL}) as server:
        server.trouble[PATH] = Trouble(then=lambda: disk.joinpath("filler").exists() or fill(disk))
        assert device.fetch(server.url + PATH) == SMALL


def test_stopped_on_a_full_disk_what_came_is_kept_and_continued(disk: Path) -> None:
    device = Device(disk / "partial", SMALL)
    cancel = threading.Event()
    with TroubleServer({PATH: SMALL}) as server:
        server.trouble[PATH] = Trouble(bytes_per_second=300_000)

        def others_fill_it() -> None:
            fill(disk)
            cancel.set()

        threading.Timer(0.5, others_fill_it).start()
        with pytest.raises(CancelledError):
            device.fetch(server.url + PATH, connections=2, cancel=cancel)
        server.trouble.clear()
        server.forget()
        began = time.monotonic()
        assert device.fetch(server.url + PATH) == SMALL
        assert server.bytes_sent(PATH) <= 0.8 * len(SMALL)
        assert time.monotonic() - began < 5.0
