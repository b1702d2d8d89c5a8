"""The command line that the TUF conformance suite drives, over the code that devices run.

    client.py --metadata-dir D init ROOT
    client.py --metadata-url U --metadata-dir D refresh
    client.py --metadata-url U --metadata-dir D --target-name P --target-dir T --target-base-url B download

`--target-name` may come several times.

Exit code 0 for success, 1 for a refusal. With the suite checked out and its requirements installed beside Overair's:

    pytest tuf_conformance --entrypoint "python /path/to/tests/conformance/client.py"
"""

import argparse
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from overair.errors import NetworkError, OverairError
from overair.store.durable import make_directory, write_file
from overair.transport.http import HTTP, Document
from overair.trust.client import TrustClient, embed_root

REFRESH_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """Metadata in a folder, under the names that the suite looks for."""

    folder: Path

    def read(self, name: str) -> bytes | None:
        """The content of a file, or None."""
        path = self.folder / name
        return path.read_bytes() if path.is_file() else None

    def write(self, name: str, data: bytes) -> None:
        """Replace a file's content durably."""
        path = self.folder / name
        make_directory(path.parent)
        write_file(path, data)


def main() -> int:
    """Do what the command line says."""
    args = _arguments()
    files = FolderFiles(args.metadata_dir)
    try:
        if args.command == "init":
            embed_root(files, args.root.read_bytes())
            return 0
        with HTTP() as http:
            client = _client(files, http, args.metadata_url)
            client.refresh()
            for name in args.target_name if args.command == "download" else ():
                _download(client, name, args.target_base_url, args.target_dir)
    except OverairError as error:
        print(f"{type(error).__name__}: {error}\nhint: {error.hint}", file=sys.stderr)
        return 1
    return 0


def _client(files: FolderFiles, http: HTTP, metadata_url: str) -> TrustClient:
    deadline = time.monotonic() + REFRESH_TIMEOUT_S

    def fetch(url: str, max_bytes: int, /) -> bytes:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise NetworkError(f"cannot fetch {url}: the refresh took longer than {REFRESH_TIMEOUT_S} s")
        document = http.get(url, max_bytes=max_bytes, total_timeout_s=left_s)
        if not isinstance(document, Document):
            raise NetworkError(f"cannot fetch {url}: the server says that nothing changed")
        return document.data

    return TrustClient(files, metadata_url=metadata_url, fetch=fetch, now=datetime.now(UTC))


def _download(client: TrustClient, name: str, base_url: str, folder: Path) -> None:
    path = folder / quote(name, "")
    present = path.read_bytes() if path.is_file() else None
    data = client.fetch_target(name, base_url, cached=present)
    if data != present:
        write_file(path, data)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="a TUF client for the conformance suite")
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-dir", type=Path)
    parser.add_argument("--target-base-url")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
