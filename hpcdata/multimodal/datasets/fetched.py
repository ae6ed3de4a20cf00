"""What the stage `fetch` has brought, as examples by the names of their columns: rows of a list with their pictures."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.dataset.manifest import Manifest, read_manifest
from hpcdata.multimodal.datasets import runs
from hpcdata.multimodal.datasets.base import Dataset, Example, fingerprint_of
from hpcdata.multimodal.datasets.examples import options_for
from hpcdata.multimodal.datasets.hugging_face import with_pictures
from hpcdata.multimodal.image_files import PictureFile
from hpcdata.runs.plan import load_plan
from hpcdata.samples import BadSample, ImagePart, Reason, Sample, refusal
from hpcdata.shards.shard import read_summary
from hpcdata.shards.stored import read_columns
from hpcdata.sources.at_random import RecordReader
from hpcdata.sources.parsing import load


class FetchedDataset(Dataset):
    """One example a row whose pictures came; `num_missing` rows have none. Safe in threads and in workers."""

    def __init__(
        self,
        run: str | os.PathLike[str],
        fields: Mapping[str, str],
        *,
        url: str,
        files: re.Pattern[str] | None = None,
        style: str | None = None,
        constants: Mapping[str, int] | None = None,
        sample: int | None = None,
    ) -> None:
        """fields: key of an example -> column; that of the column `url` is the pictures, and a null is left out.
        files: only rows of tables whose path ends so. style, constants: of every example. sample: only so many of the
        first rows. Raises UserError.
        """
        dataset = Path(run) / "dataset"
        found = runs.copied(dataset)
        if found is None:
            raise UserError(f"{dataset} was not made by the stage fetch")
        listed, self._offsets = found
        manifest = read_manifest(dataset)
        self._run, self._fields, self._url, self._style = os.fspath(run), dict(fields), url, style
        self._constants, self._digest = dict(constants or {}), manifest.content_digest
        self._ends = np.cumsum([item.scan.num_samples for item in listed], dtype=np.int64)
        self._sizes = [item.size for item in listed]
        options = options_for(needs_text=False)
        self._reader = RecordReader(listed, dataclasses.replace(options, keeps_members=True))
        self._rows, listed_rows = np.arange(len(self._offsets)), manifest.counts.inputs
        if files is not None:
            self._rows, listed_rows = _rows_of(manifest, Path(run), files)
        self.num_missing = listed_rows - len(self._rows)
        self._rows = self._rows if sample is None else self._rows[:sample]

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, item: int, rng: np.random.RandomState) -> Example:
        row = int(self._rows[item])
        which = int(np.searchsorted(self._ends, row, side="right"))
        begin = int(self._ends[which - 1]) if which else 0
        end = int(self._offsets[row + 1]) if row + 1 < self._ends[which] else self._sizes[which]
        record = self._reader.record(which, position=row - begin, seek=int(self._offsets[row]), end=end)
        if (bad := refusal(record, None)) is not None:
            raise BadSample(bad.reason, f"{record.key}: {bad.message}")
        assert isinstance(record, Sample)
        values = _values(record)
        values[self._url] = _pictures(record)
        example = with_pictures({ours: values.get(column) for ours, column in self._fields.items()})
        found = {name: value for name, value in example.items() if value is not None} | self._constants
        found |= {} if self._style is None else {"style": self._style}
        return {**found, "metadata": {"key": record.key, "image_url": values.get("url")}}

    def fingerprint(self) -> str:
        """By the content digest of what was fetched, the rows that are taken, and the columns."""
        how = [self._fields, self._url, self._style, self._constants]
        return fingerprint_of("FetchedDataset", self._digest, self._rows, *how)

    def __repr__(self) -> str:
        return f"FetchedDataset({self._run}, {len(self)} of {len(self._offsets)} rows)"


def _values(record: Sample) -> dict[str, Any]:
    """The columns of a row. Raises BadSample."""
    member = next((item for item in record.members if item.extension == "json"), None)
    values = None if member is None else load(member.blob.read(max_bytes=options_for().max_record_bytes))
    if not isinstance(values, dict):
        raise BadSample(Reason.BAD_RECORD, f"{record.key}: its columns are no JSON object")
    return values


def _pictures(record: Sample) -> Any:
    pictures = [PictureFile(part.blob) for part in record.parts if isinstance(part, ImagePart)]
    if not pictures:
        raise BadSample(Reason.MISSING_IMAGE, f"{record.key}: no picture in the record")
    return pictures[0] if len(pictures) == 1 else pictures


def _rows_of(manifest: Manifest, run: Path, files: re.Pattern[str]) -> tuple[np.ndarray, int]:
    """[n] int64: rows of the dataset that come of tables of these names, and how many these have. Raises UserError."""
    plan = load_plan(run)
    if plan.fingerprint != manifest.fingerprint:
        raise UserError(f"{run} is not the run that made {manifest.folder}: its plan is another one")
    ends = np.cumsum([item.scan.num_samples for item in plan.inputs], dtype=np.int64)
    fits = np.array([_ends_so(item.origin, files) for item in plan.inputs], bool)
    found, begin = [np.zeros(0, np.int64)], 0
    for part in manifest.parts:
        folder = manifest.folder / part.path
        summary = read_summary(folder)
        columns = read_columns(folder, summary.header.schema, summary.sizes)
        index = np.asarray(columns["samples/index.memmap"], np.int64)
        found.append(begin + np.flatnonzero(fits[np.searchsorted(ends, index, side="right")]))
        begin += len(index)
    return np.concatenate(found), sum(item.scan.num_samples for item, its in zip(plan.inputs, fits, strict=True) if its)


def _ends_so(path: str, files: re.Pattern[str]) -> bool:
    parts = path.split("/")
    return any(files.fullmatch("/".join(parts[place:])) for place in range(len(parts)))
