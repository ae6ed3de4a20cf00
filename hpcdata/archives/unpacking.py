"""All archives of a source into one folder: one process at a time, and an account of every member beside it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from hpcdata.archives.journal import Journal
from hpcdata.archives.onearchive import BY_SIZE, Limits, Unpacked, unpack_archive
from hpcdata.archives.parts import Archive, find_archives
from hpcdata.base.errors import Unfinished
from hpcdata.runs.claims import Claims, Owner

CLAIM_TIMEOUT_S = 120.0


def unpack(source: str, out: Path, *, limits: Limits = BY_SIZE) -> list[Unpacked]:
    """All archives of a file, folder, glob or brace list into `out`. Raises UserError."""
    return unpack_found(find_archives(source), out, limits=limits)


def unpack_found(
    archives: Sequence[Archive], out: Path, *, limits: Limits = BY_SIZE, renews: bool = False
) -> list[Unpacked]:
    """renews: see `unpack_archive`. Raises UserError."""
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    claims_folder = out.with_name(f".{out.name}.claims")
    owner = Owner.of_this_process(f"unpack-{os.getpid()}-{time.time_ns()}")
    try:
        with Claims(claims_folder, owner, timeout_s=CLAIM_TIMEOUT_S) as claims:
            if not claims.try_claim("unpack"):
                raise Unfinished(f"another process is unpacking into {out}: wait for it, then run this again")
            with Journal(out.with_name(f"{out.name}.members.csv")) as journal:
                return [unpack_archive(item, out, journal, limits=limits, renews=renews) for item in archives]
    finally:
        with contextlib.suppress(OSError):
            claims_folder.rmdir()
