"""Power cuts on real file systems: an image, mounted by a loop device, that stops keeping what is not yet durable."""

import contextlib
import ctypes
import fcntl
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.power_journeys import Journey, Scene
from support.power_order import Order
from support.tracing import Child, Stop

# The smallest that each will make: xfs asks for 300 MB. The files are sparse.
IMAGE_BYTES: Final = {"ext4": 32 << 20, "xfs": 320 << 20}
_MAKE: Final = {"ext4": ["mkfs.ext4", "-qF"], "xfs": ["mkfs.xfs", "-qf"]}
# _IOR('X', 125, u32), and the flag that does not even flush the journal.
_SHUTDOWN: Final = 0x8004587D
_NEW_NAMESPACE: Final = 0x20000  # CLONE_NEWNS
_NO_LOG_FLUSH: Final = struct.pack("I", 2)


@dataclass(frozen=True, slots=True)
class Failure:
    """What did not hold after a cut."""

    journey: str
    file_system: str
    stop: Stop | None
    what: str

    def __str__(self) -> str:
        return f"{self.journey} on {self.file_system}, {self.stop or 'at the end'}: {self.what}"


def why_not() -> str | None:
    """Why power cannot be cut here, or None when it can."""
    if not sys.platform.startswith("linux") or platform.machine() not in {"x86_64", "aarch64"}:
        return "needs Linux on x86_64 or aarch64"
    if os.geteuid() != 0:
        return "only root can mount a file system"
    missing = [command for command in ("mount", "mkfs.ext4", "mkfs.xfs") if shutil.which(command) is None]
    if missing:
        return f"{', '.join(missing)} is missing: install e2fsprogs and xfsprogs"
    with scratch() as folder, contextlib.suppress(subprocess.CalledProcessError):
        image = Image(folder, "ext4")
        with image.mounted():
            return None
    return "this machine has no loop devices for us"


def keep_mounts_to_ourselves() -> None:
    """From now on what this process mounts is gone when it ends, however it ends."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_NEW_NAMESPACE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")
    _command("mount", "--make-rprivate", "/")


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for images, in memory where there is such a place: a cut drops what did not reach the image."""
    memory = Path("/dev/shm")  # noqa: S108 - a file system, not a file
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


class Image:
    """A file system in a file.

    Args:
        folder: Where the image and its mount point are made.
        file_system: `ext4` or `xfs`.
    """

    def __init__(self, folder: Path, file_system: str) -> None:
        self.file_system = file_system
        self.point = folder / "disk"
        self._image, self._kept = folder / "image", folder / "kept"
        self.point.mkdir()
        with self._image.open("wb") as file:
            file.truncate(IMAGE_BYTES[file_system])
        _command(*_MAKE[file_system], str(self._image))

    def keep(self) -> None:
        """Remember what is on it now."""
        self._copy(self._image, self._kept)

    def restore(self) -> None:
        """Make it as it was when it was kept."""
        self._copy(self._kept, self._image)

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        _command("cp", "--sparse=always", str(source), str(target))

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        """Mount it for the block; returns the mount point."""
        _command("mount", "-o", "loop", str(self._image), str(self.point))
        try:
            yield self.point
        finally:
            _command("umount", str(self.point))

    def cut(self) -> None:
        """Cut the power: nothing that is not durable by now will ever be."""
        descriptor = os.open(self.point, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(descriptor)


def _command(*command: str) -> None:
    subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL, capture_output=True)


class Sweep:
    """The cuts of one journey on one file system.

    Args:
        folder: A place for the image.
        file_system: `ext4` or `xfs`.
        journey: What the device does when the power fails.
        scene: What it finds around it.
    """

    def __init__(self, folder: Path, file_system: str, journey: Journey, scene: Scene) -> None:
        self._image = Image(folder, file_system)
        self._journey, self._scene = journey, scene
        self._store = self._image.point / "store"
        with self._image.mounted():
            self._do(lambda: journey.prepare(scene, self._store))
        self._image.keep()

    def stops(self) -> tuple[list[Stop], list[Failure]]:
        """Where the journey can be cut, and what is wrong with the order of its calls.

        After one call is before the next, unless something was said between them: such a stop is left out.
        """
        self._image.restore()
        found: list[Stop] = []
        with self._image.mounted(), self._traced() as child:
            for stop in child.stops():
                if found and found[-1].after and found[-1].said_bytes == stop.said_bytes:
                    found.pop()
                found.append(stop)
            if child.exit_code != 0:
                raise AssertionError(f"{self._journey.name} does not end well: {child.said()}")
        return found, self._order_faults(found)

    def _order_faults(self, stops: list[Stop]) -> list[Failure]:
        order = Order(self._store.name)
        said = 0
        faults: list[Failure] = []
        for stop in stops:
            if not stop.after:
                faults += [self._failure(stop, what) for what in order.faults(stop, said=stop.said_bytes > said)]
                said = stop.said_bytes
        return faults + [self._failure(None, what) for what in order.faults_at_the_end()]

    def _failure(self, stop: Stop | None, what: str) -> Failure:
        return Failure(self._journey.name, self._image.file_system, stop, what)

    def cut(self, stop: Stop | None) -> Failure | None:
        """Cut the power at a stop, or once the journey has ended; start again, and say what does not hold."""
        self._image.restore()
        with self._image.mounted(), self._traced() as child:
            for reached in child.stops():
                if stop is not None and (reached.number, reached.after) == (stop.number, stop.after):
                    break
            self._image.cut()
            child.kill()
            said = child.said()
        if child.exit_code not in {0, -signal.SIGKILL}:
            return self._failure(stop, f"before the cut: {said[-1] if said else child.exit_code}")
        with self._image.mounted():
            try:
                self._do(lambda: self._journey.check(self._scene, self._store, said))
            except AssertionError as error:
                return self._failure(stop, f"{error} (said: {', '.join(said) or 'nothing'})")
        return None

    def _traced(self) -> Child:
        return Child(lambda say: self._journey.run(self._scene, self._store, say), stops_below=self._image.point)

    @staticmethod
    def _do(work: Callable[[], None]) -> None:
        """Let another process do it, so that nothing of it stays in this one."""
        with Child(lambda _: work()) as child:
            child.finish()
            if child.exit_code != 0:
                said = child.said()
                raise AssertionError(said[-1] if said else f"ended with {child.exit_code}")
