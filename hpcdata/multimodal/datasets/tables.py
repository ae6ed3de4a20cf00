"""Rows of Parquet as examples, by the names of their columns, read where they lie: nothing is copied or converted.

    TableDataset(["train-0.parquet"], {"image": "image", "question": "query", "answers": "label"}, style="chart_qa")

A row is read with its row group, of which the last few are kept: so rows in their order cost one read a group. Shuffled
training over large groups is what `stage=convert` and `stage=copy` are for.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.multimodal.datasets.base import Dataset, Example, fingerprint_of
from hpcdata.multimodal.datasets.hugging_face import with_pictures
from hpcdata.samples import BadSample, Reason
from hpcdata.sources.patterns import expand_braces
from hpcdata.sources.pictures.fields import is_empty

_KEPT_GROUPS = 4


class TableDataset(Dataset):
    """One example a row. Safe in several threads and in workers of a DataLoader."""

    def __init__(
        self,
        files: Sequence[str | os.PathLike[str]],
        fields: Mapping[str, str],
        *,
        each: Mapping[str, str] | None = None,
        style: str | None = None,
        constants: Mapping[str, int] | None = None,
        sample: int | None = None,
    ) -> None:
        """fields: key of an example -> column, or `image_{1..7}`: several, one after another. A null is left out. each:
        of several annotations of a picture, key of one -> column of lists (`names`), or a field of what a column lists
        (`qa_pairs.question`): `message_list`. style: of every example, or of its annotations; `{folder}` in it is the
        name of the file's folder. constants: of every one of them, too. sample: only so many of the first rows.

        Raises UserError for a file that is no Parquet, or has none of such a column.
        """
        self._files = [os.fspath(file) for file in files]
        self._fields, self._style, self._constants = dict(fields), style, dict(constants or {})
        self._each = dict(each or {})
        self._named = {ours: list(expand_braces(columns)) for ours, columns in self._fields.items()}
        self._columns = sorted(
            {*itertools.chain(*self._named.values()), *(name.split(".")[0] for name in self._each.values())}
        )
        sizes, self._groups = [], list[tuple[int, int]]()
        for number, path in enumerate(self._files):
            for group, rows in enumerate(_group_sizes(path, self._columns)):
                self._groups.append((number, group))
                sizes.append(rows)
        self._ends = np.cumsum(np.asarray(sizes, dtype=np.int64))
        total = int(self._ends[-1]) if sizes else 0
        self._size = total if sample is None else min(sample, total)
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Any] = OrderedDict()

    def __len__(self) -> int:
        return self._size

    def get(self, item: int, rng: np.random.RandomState) -> Example:
        which = int(np.searchsorted(self._ends, item, side="right"))
        table = self._group(which)
        row = item - int(self._ends[which] - table.num_rows)
        (values,) = table.slice(row, 1).to_pylist()
        example = with_pictures({ours: _of_columns(values, columns) for ours, columns in self._named.items()})
        found = {name: value for name, value in example.items() if value is not None}
        path = self._files[self._groups[which][0]]
        folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
        of_all = self._constants | ({} if self._style is None else {"style": self._style.replace("{folder}", folder)})
        if not self._each:
            return found | of_all
        lists = {name: _list_of(values, column, path) for name, column in self._each.items()}
        sizes = {column: len(lists[name]) for name, column in self._each.items()}
        if len({*sizes.values()}) > 1:
            told = ", ".join(f"{size} of {column}" for column, size in sizes.items())
            raise BadSample(Reason.BAD_RECORD, f"{path}: a row has {told}, expected equally many")
        several = [with_pictures(dict(zip(lists, its, strict=True))) for its in zip(*lists.values(), strict=True)]
        return {**found, "message_list": [{**annotation, **of_all} for annotation in several]}

    def fingerprint(self) -> str:
        """By the names of the files, their numbers of rows, and the columns."""
        names = [os.path.basename(path) for path in self._files]
        how = [self._fields, self._style, self._size, *(more for more in (self._constants, self._each) if more)]
        return fingerprint_of("TableDataset", names, self._ends.tolist(), *how)

    def _group(self, which: int) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._lock:
            if which in self._kept:
                self._kept.move_to_end(which)
                return self._kept[which]
            number, group = self._groups[which]
            try:
                with pq.ParquetFile(self._files[number], pre_buffer=False, buffer_size=1 << 20) as file:
                    table = file.read_row_group(group, columns=self._columns, use_threads=False)
            except (pa.ArrowException, ValueError) as error:
                where = f"row group {group} of {self._files[number]}"
                raise BadSample(Reason.BAD_RECORD, f"{where}: {' '.join(str(error).split())}") from None
            self._kept[which] = table
            if len(self._kept) > _KEPT_GROUPS:
                self._kept.popitem(last=False)
            return table

    def __repr__(self) -> str:
        return f"TableDataset({len(self._files)} files, {self._size} rows)"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_kept")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._kept = threading.Lock(), OrderedDict()


def _of_columns(values: Mapping[str, Any], columns: Sequence[str]) -> Any:
    """The value of a column; of several a list of what they hold, alone where it is one."""
    if len(columns) == 1:
        return values[columns[0]]
    held = [values[column] for column in columns if not is_empty(values[column])]
    found = [item for value in held for item in (value if isinstance(value, list) else [value])]
    return found if len(found) > 1 else next(iter(found), None)


def _list_of(values: Mapping[str, Any], column: str, path: str) -> list[Any]:
    """Of a row: a column, or a field of what it lists, also where that is stored as lists by their fields."""
    name, _, field = column.partition(".")
    found = values[name]
    if field and isinstance(found, Mapping):
        found = found.get(field)
    elif field and isinstance(found, list):
        found = [item.get(field) if isinstance(item, Mapping) else None for item in found]
    if not isinstance(found, list) or None in found:
        raise BadSample(Reason.BAD_RECORD, f"{path}: a row has no {column}, or not in each of its annotations")
    return found


def _group_sizes(path: str, columns: Any) -> list[int]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            metadata = file.metadata
            sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    except (pa.ArrowException, ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {' '.join(str(error).split())}") from None
    if missing := [column for column in columns if column not in names]:
        raise UserError(f"{path} has no column {missing[0]}: it has {', '.join(names)}")
    return sizes
