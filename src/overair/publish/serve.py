"""A static server that does on this machine what any CDN does with a published tree.

For development only: it speaks plain HTTP, and listens to this machine alone unless told otherwise.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from overair.errors import UsageError
from overair.publish.tree import SETTINGS_NAME

if TYPE_CHECKING:
    import uvicorn

DEFAULT_HOST: Final = "127.0.0.1"
_SHUTDOWN_SECONDS: Final = 1


class Server:
    """Serves a folder from a thread, for as long as the block runs.

    Args:
        folder: The published tree.
        host: The address to listen on.
        port: The port; 0 takes a free one.

    Raises:
        UsageError: The folder does not exist, the address cannot be had, or the extra `publish` is not installed.
    """

    def __init__(self, folder: str | Path, *, host: str = DEFAULT_HOST, port: int = 0) -> None:
        self._listener, self._server = _prepare(Path(folder), host, port)
        self._thread = threading.Thread(target=self._run, name="overair-serve", daemon=True)
        self.url = _url(self._listener)

    def __enter__(self) -> Self:
        # The socket listens already, so whoever connects before the thread runs only waits a little.
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        asyncio.run(_serve(self._server, self._listener))


def serve_forever(
    folder: str | Path,
    *,
    host: str = DEFAULT_HOST,
    port: int = 0,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a repository until the process is interrupted.

    Args:
        folder: The published tree.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        on_ready: Called with the URL once connections are accepted.

    Raises:
        UsageError: There is no repository in the folder, or as `Server`.
    """
    if not (Path(folder) / SETTINGS_NAME).is_file():
        raise UsageError(f"no repository in {folder}", hint="make one with: overair repo init")
    listener, server = _prepare(Path(folder), host, port)
    if on_ready is not None:
        on_ready(_url(listener))
    with contextlib.closing(listener), contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(server, listener))


async def _serve(server: "uvicorn.Server", listener: socket.socket) -> None:
    try:
        await server.serve(sockets=[listener])
    finally:
        # Uvicorn waits for downloads under way, then leaves what is left of them open.
        for connection in list(server.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.gather(*server.server_state.tasks, return_exceptions=True)


def _prepare(folder: Path, host: str, port: int) -> tuple[socket.socket, "uvicorn.Server"]:
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}", hint="make a repository with: overair repo init")
    try:
        import uvicorn

        from overair.publish.static import StaticTree
    except ImportError as error:
        raise UsageError(
            f"the development server is not installed: {error.name} is missing", hint="pip install 'overair[publish]'"
        ) from error
    config = uvicorn.Config(
        StaticTree(folder),
        log_config=None,
        log_level="critical",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    return _listen(host, port), uvicorn.Server(config)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror or error}", hint="use --port 0 for a free port"
        ) from error


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
