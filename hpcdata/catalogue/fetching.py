"""All files of a set: what is listed and not recorded, brought by all processes that work on the same folder.

The claim of a process that died is taken over, and its parts are continued. That is why an array of tasks needs nothing
else: each runs the same line.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from hpcdata.catalogue import listing
from hpcdata.catalogue.accounts import Account, Options, is_here
from hpcdata.catalogue.entry import Entry
from hpcdata.catalogue.faults import Fault
from hpcdata.catalogue.listing import Listed, Listing
from hpcdata.catalogue.record import Follower, Journal, Record
from hpcdata.catalogue.settings import OFFLINE, Hub
from hpcdata.catalogue.sharing import Work
from hpcdata.catalogue.web import Web
from hpcdata.runs.claims import Claims, Owner

_OFFLINE = f"{OFFLINE[0]} or {OFFLINE[1]} is set"


def fetch_set(
    entry: Entry, folder: Path, web: Web, hub: Hub, options: Options, wait: Callable[[float], bool]
) -> Account:
    """Brings what is missing of a set. wait: sleeps, True to stop. Raises Fault when it cannot be listed, Failed when
    the disk is full.
    """
    record = Record(folder)
    listed = _known_listing(entry, folder, web, hub, options)
    known = record.read()
    missing = [item for item in listed.files if not is_here(item, known, folder)]
    account = Account(num_files=len(listed.files), kept=len(listed.files) - len(missing))
    if not missing and record.is_sealed() and len(known.here) == len(listed.files):
        return account
    if hub.is_offline and (gone := [item for item in missing if not _may_be_here(item, folder)]):
        raise Fault("refused", "offline", f"{len(gone)} of {len(listed.files)} files are missing, and {_OFFLINE}")
    attempt = f"{os.getpid()}-{secrets.token_hex(6)}"
    claims = Claims(record.own / "claims", Owner.of_this_process(attempt), timeout_s=options.lease_s)
    journal = Journal(record, attempt)
    with contextlib.closing(journal), claims:
        work = Work(entry, folder, web, hub, options, wait, claims, journal, account, Follower(record, without=attempt))
        work.require_room(missing)
        work.run(listed.files, {item.path for item in missing})
    if not account.failed and not account.is_stopped and not account.is_waiting:
        _seal(record, listed, folder, account)
    return account


def _known_listing(entry: Entry, folder: Path, web: Web, hub: Hub, options: Options) -> Listing:
    if hub.is_offline:
        found = listing.load(folder)
        if found is None:
            raise Fault("refused", "offline", f"nothing of {entry.name} is in {folder}, and {_OFFLINE}")
        return found
    return listing.freeze(entry, folder, web, hub, patience_s=options.patience_s, anew=options.anew)


def _may_be_here(item: Listed, folder: Path) -> bool:
    """Of its size, and so worth being hashed: copies have another time than was recorded."""
    path = folder / item.path
    return path.is_file() and item.size in (None, path.stat().st_size)


def _seal(record: Record, listed: Listing, folder: Path, account: Account) -> None:
    """Once nothing is missing: one record, no parts of anything, and nothing of revisions before."""
    known = record.read()
    if gone := [item.path for item in listed.files if not is_here(item, known, folder)]:
        account.failed |= dict.fromkeys(gone, "changed")
        account.told["changed"] = (
            f"{gone[0]} was fetched, and is not as it was: somebody has changed it since, or {folder} takes two names, "
            "such as a and A, for one"
        )
        account.fetched = min(account.fetched, account.num_files - len(gone))
        account.kept = account.num_files - len(gone) - account.fetched
        return
    for path in listed.stale:
        if path in known.here and known.here[path].is_as_recorded(folder / path):
            (folder / path).unlink()
            account.removed += 1
    record.seal({item.path: known.here[item.path] for item in listed.files})
    shutil.rmtree(record.own / "parts", ignore_errors=True)
