"""Which sets a folder holds: a folder each, of Parquet, or of JSON whose pictures lie beside it or in archives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcdata.base.errors import UserError
from hpcdata.base.reads import kind_of, walk
from hpcdata.formats.sets.mapping import read_mapping
from hpcdata.sources.base import refusing_faults


@dataclass(frozen=True, kw_only=True)
class TableSet:
    folder: Path
    json_name: str
    """Of the JSON that is made of it."""


@dataclass(frozen=True, kw_only=True)
class Sets:
    of_tables: list[TableSet]
    of_json: list[str]
    """Names of folders."""


def find_sets(source: Path, only: Sequence[str], mapping: Path | None, *, without: Path | None = None) -> Sets:
    """In the order of their names. Raises UserError for sets that are not there, and where there is none.

    without: a folder that is none, where what is made of them lies among them.
    """
    names = read_mapping(mapping) if mapping else {}
    with refusing_faults(str(source)):
        if kind_of(str(source)) != "folder":
            raise UserError(f"{source} is no folder")
        found = sorted(
            name
            for name in os.listdir(source)
            if name[0] != "." and kind_of(str(source / name)) == "folder" and source.absolute() / name != without
        )
    if missing := [name for name in only if name not in found]:
        raise UserError(f"{source} has no set {missing[0]}: it has {', '.join(found) or 'none'}")
    wanted = [name for name in found if not only or name in only]
    tables = [name for name in wanted if _holds(source / name, ".parquet")]
    of_json = [name for name in wanted if name not in tables and _holds(source / name, ".json", ".jsonl")]
    if not tables and not of_json:
        raise UserError(f"{source} has no folder with Parquet or JSON in it")
    return Sets(
        of_tables=[TableSet(folder=source / name, json_name=names.get(name, f"{name}.json")) for name in tables],
        of_json=of_json,
    )


def _holds(folder: Path, *endings: str) -> bool:
    """Whether files with such an ending lie in a folder or below it."""
    with refusing_faults(str(folder)):
        for _, folders, files in walk(folder):
            folders[:] = [name for name in folders if name[0] != "."]
            if any(name.endswith(endings) for name in files):
                return True
    return False
