"""The socket that systemd listens on, for what a service says to it."""

import socket
import threading
from pathlib import Path
from typing import Self


class Notified:
    """Collects what is sent to a real datagram socket; a context manager.

    Args:
        address: A path, or a name that is no file, as `@name`.
    """

    def __init__(self, address: Path | str) -> None:
        self.address = str(address)
        self.messages: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{self.address[1:]}" if self.address.startswith("@") else self.address)
        self._socket.settimeout(0.05)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    @property
    def lines(self) -> list[str]:
        return [line for message in list(self.messages) for line in message.splitlines()]

    def count(self, line: str) -> int:
        return self.lines.count(line)

    def _listen(self) -> None:
        while not self._ended.is_set():
            try:
                self.messages.append(self._socket.recv(4096).decode())
            except TimeoutError:
                continue
