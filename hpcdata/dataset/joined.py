"""Columns of many parts in one file each: `columns/samples/index.memmap` and the like, beside `parts/`.

Every lookup reads seven columns of a part. For ten thousand parts these are more maps than the kernel allows a
process, and as many `open()`s before the first epoch is over. What is not ids is a few hundredths of a dataset, so
combine copies it once, and a part costs a loader one map. The rows of all parts stand end to end, as they are: offsets
are still those of a part. Parts stay whole: a dataset without these files is the same dataset.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from hpcdata.base import files
from hpcdata.base.digest import sha256_file
from hpcdata.dataset.manifest import Group, Manifest
from hpcdata.shards.columns import columns
from hpcdata.shards.compact import file_chunks, write_hashed
from hpcdata.shards.schema import Column
from hpcdata.shards.shard import read_summary

FOLDER = "columns"
MIN_PARTS = 500
"""Fewer parts are as fast without."""


def joined_columns(id_dtype: str) -> list[Column]:
    """All but the ids, and the keys, which no batch needs."""
    found = [column for column in columns(id_dtype) if column.table in ("spans", "samples")]
    return [column for column in found if column.name != "first_key"]


def groups_of(manifest: Manifest) -> tuple[Group, ...]:
    return manifest.groups or (Group(manifest.folder, 0, len(manifest.parts), bool(manifest.joined)),)


def _columns(dataset: Path, manifest: Manifest) -> list[Column]:
    """What is joined of these parts; nothing of a stage that writes more than columns."""
    if manifest.id_dtype:
        return joined_columns(manifest.id_dtype)
    schema = read_summary(dataset / manifest.parts.path[0]).header.schema
    of_rows = [column for column in schema.columns if column.table in ("spans", "samples")]
    return [column for column in of_rows if column.name != "first_key"] if schema.is_columns_only else []


def pays(dataset: Path, manifest: Manifest) -> bool:
    """Of tokens where there are many parts; of a stage that writes columns alone always."""
    if not any(manifest.parts.samples):
        return False
    if manifest.id_dtype:
        return len(manifest.parts) >= MIN_PARTS and any(manifest.parts.spans)
    return bool(_columns(dataset, manifest))


def join(dataset: Path, manifest: Manifest) -> Manifest:
    """Writes the columns of the parts in the folder `dataset`, durably; returns the manifest that says so."""
    written = {}
    for column in _columns(dataset, manifest):
        path = dataset / FOLDER / column.path
        path.parent.mkdir(parents=True, exist_ok=True)
        of_parts = (dataset / part / column.path for part in manifest.parts.path)
        written[column.path] = write_hashed(path, (chunk for file in of_parts for chunk in file_chunks(file)))
        files.sync_file(path)
    for folder in sorted({(dataset / FOLDER / path).parent for path in written}):
        files.sync_folder(folder)
    files.sync_folder(dataset / FOLDER)
    return dataclasses.replace(manifest, extra={**manifest.extra, "joined": written})


def problems_of(manifest: Manifest) -> list[str]:
    """Where joined columns are not what combine wrote, or not those of the parts."""
    problems = []
    for path, recorded in manifest.joined.items():
        file, of_parts = manifest.folder / FOLDER / path, hashlib.sha256()
        for part in manifest.parts.path:
            for chunk in file_chunks(manifest.folder / part / path):
                of_parts.update(chunk)
        if not file.exists():
            problems.append(f"{FOLDER}/{path} is missing")
        elif sha256_file(file) != recorded:
            problems.append(f"{FOLDER}/{path} does not have the sha256 in manifest.json")
        if of_parts.hexdigest() != recorded:
            problems.append(f"{FOLDER}/{path} is not the columns of the parts")
    return problems
