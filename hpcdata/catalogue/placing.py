"""Sets that a person has to place: what was placed is opened, hashed and recorded, and what is missing is said."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from hpcdata.archives.members import Damaged, first_fault
from hpcdata.archives.parts import Parts
from hpcdata.archives.zips import Zip
from hpcdata.base import files, sealed
from hpcdata.base.command import quoted
from hpcdata.base.errors import Unfinished
from hpcdata.catalogue import listing
from hpcdata.catalogue.accounts import Account
from hpcdata.catalogue.entry import Entry
from hpcdata.catalogue.record import Here, Journal, Record
from hpcdata.catalogue.registry import matcher
from hpcdata.catalogue.states import missing_needs, names_below
from hpcdata.catalogue.transfer.hashing import hash_file

log = logging.getLogger(__name__)


def take_placed(entry: Entry, folder: Path, wait: Callable[[float], bool], *, anew: bool = False) -> Account:
    """Checks and records every file that a person has placed. What was recorded before is gone or changed where it is
    not as it was; anew: takes it as it is now. Raises Unfinished, with the steps, for missing ones.
    """
    with contextlib.suppress(OSError):  # the steps are said all the same
        folder.mkdir(parents=True, exist_ok=True)
    if missing := missing_needs(entry, folder):
        steps = "\n".join(f"    {number}. {step}" for number, step in enumerate(entry.steps, start=1))
        raise Unfinished(
            f"{entry.name} has to be fetched by hand. In {folder} there is no {', no '.join(missing)}.\n{steps}\n"
            f"    {len(entry.steps) + 1}. Place it in {folder}, and type: hpcdata download {quoted(entry.name)}"
        )
    record = Record(folder)
    known, wanted = record.read(), matcher(entry.needs)
    names = [name for name in names_below(folder) if wanted.fullmatch(name)]
    listed = None if anew else listing.load(folder)
    sums = {} if listed is None else {item.path: item.sha256 for item in listed.files}
    gone = sorted(sums.keys() - set(names))
    account = Account(num_files=len(names) + len(gone), failed=dict.fromkeys(gone, "gone"))
    again = f"place it again, or take what is there now: hpcdata download --update {quoted(entry.name)}"
    if gone:
        account.told["gone"] = f"{folder / gone[0]} was placed, and is gone: {again}"
    here: dict[str, Here] = {}
    journal = Journal(record, f"{os.getpid()}-{secrets.token_hex(6)}")
    with contextlib.closing(journal):
        for name in names:
            former = known.here.get(name)
            if former is not None and former.is_as_recorded(folder / name):
                here[name] = former
                account.kept += 1
                continue
            fault = fault_of(folder / name)
            if fault:
                account.failed[name] = "damaged"
                account.told.setdefault("damaged", f"{folder / name}: {fault}")
                continue
            found, sha256 = (folder / name).stat(), hash_file(folder / name, wait)
            if sums.get(name, sha256) != sha256:
                account.failed[name] = "changed"
                account.told.setdefault("changed", f"{folder / name} is not what was placed before: {again}")
                continue
            here[name] = Here(found.st_size, found.st_mtime_ns, sha256, is_sure=False)
            journal.add(name, here[name])
            account.fetched += 1
    if not account.failed and not (account.kept == len(sums) == len(names) and record.is_sealed()):
        _freeze(entry, folder, here)
        record.seal(here)
    return account


def _freeze(entry: Entry, folder: Path, here: dict[str, Here]) -> None:
    found = [listing.Listed(name, item.size, item.sha256, None, None, None, "by hand") for name, item in here.items()]
    values = {"sources": listing.sources_of(entry), "files": [list(vars(item).values()) for item in found]}
    files.write_atomic(listing.path_of(folder), sealed.to_json(values))


def fault_of(path: Path) -> str | None:
    """What is wrong with a file, as far as its kind says: archives by their sums, JSON by its grammar."""
    suffix = path.suffix.lower()
    if path.stat().st_size == 0:
        return "it is empty"
    try:
        if suffix == ".zip":
            with Parts((str(path),)) as parts:
                return first_fault(Zip(parts).entries())
        if suffix == ".json":
            json.loads(path.read_bytes())
    except (Damaged, ValueError, RecursionError) as error:
        return f"it is no {suffix[1:]}: {error}"
    return None
