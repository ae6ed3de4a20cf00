"""A LLaVA folder: one JSON of all records, their pictures under names that follow from the ids, and what was left out.

    NAME.json       [{"id": ..., "image": "image/a.jpg", "conversations": [...], ...}, ...]; NAME.jsonl: a line each
    image/          hard links of the pictures that the shards of stage=convert hold
    names.csv       id,source,row,file of each picture
    rejects.csv     id,reason of each record that was left out

Records stand in the order of their rows. The first record with an id has its plain name (`a.jpg`), the others their
index in the plan behind it (`a~17.jpg`); ids that differ only by what some file system takes for the same, as capital
letters, count as equal. Nothing is held of a record but 8 bytes of its name.
"""

from __future__ import annotations

import csv
import heapq
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from hpcdata.base.errors import Failed
from hpcdata.dataset.manifest import Manifest
from hpcdata.formats.arranging import Building
from hpcdata.shards.recovered import PREFIX, read_recovered
from hpcdata.shards.reject_ledger import DUPLICATE, read_rejects
from hpcdata.shards.schema import FILES
from hpcdata.shards.shard import ListedFile, read_listing, read_summary
from hpcdata.shards.stored import key_of, plain_columns
from hpcdata.sources.pictures.names import names_of

FORMAT = "llava-parquet"
IMAGES, NAMES, REJECTS = "image", "names.csv", "rejects.csv"
LINES = ".jsonl"
NOTES = {
    1: "markers_unlike_pictures",
    2: "markers_put_in",
    4: "prompts_put_in",
    8: "empty_pictures_left_out",
    16: "no_id",
    32: "other_bytes_left_out",
}
"""Bits of `samples/notes` of the stage -> what is counted of them."""


@dataclass(frozen=True, kw_only=True)
class LlavaFolder:
    """What the folder is to be."""

    json_name: str
    image_prefix: str
    """What stands before the names of pictures in the records."""

    def options(self) -> dict[str, Any]:
        return {"json_name": self.json_name}

    def fill(self, building: Building, manifest: Manifest) -> dict[str, Any]:
        """Gives the folder its files; returns the facts of it. Raises Failed where a part is damaged."""
        parts = [manifest.folder / part.path for part in manifest.parts]
        counted = _Counted()
        try:
            names = _Names(parts)
            with building.open(self.json_name) as json_file, building.open(NAMES) as names_file:
                names_file.append(_csv_line("id", "source", "row", "file"))
                separator = b"" if self.json_name.endswith(LINES) else b"[\n"
                for row in _rows(parts):
                    line, files = self._placed(row, names)
                    for item, name in zip(row.files, files, strict=True):
                        building.link(f"{row.folder}/{FILES}/{item.name}", f"{IMAGES}/{name}", item.sha256)
                        names_file.append(_entry(row, name))
                    json_file.append(separator + line if separator else line + b"\n")
                    separator = separator and b",\n"
                    counted.add(row, is_renamed=row.stem != names.last)
                if separator:
                    json_file.append(b"[]\n" if separator == b"[\n" else b"\n]\n")
            with building.open(REJECTS) as rejects_file:
                for line in _rejects(parts):
                    rejects_file.append(line)
        except (ValueError, KeyError) as error:
            raise Failed(f"{manifest.folder} is damaged ({error}): python -m hpcdata.verify says more") from None
        return counted.facts()

    def _placed(self, row: _Row, names: _Names) -> tuple[bytes, list[str]]:
        """(the record as JSON, the names of its files)."""
        stem = names.of(row)
        files = names_of(stem, [os.path.splitext(item.name)[1][1:] for item in row.files])
        if stem == row.stem:
            return row.line, files
        record = orjson.loads(row.line)
        paths = [f"{self.image_prefix}{name}" for name in files]
        record["image"] = paths[0] if len(paths) == 1 else paths
        return orjson.dumps(record), files


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A record of a shard."""

    folder: Path
    index: int
    key: str
    line: bytes
    stem: str
    name: int
    notes: int
    files: Sequence[ListedFile]


@dataclass(kw_only=True)
class _Counted:
    records: int = 0
    pictures: int = 0
    renamed: int = 0
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, row: _Row, *, is_renamed: bool) -> None:
        self.records += 1
        self.pictures += len(row.files)
        self.renamed += is_renamed
        self.notes.update(name for bit, name in NOTES.items() if row.notes & bit)

    def facts(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "pictures": self.pictures,
            "renamed": self.renamed,
            "notes": {name: self.notes[name] for name in NOTES.values() if self.notes[name]},
        }


class _Names:
    """Which record has a name that several have, and which is the first of them."""

    def __init__(self, parts: Sequence[Path]) -> None:
        found = []
        for folder in parts:
            columns = _columns(folder)
            found.append(columns["samples/name.memmap"][columns["samples/num_pictures.memmap"][:] > 0])
        names = np.sort(np.concatenate(found)) if found else np.zeros(0, np.int64)
        self._shared = np.unique(names[1:][names[1:] == names[:-1]])
        self._is_taken = np.zeros(len(self._shared), bool)
        self.last = ""
        """The stem that was given last."""

    def of(self, row: _Row) -> str:
        """The stem of its files. To be asked in the order of the records."""
        self.last = row.stem
        if row.files:
            at = int(np.searchsorted(self._shared, row.name))
            if at < len(self._shared) and self._shared[at] == row.name:
                if self._is_taken[at]:
                    self.last = f"{row.stem}~{row.index}"
                self._is_taken[at] = True
        return self.last


def _rows(parts: Sequence[Path]) -> Iterator[_Row]:
    """Those of all parts, in the order of the plan: what retries have written stands where it belongs."""
    shards = (row for folder in parts if not _is_retry(folder) for row in _rows_of(folder))
    retries = [sorted(_rows_of(folder), key=_index) for folder in parts if _is_retry(folder)]
    return heapq.merge(shards, *retries, key=_index)


def _index(row: _Row) -> int:
    return row.index


def _is_retry(folder: Path) -> bool:
    return folder.name.startswith(PREFIX)


def _columns(folder: Path) -> dict[str, np.ndarray]:
    summary = read_summary(folder)
    return plain_columns(folder, summary)


def _rows_of(folder: Path) -> Iterator[_Row]:
    columns = _columns(folder)
    (stream,) = read_summary(folder).header.schema.streams
    listed = read_listing(folder)
    number = len(columns["samples/index.memmap"])
    if not number:
        return
    with open(folder / stream.path, "rb") as lines:
        for row in range(number):
            pictures = int(columns["samples/num_pictures.memmap"][row])
            yield _Row(
                folder=folder,
                index=int(columns["samples/index.memmap"][row]),
                key=key_of(columns, row),
                line=lines.readline()[:-1],
                stem=_stem(columns, row),
                name=int(columns["samples/name.memmap"][row]),
                notes=int(columns["samples/notes.memmap"][row]),
                files=[next(listed) for _ in range(pictures)],
            )


def _stem(columns: Mapping[str, np.ndarray], row: int) -> str:
    starts, stems = columns["samples/first_stem.memmap"], columns["stems/bytes.memmap"]
    end = int(starts[row + 1]) if row + 1 < len(starts) else len(stems)
    return stems[int(starts[row]) : end].tobytes().decode()


def _entry(row: _Row, name: str) -> bytes:
    source, _, number = row.key.rpartition("#")
    return _csv_line(str(orjson.loads(row.line).get("id", "")), source, number, f"{IMAGES}/{name}")


def _rejects(parts: Sequence[Path]) -> Iterator[bytes]:
    """`id,reason` in the order of the plan; of a record without a known id its input and row."""
    recovered = read_recovered(folder for folder in parts if _is_retry(folder))
    yield _csv_line("id", "reason")
    for folder in parts:
        for row in () if _is_retry(folder) else read_rejects(folder):
            if row.reason != DUPLICATE and row.index not in recovered:
                yield _csv_line(row.id or row.key, f"{row.reason}: {row.message}")


def _csv_line(*fields: str) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(fields)
    return out.getvalue().encode(errors="replace")
