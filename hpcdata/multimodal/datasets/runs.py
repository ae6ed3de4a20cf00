"""Runs of hpcdata as datasets: the raw inputs of a plan, and the files that the stage `copy` has written."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.dataset.manifest import FILE_NAME, Manifest, read_manifest
from hpcdata.multimodal.datasets.index import RecordIndex
from hpcdata.runs.inputs.planned import PlannedInput
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import load_plan
from hpcdata.shards.schema import RECORDS
from hpcdata.shards.shard import read_summary
from hpcdata.shards.stored import read_columns
from hpcdata.sources import InputFile, Scan
from hpcdata.sources.at_random import Listed

_RAW = ("copy", "fetch")
"""Stages that write raw records."""


def stage_of(path: Path) -> str | None:
    """Of a dataset, or of a run: `tokenize`, `copy`, `measure` ...; None of any other folder. Raises UserError."""
    if (path / FILE_NAME).is_file():
        return read_manifest(path).stage or "tokenize"
    return load_plan(path).config.stage if (path / "plan.json").is_file() else None


def copied(path: Path) -> tuple[list[Listed], np.ndarray] | None:
    """The files of a dataset of the stage `copy` or `fetch`, and where their records begin; None where it is none.

    Nothing is read but columns. Raises UserError for a run that is not combined yet.
    """
    if stage_of(path) not in _RAW:
        return None
    manifest = read_manifest(path)
    found, offsets = list[Listed](), [np.zeros(0, np.int64)]
    for part in manifest.parts:
        listed, seeks = _part(manifest, part.path)
        found.append(listed)
        offsets.append(seeks)
    return found, np.concatenate(offsets)


def row_files(path: Path) -> list[str] | None:
    """Of a dataset that `copy.format=hf` has made, the files of rows; None of others."""
    if stage_of(path) not in _RAW:
        return None
    manifest = read_manifest(path)
    folders = [manifest.folder / part.path for part in manifest.parts]
    names = [str(folder / read_summary(folder).header.schema.streams[0].path) for folder in folders]
    return names if names and names[0].endswith(".arrow") else None


def _part(manifest: Manifest, part: str) -> tuple[Listed, np.ndarray]:
    folder = manifest.folder / part
    summary = read_summary(folder)
    schema = summary.header.schema
    columns = read_columns(folder, schema, summary.sizes)
    (stream,) = schema.streams
    path = folder / stream.path
    file = InputFile(
        path=str(path),
        label=os.path.basename(stream.path),
        format="tar" if path.suffix == ".tar" else "jsonl",
        base=str(folder / RECORDS),
        roots=(str(folder / RECORDS),),
    )
    stat, number = os.stat(path), summary.sizes["samples"]
    listed = Listed(
        file=file, scan=Scan(num_samples=number, every=1, cuts=()), size=stat.st_size, mtime_ns=stat.st_mtime_ns
    )
    return listed, np.asarray(columns["samples/first_byte.memmap"], np.int64)


def raw_inputs(path: Path) -> list[PlannedInput] | None:
    """The inputs of a run, or of the run that a dataset lies in; None of any other folder. Raises UserError."""
    root = path if (path / "plan.json").is_file() else path.parent if (path / FILE_NAME).is_file() else None
    if root is None:
        return None
    if not (root / "plan.json").is_file():
        raise UserError(f"{path} is a dataset without its run: its raw inputs are not known, name them themselves")
    paths = RunPaths(root)
    found = []
    for item in load_plan(root).inputs:
        file = dataclasses.replace(item.file, path=str(paths.root.absolute() / item.file.path))
        if not os.path.exists(file.path):
            raise UserError(f"{file.path}, an input of {root}, is gone: restore it")
        found.append(dataclasses.replace(item, file=file))
    return found


def limited(index: RecordIndex, planned: Sequence[PlannedInput]) -> RecordIndex:
    """Those of the records that the plan takes. Raises UserError for inputs that are not as they were planned."""
    files, kept, begin = list[Listed](), list[np.ndarray](), 0
    for listed, item in zip(index.files, planned, strict=True):
        number, there = item.scan.num_samples, listed.scan.num_samples
        changed = item.changed_file(Path())
        if number > there or changed is not None:
            raise UserError(f"{changed or item.origin} has changed since it was planned: restore it")
        files.append(dataclasses.replace(listed, scan=dataclasses.replace(listed.scan, num_samples=number)))
        kept.append(index.offsets[begin : begin + number])
        begin += there
    offsets = np.concatenate([np.zeros(0, np.int64), *kept])
    return RecordIndex(files=tuple(files), offsets=offsets, asked=index.asked)
