"""MeasuredDataset: records of raw files with what the stage `measure` knows of them.

    python -m hpcdata.launch +experiments=measure data.raw_data_dir=/data/llava.json data.token_output_dir=RUN
    MeasuredDataset("RUN")

It opens at once, whatever its size: columns are mapped, and a raw file is looked at when a record of it is read. Its
rows are the records that were not rejected. `measures(rows)` tells sizes and lengths of many of them without a read.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from hpcdata.base.errors import Failed, UserError
from hpcdata.dataset.joined import FOLDER
from hpcdata.dataset.manifest import Manifest, read_manifest
from hpcdata.dataset.readahead import ReadAhead, will_need
from hpcdata.media.rules import RULES
from hpcdata.multimodal.datasets.base import Dataset, Example, fingerprint_of
from hpcdata.multimodal.datasets.columns import SCHEMA, measures_at
from hpcdata.multimodal.datasets.examples import example_of, options_for
from hpcdata.multimodal.values import Measures
from hpcdata.native.forks import ForkLock
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan, load_plan
from hpcdata.samples import Record
from hpcdata.sources.at_random import Listed, RecordReader, is_packed, unpacked

_MOST_TOUCHED = 4096
"""Rows that are looked up before their pages are unmapped: of each, several pages of each column."""


class MeasuredDataset(Dataset):
    """One example a record that was measured. Safe in several threads and in workers of a DataLoader."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        run: str | os.PathLike[str] | None = None,
        style: str | None = None,
        sample: int | None = None,
        unpack_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        """path: a run of the stage `measure` that is combined, or its dataset. run: the run, if the dataset was put
        elsewhere. style: of every example. sample: only so many of the first. unpack_dir: where compressed inputs are
        unpacked when one of their records is read; by default a temporary folder.

        Raises UserError.
        """
        self.path, self.style = os.fspath(path), style
        self.manifest = read_manifest(Path(path))
        if self.manifest.stage != "measure":
            raise UserError(
                f"{path} was made by the stage {self.manifest.stage or 'tokenize'}, not by measure: open it with "
                "get_dataset(path), or measure its inputs"
            )
        self._root = _root_of(self.manifest) if run is None else Path(run).absolute()
        self._plan = _plan_of(self.manifest, self._root)
        self._unpack_dir = unpack_dir
        self._open()
        self._size = len(self) if sample is None else min(sample, len(self))

    def _open(self) -> None:
        parts = self.manifest.parts
        self._ends = np.cumsum(np.array(parts.samples, np.int64))
        spans = np.cumsum(np.array(parts.spans, np.int64))
        self._first_spans = spans - np.array(parts.spans, np.int64)
        rows = {"samples": int(self._ends[-1]) if len(parts) else 0, "spans": int(spans[-1]) if len(parts) else 0}
        self._size, self._num_touched, self._ahead = rows["samples"], 0, ReadAhead()
        self._columns = _mapped(self.manifest, rows)
        self._file_ends = np.cumsum([item.scan.num_samples for item in self._plan.inputs], dtype=np.int64)
        config = self._plan.config
        options = options_for(
            max_record_bytes=config.data.max_record_bytes,
            text_field=config.data.text_field,
            image_field=config.data.image_field,
            placeholders=config.data.placeholders,
            mapping=config.data.mapped_by or "",
        )
        self._rule = RULES[str(config.measure.preprocessor.get("image_rule", "molmo"))]
        # other examples than those that were measured have other lengths
        is_as_measured = self.style is None and type(self).get is MeasuredDataset.get
        self._written_by = (config.measure.written_by or "") if is_as_measured else ""
        self._reader = RecordReader(_Inputs(self._plan, self._root, self._unpack_dir), options)

    def __len__(self) -> int:
        return self._size

    def measures(self, rows: np.ndarray | Sequence[int]) -> Measures:
        """Of rows in any order. Raises IndexError."""
        rows = np.asarray(rows, np.int64)
        if len(rows) and not (rows.min() >= 0 and rows.max() < self._size):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {self._size} measures")
        part = np.searchsorted(self._ends, rows, side="right")
        self._read_ahead("samples", rows, np.ones(len(rows), np.int64))
        first_span = self._columns["samples/first_span.memmap"][rows] + self._first_spans[part]
        self._read_ahead("spans", first_span, self._columns["samples/num_spans.memmap"][rows].astype(np.int64))
        found = measures_at(self._columns, rows, first_span, self._written_by)
        self._let_go(len(rows))
        return found

    def _read_ahead(self, table: str, first: np.ndarray, number: np.ndarray) -> None:
        """Asks for the pages of these rows at once, where the disk is waited for."""
        columns = [column for path, column in self._columns.items() if path.startswith(f"{table}/")]
        if not self._ahead.is_wanted(len(first)):
            return
        ranges = []
        for column in columns:
            row_bytes = column.strides[0]
            ranges.append(np.stack([column.ctypes.data + first * row_bytes, number * row_bytes], axis=1))
        will_need(np.concatenate(ranges).astype(np.uint64))

    def _let_go(self, num_rows: int) -> None:
        """Unmaps the pages that were read, now and then: those of rows all over the columns would become all of them.

        They stay in the memory of the system.
        """
        self._num_touched += num_rows
        if self._num_touched >= _MOST_TOUCHED:
            self._num_touched = 0
            for column in self._columns.values():
                if isinstance(column, np.memmap):
                    column._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]

    def record(self, item: int) -> Record:
        """The record as its source reads it."""
        if not 0 <= item < self._size:
            raise IndexError(f"record {item} of {self._size}")
        index, seek = (self._columns[f"samples/{name}.memmap"] for name in ("index", "seek"))
        which = int(np.searchsorted(self._file_ends, int(index[item]), side="right"))
        begin = int(self._file_ends[which - 1]) if which else 0
        end = None
        if item + 1 < self._size and index[item + 1] == index[item] + 1 < self._file_ends[which]:
            end = int(seek[item + 1])
        return self._reader.record(which, position=int(index[item]) - begin, seek=int(seek[item]), end=end)

    def get(self, item: int, rng: np.random.RandomState) -> Example:
        """Of its pictures the sizes are known, and are not read again."""
        record, sizes = self.record(item), self.measures([item]).sizes.tolist()
        which = int(np.searchsorted(self._file_ends, int(self._columns["samples/index.memmap"][item]), side="right"))
        example = example_of(
            record,
            source=self._plan.inputs[which].file.label,
            sizes=[(height, width) for height, width in sizes],
            rule=self._rule,
        )
        return example if self.style is None else {**example, "style": self.style}

    def fingerprint(self) -> str:
        """By the content digest of what was measured."""
        return fingerprint_of(
            "MeasuredDataset", self.manifest.fingerprint, self.manifest.content_digest, self._size, self.style
        )

    def __repr__(self) -> str:
        return f"MeasuredDataset({self.path}, {self._size} of {self.manifest.counts.inputs} records)"

    def __getstate__(self) -> dict[str, Any]:
        kept = ("path", "style", "manifest", "_root", "_plan", "_unpack_dir", "_size")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()
        self._size = state["_size"]


class _Inputs(Sequence[Listed]):
    """The inputs of a plan, each made ready when a record of it is read."""

    def __init__(self, plan: Plan, root: Path, unpack_dir: str | os.PathLike[str] | None) -> None:
        self._plan, self._root, self._unpack_dir = plan, root, unpack_dir
        self._ready: dict[int, Listed] = {}
        self._lock = ForkLock()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def __len__(self) -> int:
        return len(self._plan.inputs)

    @overload
    def __getitem__(self, which: int) -> Listed: ...
    @overload
    def __getitem__(self, which: slice) -> Sequence[Listed]: ...
    def __getitem__(self, which: int | slice) -> Any:
        assert isinstance(which, int)
        found = self._ready.get(which)
        if found is None:
            with self._lock:
                found = self._ready[which] = self._ready.get(which) or self._made_ready(which)
        return found

    def _made_ready(self, which: int) -> Listed:
        planned = self._plan.inputs[which]
        if (changed := planned.changed_file(self._root)) is not None:
            raise UserError(f"{changed} has changed since it was measured: restore it, or measure it again")
        file = dataclasses.replace(planned.file, path=str(self._root / planned.file.path))
        if is_packed(file):
            file = unpacked(file, self._folder())
        stat = os.stat(file.path)
        scan = dataclasses.replace(planned.scan, cuts=())
        return Listed(file=file, scan=scan, size=stat.st_size, mtime_ns=stat.st_mtime_ns)

    def _folder(self) -> Path:
        if self._unpack_dir is not None:
            return Path(self._unpack_dir)
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="hpcdata-")
        return Path(self._temporary.name)


def _root_of(manifest: Manifest) -> Path:
    return manifest.folder.absolute().parent


def _plan_of(manifest: Manifest, root: Path) -> Plan:
    """The plan of the run that measured. Raises UserError where it is not found."""
    if not RunPaths(root).plan.is_file():
        raise UserError(
            f"{manifest.folder} lies in no run, and where its records are stands in the plan: give run=..., the folder "
            "of the run that measured"
        )
    plan = load_plan(root)
    if plan.fingerprint != manifest.fingerprint:
        raise UserError(f"{root} is not the run that made {manifest.folder}: its plan is another one")
    return plan


def _mapped(manifest: Manifest, rows: dict[str, int]) -> dict[str, np.ndarray]:
    """Column path -> its rows of all parts, mapped read-only. Raises UserError for a dataset that is damaged."""
    found = {}
    for column in SCHEMA.columns:
        if column.table not in rows or column.name == "first_key":
            continue
        number, path = rows[column.table], manifest.folder / FOLDER / column.path
        shape = (number, column.width) if column.width else (number,)
        if not number:
            found[column.path] = np.zeros(shape, column.dtype)
            continue
        size = path.stat().st_size if path.is_file() else 0
        if size != number * column.row_bytes:
            raise Failed(f"{path} has {size} bytes, expected {number * column.row_bytes}: combine its run again")
        mapped = np.memmap(path, np.dtype(column.dtype).newbyteorder("<"), "r", shape=shape)
        mapped._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
        found[column.path] = mapped
    return found
