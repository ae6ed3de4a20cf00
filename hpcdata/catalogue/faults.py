"""What is wanted, and why it did not come: told apart by what helps, counted by a reason that stays the same.

gone       the server says that there is nothing (404, 410): only another source helps
refused    it says that we may not (401, 403, 451 ...): a token, a licence that is accepted, another address
busy       it says later (408, 425, 429, 5xx), cannot be reached, or ends in the middle: trying again helps
wrong      what came is not what was promised: another size, another sha256, a page in place of the file

Where no sum is published, a file is told by what its kind begins and ends with: servers send pages of words, and
archives without their end, as a success.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["gone", "refused", "busy", "wrong"]
_BUSY = (408, 421, 425, 429)
_NEVER = (501, 505, 506, 510, 511)
"""Of those from 500 on, which passing gateways and overloaded servers invent freely: no later time helps."""
_GONE = (404, 410)
_BEGINS = {
    ".zip": b"PK",
    ".parquet": b"PAR1",
    ".gz": b"\x1f\x8b",
    ".tgz": b"\x1f\x8b",
    ".zst": b"\x28\xb5\x2f\xfd",
    ".png": b"\x89PNG",
    ".jpg": b"\xff\xd8",
    ".jpeg": b"\xff\xd8",
}
_ENDS = {".zip": (b"PK\x05\x06", 22 + 65535), ".parquet": (b"PAR1", 4)}
"""Bytes, and among how many last ones they stand: the directory of a zip has a comment after it."""
_PAGE = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|body|\?xml|error)\b", re.IGNORECASE)
_WORDS = re.compile(r"\.(?:x?html?|xml|svg|rdf|xmp)$", re.IGNORECASE)


class Fault(Exception):
    """reason: short and stable, such as `http 404`. detail: for a person. retry_after_s: what the server asks for."""

    def __init__(self, kind: Kind, reason: str, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.kind = kind
        self.reason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s


def fault_of_status(status: int, url: str, *, retry_after_s: float | None = None) -> Fault:
    """What a status that is no success means. url: without its query, which may hold a secret."""
    passes = status in _BUSY or (500 <= status < 600 and status not in _NEVER)
    kind: Kind = "busy" if passes else "gone" if status in _GONE else "refused"
    return Fault(kind, f"http {status}", f"{url} answers {status}", retry_after_s=retry_after_s)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A file of a set. path: below its folder. size, sha256, git_sha1 (of a git blob): what is known of it before."""

    path: str
    url: str
    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None

    def key(self) -> str:
        return hashlib.sha256(self.path.encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def is_vouched_for(self) -> bool:
        """Whether its bytes can be told right from wrong once they are whole."""
        return self.sha256 is not None or self.git_sha1 is not None

    def identity(self) -> str:
        """Of its content, as far as it is known: a part of another revision is not continued."""
        return f"{self.sha256 or self.git_sha1 or self.url} {self.size}"


def require_content(
    wanted: Wanted, size: int, sha256: str, read: Callable[[int, int], bytes], git_sha1: Callable[[], str]
) -> None:
    """read: so many bytes from a place on. Raises Fault for bytes that are not the file that is wanted."""
    if wanted.size is not None and size != wanted.size:
        raise Fault("wrong", "size", f"{wanted.path}: {size} bytes, expected {wanted.size}")
    if wanted.sha256 is not None:
        if sha256 != wanted.sha256:
            raise Fault("wrong", "sha256", f"{wanted.path}: sha256 {sha256}, expected {wanted.sha256}")
    elif wanted.git_sha1 is not None:
        if (found := git_sha1()) != wanted.git_sha1:
            raise Fault("wrong", "sha1", f"{wanted.path}: git blob {found}, expected {wanted.git_sha1}")
    else:
        _require_kind(wanted, size, read)


def _require_kind(wanted: Wanted, size: int, read: Callable[[int, int], bytes]) -> None:
    begin, ending = read(512, 0), os.path.splitext(wanted.path)[1].lower()
    if not size and wanted.size is None:
        raise Fault("wrong", "content", f"{wanted.path} is empty, and nothing says that it is to be")
    if _PAGE.match(begin) and not _WORDS.search(wanted.path):
        raise Fault("wrong", "page", f"{wanted.path} is a page of words, which begins with {begin[:40]!r}")
    mark = _BEGINS.get(ending)
    if mark is not None and not begin.startswith(mark):
        raise Fault("wrong", "content", f"{wanted.path} begins with {begin[:16]!r}, expected {mark!r}")
    last, most = _ENDS.get(ending, (b"", 0))
    if last not in read(most, max(0, size - most)):
        raise Fault("wrong", "content", f"{wanted.path}: its end did not come: {last!r} is not among its last bytes")
