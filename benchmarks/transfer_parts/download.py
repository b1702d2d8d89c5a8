"""One download, in this process, by Overair or by a Python library: what `benchmarks/transfer.py` starts and measures.

    download.py WHO URL DESTINATION SIZE_BYTES SHA256 CA_FILE CHUNK_INDEX

Prints the seconds of the transfer alone: without the start of Python, and without imports of the library itself. Each
library is used as its documentation shows, with blocks of 1 MiB where it asks for a size. None of them calls fsync;
`huggingface_hub` and `pooch` read what they wrote once more for its digest, the others verify nothing.
"""

import asyncio
import hashlib
import importlib
import ssl
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """What to fetch, and where to."""

    url: str
    destination: Path
    size_bytes: int
    sha256: str
    ca_file: str | None
    index: Path


def library(name: str) -> Any:
    """An installed library, whether or not it has types."""
    return importlib.import_module(name)


def write(job: Job, blocks: Iterable[bytes]) -> None:
    with job.destination.open("wb") as file:
        for block in blocks:
            file.write(block)


def with_requests(job: Job) -> Callable[[], object]:
    requests = library("requests")

    def run() -> None:
        with requests.get(job.url, stream=True, verify=job.ca_file or True, timeout=60) as answer:
            write(job, answer.iter_content(BLOCK_BYTES))

    return run


def with_urllib3(job: Job) -> Callable[[], object]:
    urllib3 = library("urllib3")

    def run() -> None:
        with urllib3.PoolManager(ca_certs=job.ca_file) as pool:
            write(job, pool.request("GET", job.url, preload_content=False).stream(BLOCK_BYTES))

    return run


def with_httpx(job: Job) -> Callable[[], object]:
    httpx = library("httpx")
    context = ssl.create_default_context(cafile=job.ca_file)

    def run() -> None:
        with httpx.stream("GET", job.url, verify=context, timeout=60) as answer:
            write(job, answer.iter_bytes())

    return run


def with_aiohttp(job: Job) -> Callable[[], object]:
    aiohttp = library("aiohttp")
    context = ssl.create_default_context(cafile=job.ca_file)

    async def fetch() -> None:
        async with aiohttp.ClientSession() as session, session.get(job.url, ssl=context) as answer:
            with job.destination.open("wb") as file:
                async for block in answer.content.iter_chunked(BLOCK_BYTES):
                    file.write(block)

    return lambda: asyncio.run(fetch())


def with_obstore(job: Job) -> Callable[[], object]:
    obstore = library("obstore")
    http_store = library("obstore.store").HTTPStore
    base, _, name = job.url.rpartition("/")
    options = {"allow_http": True, "allow_invalid_certificates": job.ca_file is not None}

    def run() -> None:
        write(job, obstore.get(http_store.from_url(base, client_options=options), name).stream())

    return run


def with_pooch(job: Job) -> Callable[[], object]:
    pooch = library("pooch")
    folder, name = job.destination.parent, job.destination.name
    downloader = pooch.HTTPDownloader(verify=job.ca_file or True, progressbar=False)
    return lambda: pooch.retrieve(
        job.url, known_hash=f"sha256:{job.sha256}", fname=name, path=folder, downloader=downloader
    )


def with_huggingface(job: Job) -> Callable[[], object]:
    library("huggingface_hub.utils").disable_progress_bars()
    http_get = library("huggingface_hub.file_download").http_get

    def run() -> None:
        with job.destination.open("wb") as file:
            http_get(job.url, file, expected_size=job.size_bytes)
        with job.destination.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != job.sha256:
                raise SystemExit("huggingface_hub wrote another file")

    return run


def with_overair(job: Job, connections: int | None) -> Callable[[], object]:
    from overair.formats.chunks import CHUNK_BYTES, read_chunk_index
    from overair.store.pieces import Pieces
    from overair.transport.chunked import ChunkedDownload
    from overair.transport.http import HTTP

    digests = read_chunk_index(job.index.read_bytes(), size_bytes=job.size_bytes, chunk_bytes=CHUNK_BYTES)

    def run() -> None:
        with (
            HTTP(ca_file=Path(job.ca_file) if job.ca_file else None) as web,
            Pieces.open(job.destination.parent, job.sha256, job.size_bytes, CHUNK_BYTES) as pieces,
        ):
            done = ChunkedDownload(web, urls=[job.url], digests=digests, file=pieces, connections=connections).run()
        done.rename(job.destination)

    return run


WHO: dict[str, Callable[[Job], Callable[[], object]]] = {
    "overair": lambda job: with_overair(job, None),
    "overair-1": lambda job: with_overair(job, 1),
    "overair-4": lambda job: with_overair(job, 4),
    "aiohttp": with_aiohttp,
    "httpx": with_httpx,
    "huggingface_hub": with_huggingface,
    "obstore": with_obstore,
    "pooch": with_pooch,
    "requests": with_requests,
    "urllib3": with_urllib3,
}


def main(who: str, *about: str) -> None:
    url, destination, size, sha256, ca_file, index = about
    job = Job(url, Path(destination), int(size), sha256, ca_file or None, Path(index))
    run = WHO[who](job)
    began = time.perf_counter()
    run()
    print(time.perf_counter() - began)
    if job.destination.exists() and job.destination.stat().st_size != job.size_bytes:
        raise SystemExit(f"{who} wrote {job.destination.stat().st_size} of {job.size_bytes} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
