"""Metadata files: their names, their limits, and what is said when one is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from tuf.api.exceptions import LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import Metadata, Root, Signed, Targets

from overair.errors import ExpiredError, IntegrityError, TrustError

MAX_ROOT_BYTES: Final = 512_000
MAX_TIMESTAMP_BYTES: Final = 16_384
MAX_SNAPSHOT_BYTES: Final = 2_000_000
MAX_TARGETS_BYTES: Final = 5_000_000

_ONLINE: Final = frozenset({"timestamp", "snapshot"})


@contextmanager
def refusals(what: object, *, hint: str) -> Iterator[None]:
    """Turn what python-tuf refuses in the block into our errors; the text of `what` names the file.

    Raises:
        IntegrityError: Another length or digest than signed.
        TrustError: Anything else: signatures, threshold, versions, form.
    """
    try:
        yield
    except LengthOrHashMismatchError as error:
        raise IntegrityError(f"{what} is not what was signed: {_first_line(error)}", hint=hint) from error
    except RepositoryError as error:
        raise TrustError(f"{what} is not trusted: {_first_line(error)}", hint=hint) from error


def check_root(data: bytes, *, what: str = "the root to embed") -> int:
    """Check that `data` is root metadata signed by itself (TUF 5.2), and return its version.

    It may have expired: a chain of roots may lead from it to one that has not.

    Raises:
        TrustError: It is not.
    """
    with refusals(what, hint="embed the root.json that the publisher's `overair repo init` wrote"):
        if len(data) > MAX_ROOT_BYTES:
            raise RepositoryError(f"it has more than {MAX_ROOT_BYTES} bytes")
        root = Metadata[Root].from_bytes(data)
        if not isinstance(root.signed, Root):
            raise RepositoryError(f"it holds {str(root.signed.type)[:40]}, not root")
        root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
    return root.signed.version


def expired(role: str, expires: datetime, now: datetime) -> ExpiredError:
    """The error for a role whose metadata ran out at `expires`, when it is `now`."""
    cure = "run: overair repo refresh" if role in _ONLINE else f"sign {role} anew: overair repo check says how"
    return ExpiredError(
        f"the {role} metadata expired on {expires:%Y-%m-%d %H:%M} UTC, and this clock says {now:%Y-%m-%d %H:%M} UTC",
        hint=f"if the clock is right, the publisher must {cure}; what is installed keeps running",
    )


def expiry(data: bytes) -> datetime:
    """When metadata, verified before, expires."""
    signed: Signed = Metadata[Targets].from_bytes(data).signed
    return signed.expires


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return "".join(c if c.isprintable() else "?" for c in lines[0])[:200]
