"""A part of a dataset, chosen by what its samples are or by a table that scores them. Nothing is copied.

    good = select(dataset, lambda c: c["text_tokens"] < 2048)
    best = select(dataset, lambda c: c["score"] > 0.8, table="scores.parquet")       # its column "key" names samples
    Mixture([Source(dataset=best, name="best", weight=3), Source(dataset=rest, name="rest")])

A selection is a dataset: loaders, mixtures, samplings and orders take it. It is a list of rows, 8 bytes a sample, made
once; its digest is part of the content digest, so a loader's state belongs to exactly this selection. Tiers of quality
are several selections as sources of a mixture, a curriculum is their declared weights (hpcdata.order.mixing.schedule).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.dataset.dataset import TokenDataset
from hpcdata.native.forks import Lazy
from hpcdata.samples import Example, Kind

if TYPE_CHECKING:
    import pyarrow as pa

Columns = Mapping[str, np.ndarray]
"""[n] each: `index` in the plan, `tokens`, `text_tokens`, `image_tokens`, `texts` and `images` (their number), and
those of the table: numbers, NaN where a sample has none, and other values as objects, None where it has none.
"""
Predicate = Callable[[Columns], np.ndarray]
OWN = ("index", "tokens", "text_tokens", "image_tokens", "texts", "images")
_ROWS_AT_A_TIME = 2**18


class SelectedDataset(TokenDataset):
    """The samples at some rows of another dataset, in their order."""

    def __init__(self, dataset: TokenDataset, rows: np.ndarray, left_out: Mapping[str, int]) -> None:
        """rows: [n] int64, strictly ascending. left_out: why, and how many, of the others."""
        self.base = dataset.manifest
        hasher = hashlib.blake2b(self.base.content_digest.encode(), digest_size=32)
        hasher.update(np.ascontiguousarray(rows, "<i8").tobytes())
        super().__init__(dataclasses.replace(self.base, content_digest=hasher.hexdigest()))
        self.path, self.rows, self.left_out = dataset.path, rows, dict(left_out)

    def __len__(self) -> int:
        return len(self.rows)

    @Lazy
    def num_tokens(self) -> int:
        return sum(int(columns["tokens"].sum()) for columns in _columns(self))

    def will_read(self, ranges: np.ndarray) -> None:
        """Of the other dataset, with what is left out between them: a block is read in one go."""
        first = self.rows[ranges[:, 0]]
        last = self.rows[ranges[:, 0] + ranges[:, 1] - 1]
        super().will_read(np.stack([first, last - first + 1], axis=1))

    def __repr__(self) -> str:
        left_out = "".join(f", {number:,} left out: {reason}" for reason, number in self.left_out.items() if number)
        return f"{len(self):,} samples of {super().__repr__()}{left_out}"

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "base": self.base, "rows": self.rows, "left_out": self.left_out}

    def stored_rows(self, rows: np.ndarray) -> np.ndarray:
        return self.rows[rows]

    def keys(self, rows: np.ndarray) -> list[str]:
        return super().keys(self.rows[rows])

    def _example(self, row: int) -> Example:
        return super()._example(int(self.rows[row]))


def select(
    dataset: TokenDataset | str | Path,
    predicate: Predicate,
    *,
    table: str | Path | pa.Table | None = None,
    key: str = "key",
) -> SelectedDataset:
    """The samples for which `predicate` is true: it is given columns of many samples and returns [n] bool.

    table: a Parquet, Arrow, CSV or JSON Lines file, a folder of Parquet files, or a table in memory, whose column `key`
    has the keys of samples (`dataset[row].key`) and whose other columns the predicate is given. Samples that it does
    not name are left out, and counted. Raises UserError where a key is there twice, or nothing is left.
    """
    opened = dataset if isinstance(dataset, TokenDataset) else TokenDataset(dataset)
    scores = None if table is None else _Scores(table, key)
    kept, left_out, first = [], {"not in the table": 0, "by the predicate": 0}, 0
    for columns in _columns(opened):
        size = len(columns["index"])
        is_named = np.ones(size, bool)
        if scores is not None:
            found, is_named = scores.of(opened.keys(np.arange(first, first + size)))
            columns = {**columns, **found}
        is_kept = np.asarray(predicate(columns))
        if is_kept.dtype != bool or is_kept.shape != (size,):
            raise UserError(f"a predicate returned {is_kept.dtype} {is_kept.shape}, expected {size} booleans")
        left_out["not in the table"] += size - int(is_named.sum())
        left_out["by the predicate"] += int((is_named & ~is_kept).sum())
        kept.append(first + np.flatnonzero(is_named & is_kept))
        first += size
    rows = np.concatenate(kept) if kept else np.zeros(0, np.int64)
    if not len(rows):
        raise UserError(f"no sample of {opened.path} is selected: {left_out}")
    if isinstance(opened, SelectedDataset):
        left_out = {reason: number + opened.left_out.get(reason, 0) for reason, number in left_out.items()}
        return SelectedDataset(TokenDataset(opened.base), opened.rows[rows], left_out)
    return SelectedDataset(opened, rows, left_out)


def num_left_out(dataset: TokenDataset) -> int:
    """Samples on disk that are not of it."""
    return sum(dataset.manifest.parts.samples) - len(dataset)


def joined_selection(datasets: Sequence[TokenDataset]) -> np.ndarray | None:
    """The rows of several datasets in one that has the parts of all; None where they are all of them."""
    if not any(isinstance(dataset, SelectedDataset) for dataset in datasets):
        return None
    found, first = [], 0
    for dataset in datasets:
        of_this = dataset.rows if isinstance(dataset, SelectedDataset) else np.arange(len(dataset))
        found.append(first + of_this)
        first += sum(dataset.manifest.parts.samples)
    return np.concatenate(found)


def _columns(dataset: TokenDataset) -> Iterator[dict[str, np.ndarray]]:
    for first in range(0, len(dataset), _ROWS_AT_A_TIME):
        rows = np.arange(first, min(first + _ROWS_AT_A_TIME, len(dataset)))
        spans, size = dataset.spans(rows), len(rows)
        is_image = spans.kind == Kind.IMAGE
        lengths = {True: np.where(is_image, spans.length, 0), False: np.where(is_image, 0, spans.length)}
        images, texts = (np.bincount(spans.row, lengths[kind], size).astype(np.int64) for kind in (True, False))
        yield {
            "index": spans.index,
            "tokens": images + texts,
            "text_tokens": texts,
            "image_tokens": images,
            "texts": np.bincount(spans.row[~is_image], minlength=size),
            "images": np.bincount(spans.row[is_image], minlength=size),
        }


class _Scores:
    """A table that is looked up by key."""

    def __init__(self, table: str | Path | pa.Table, key: str) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self._where = "the table" if isinstance(table, pa.Table) else str(table)
        read = table if isinstance(table, pa.Table) else _read(Path(table))
        if key not in read.column_names:
            raise UserError(f"{self._where} has no column {key!r}, it has {', '.join(read.column_names)}: pass key=...")
        self._keys = read[key].cast(pa.large_string()).combine_chunks()
        if taken := set(OWN) & set(read.column_names):
            raise UserError(f"{self._where} has a column {min(taken)!r}, which samples have themselves: rename it")
        counted = pc.value_counts(self._keys)
        twice = counted.filter(pc.greater(counted.field("counts"), 1))
        if len(twice):
            raise UserError(f"{self._where} has the key {twice[0]['values'].as_py()!r} {twice[0]['counts']} times")
        self._columns = {name: read[name].combine_chunks() for name in read.column_names if name != key}

    def of(self, keys: Sequence[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """(column -> [n], whether the table has the key: [n] bool)."""
        import pyarrow as pa
        import pyarrow.compute as pc

        places = pc.index_in(pa.array(keys, pa.large_string()), self._keys)
        found = {name: _to_numpy(pc.take(column, places)) for name, column in self._columns.items()}
        return found, pc.is_valid(places).to_numpy(zero_copy_only=False)


def _to_numpy(column: pa.Array) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False)


def _read(path: Path) -> pa.Table:
    """Raises UserError."""
    import pyarrow as pa
    from pyarrow import csv, feather, json, parquet

    readers = {
        ".csv": csv.read_csv,
        ".jsonl": json.read_json,
        ".arrow": feather.read_table,
        ".feather": feather.read_table,
    }
    try:
        return readers.get(path.suffix, parquet.read_table)(str(path))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: expected a table with a column of keys") from None
    except pa.ArrowException as error:
        raise UserError(f"{path} is no Parquet, Arrow, CSV or JSON Lines table: {error}") from None
