"""Files of records that were there when a run was planned: a machine on which they are missing lacks a file system.

A record whose picture is missing is a reject. On a node where a mount is missing, all of them would be: so before a
task makes rejects for missing files safe, it looks for these files.

    OUT/witnesses.json   {"files": ["/data/cc3m/000001.jpg", ...]}
"""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path

from hpcdata import sources
from hpcdata.base import reads, sealed
from hpcdata.base.errors import UserError
from hpcdata.base.files import write_atomic
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan, PlannedInput
from hpcdata.runs.stage import find_stage
from hpcdata.samples import ImagePart, Sample

MOST_INPUTS = 16
NAME = "witnesses.json"
_ALONE = ("jsonl", "listing")
"""Formats of records that refer to files of their own."""


class MachineFault(UserError):
    """This machine, and no record, is at fault: its task stops."""


def note(paths: RunPaths, plan: Plan) -> None:
    """Writes down some files of the plan's records, if there are any and they are there."""
    inputs = [item for item in plan.inputs if item.file.format.startswith(_ALONE) and item.scan.num_samples]
    every = -(-len(inputs) // MOST_INPUTS) or 1
    found = [path for item in inputs[::every] for path in _files_of(paths, plan, item)]
    if found:
        write_atomic(paths.root / NAME, sealed.to_json({"files": list(dict.fromkeys(found))}))
    else:
        (paths.root / NAME).unlink(missing_ok=True)  # of a plan that this one has replaced


def require(root: Path) -> None:
    """Raises MachineFault when half of the noted files, or more, are missing here."""
    try:
        files = [str(path) for path in sealed.read_json(root / NAME)["files"]]
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return
    missing = [path for path in files if not reads.kind_of(path)]
    if missing and 2 * len(missing) >= len(files):
        raise MachineFault(
            f"{len(missing)} of {len(files)} files that were there when the run was planned are missing on "
            f"{socket.gethostname()}, such as {missing[0]}: is a file system not mounted? Nothing is rejected for it. "
            "If they were removed on purpose, resume with data.on_changed_input=reject"
        )


def _files_of(paths: RunPaths, plan: Plan, item: PlannedInput) -> list[str]:
    """Files of the first record, and of the first one behind the last cut where that can be sought."""
    options, file = find_stage(plan.config.stage).options(plan.config), item.file
    last = (len(item.scan.cuts) - 1) * item.scan.every
    positions = {0} if file.format.endswith((".gz", ".zst")) else {0, max(0, min(last, item.scan.num_samples - 1))}
    found = list[str]()
    for position in sorted(positions):
        try:
            located = dataclasses.replace(file, path=str(paths.root / file.path))
            for record in sources.read(located, item.scan, first=position, count=1, options=options):
                found += [path for path in _own_files(record) if reads.kind_of(path)]
        except (OSError, UserError):
            continue
    return found


def _own_files(record: object) -> list[str]:
    if not isinstance(record, Sample):
        return []
    pictures = [part.blob for part in record.parts if isinstance(part, ImagePart)]
    blobs = (*pictures, *(member.blob for member in record.members))
    return [blob.path for blob in blobs if blob.data is None and blob.name]
