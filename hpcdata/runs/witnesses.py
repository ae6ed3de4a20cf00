"""Files of records that were there when a run was planned: a machine on which they are missing lacks a file system.

A record whose picture is missing is a reject. On a node where a mount is missing, all of them would be: so before a
task makes rejects for missing files safe, it looks for these files, which stand in the plan (`Plan.witnesses`).
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcdata import sources
from hpcdata.base import reads
from hpcdata.base.errors import UserError
from hpcdata.runs.inputs.planned import PlannedInput
from hpcdata.runs.plan import Plan
from hpcdata.samples import ImagePart, Record, Sample
from hpcdata.sources import Options
from hpcdata.sources.base import refusing_faults

MOST_INPUTS = 16
_ALONE = ("jsonl", "listing")
"""Formats of records that refer to files of their own."""


class MachineFault(UserError):
    """This machine, and no record, is at fault: its task stops."""


def find(root: Path, planned: Sequence[PlannedInput], options: Options) -> tuple[str, ...]:
    """Paths of some files of the records of a new plan, if there are any and they are there. root: the run's folder.

    Raises UserError where an input cannot be read.
    """
    inputs = [item for item in planned if item.file.format.startswith(_ALONE) and item.scan.num_samples]
    every = -(-len(inputs) // MOST_INPUTS) or 1
    return tuple(dict.fromkeys(path for item in inputs[::every] for path in _files_of(root, item, options)))


def require(plan: Plan) -> None:
    """Raises MachineFault when half of the files that the plan names, or more, are missing here."""
    files = plan.witnesses
    missing = [path for path in files if not reads.kind_of(path)]
    if missing and 2 * len(missing) >= len(files):
        raise MachineFault(
            f"{len(missing)} of {len(files)} files that were there when the run was planned are missing on "
            f"{socket.gethostname()}, such as {missing[0]}: is a file system not mounted? Nothing is rejected for it. "
            "If they were removed on purpose, resume with data.on_changed_input=reject"
        )


def _files_of(root: Path, item: PlannedInput, options: Options) -> Iterator[str]:
    """Files of the first record, and of the first one behind the last cut where that can be sought."""
    file = dataclasses.replace(item.file, path=str(root / item.file.path))
    last = (len(item.scan.cuts) - 1) * item.scan.every
    positions = {0} if file.format.endswith((".gz", ".zst")) else {0, max(0, min(last, item.scan.num_samples - 1))}
    for position in sorted(positions):
        with refusing_faults(file.path):
            yield from filter(_is_there, _own_files(_record(file, item.scan, position, options)))


def _record(file: sources.InputFile, scan: sources.Scan, position: int, options: Options) -> Record | None:
    """None for one whose own file cannot be read."""
    try:
        return next(sources.read(file, scan, first=position, count=1, options=options))
    except OSError as error:
        if error.filename == file.path:
            raise
        return None


def _is_there(path: str) -> bool:
    try:
        return bool(reads.kind_of(path))
    except OSError:  # no witness
        return False


def _own_files(record: Record | None) -> list[str]:
    if not isinstance(record, Sample):
        return []
    pictures = [part.blob for part in record.parts if isinstance(part, ImagePart)]
    blobs = (*pictures, *(member.blob for member in record.members))
    return [blob.path for blob in blobs if blob.data is None and blob.name]
