"""The published tree over HTTP (RFC 9110), on top of Starlette's static files."""

import hashlib
import os
import re
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Receive, Scope, Send

from overair.model.manifest import MAX_MANIFEST_BYTES

_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_NAMED_BY_DIGEST: Final = re.compile(
    r"/(?:blobs/sha256/[0-9a-f]{2}|targets/[^/]+)/(?P<digest>[0-9a-f]{64})(?:\.manifest\.json)?"
)
_VERSIONED: Final = re.compile(r"/metadata/\d+\.[^/]+\.json")
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_ASK_AGAIN: Final = "no-cache"


class _File(FileResponse):
    chunk_size = 1 << 20


class StaticTree(StaticFiles):
    """An ASGI application that serves a published tree, read-only."""

    def __init__(self, folder: Path) -> None:
        super().__init__(directory=folder)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            await super().__call__(_without_vain_range(scope), receive, send)
        except HTTPException as error:
            answer = PlainTextResponse(f"{error.detail}\n", status_code=error.status_code, headers=error.headers)
            await answer(scope, receive, send)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Find the file of a request; only names that a published tree can have are looked for."""
        parts = scope["path"].removeprefix("/").split("/")
        if not all(_PART.fullmatch(part) for part in parts) or parts[-1].endswith(".tmp"):
            raise HTTPException(status_code=404)
        return await super().get_response(path, scope)

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Give a file its validator and how long it may be kept."""
        place = scope["path"]
        named = _NAMED_BY_DIGEST.fullmatch(place)
        if named is not None:
            response: Response = _from_disk(full_path, stat_result, named["digest"], _FOR_EVER)
        elif _VERSIONED.fullmatch(place):
            response = _from_disk(full_path, stat_result, _identity(stat_result), _FOR_EVER)
        elif stat_result.st_size <= MAX_MANIFEST_BYTES:
            response = _from_memory(Path(full_path), status_code)
        else:
            response = _from_disk(full_path, stat_result, _identity(stat_result), _ASK_AGAIN)
        if self.is_not_modified(response.headers, Headers(scope=scope)):
            return NotModifiedResponse(response.headers)
        return response


def _from_disk(path: str | os.PathLike[str], status: os.stat_result, tag: str, cache_control: str) -> FileResponse:
    return _File(path, stat_result=status, headers={"etag": f'"{tag}"', "cache-control": cache_control})


def _from_memory(path: Path, status_code: int) -> Response:
    """A file that is replaced from time to time, read at once: its length, its tag and its bytes are of one file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise HTTPException(status_code=404) from error
    headers = {"etag": f'"{hashlib.sha256(data).hexdigest()}"', "cache-control": _ASK_AGAIN}
    media_type = "application/json" if path.suffix == ".json" else "application/octet-stream"
    return Response(data, status_code=status_code, headers=headers, media_type=media_type)


def _identity(status: os.stat_result) -> str:
    """Starlette's own tag goes by the time, rounded, and the length alone: a file replaced at once may keep it."""
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def _without_vain_range(scope: Scope) -> Scope:
    """Drop a Range that must be ignored: of any method but GET, or in another unit (RFC 9110 section 14.2)."""

    def counts(name: bytes, value: bytes) -> bool:
        in_bytes = value.strip().lower().startswith(b"bytes")
        return name != b"range" or (scope["method"] == "GET" and in_bytes)

    return {**scope, "headers": [(name, value) for name, value in scope["headers"] if counts(name, value)]}
