"""Batches of a layout that was baked: rows are copied as they are stored, the other arrays are made of their runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from hpcdata.dataset.baked.maps import BakedMaps, find_baked
from hpcdata.dataset.baked.record import COLUMN_BITS, FACTS, IMAGE, TRAINED, VALID
from hpcdata.dataset.dataset import TokenDataset
from hpcdata.loading.layouts.assembly import Batch, RowCounts
from hpcdata.loading.layouts.base import IGNORED_LABEL, Layout, MakeBatch
from hpcdata.loading.layouts.fixed_batches import dtypes_of
from hpcdata.native.arrays import as_signed, ragged, totals_before, widen
from hpcdata.native.compiled import kernels
from hpcdata.native.forks import ForkLock, Lazy
from hpcdata.native.recycled import empty
from hpcdata.native.threads import Later
from hpcdata.native.writers import WriteRows
from hpcdata.order.checking import digest


def baked_rows(dataset: TokenDataset, layout: Layout) -> BakedRows | None:
    """The rows of a bound layout where the dataset has them, with the same options; else None."""
    found = find_baked(dataset.manifest, digest(layout.settings())) if any_baked(dataset) else None
    return None if found is None else BakedRows(dataset, layout, found)


def any_baked(dataset: TokenDataset) -> bool:
    return any(baked for _, baked in dataset.manifest.all_baked())


class BakedRows:
    """Rows of a dataset. Files are mapped when they are wanted first, anew in every process."""

    def __init__(self, dataset: TokenDataset, layout: Layout, found: Any) -> None:
        self.dataset, self.layout, self._found = dataset, layout, found
        self.keys = layout.keys_of(packed=False)
        self._lock = ForkLock()
        self._mapped: BakedMaps | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_mapped": None}

    @property
    def maps(self) -> BakedMaps:
        """Raises UserError for files that are missing or cut."""
        with self._lock:
            if self._mapped is None:
                self._mapped = BakedMaps(self._found)
            return self._mapped

    def prepare(self, rows: np.ndarray, *, is_asked: bool) -> MakeBatch:
        """What makes batches of some of these rows. `is_asked`: the kernel reads them already."""
        stored, maps = self.dataset.stored_rows(rows), self.maps
        places = maps.places(stored)
        if not is_asked:
            maps.will_need(places)
        return _Prepared(self, stored, places).batch

    def will_read(self, ranges: np.ndarray) -> None:
        """As `TokenDataset.will_read`."""
        first = self.dataset.stored_rows(ranges[:, 0])
        self.maps.will_read(first, self.dataset.stored_rows(ranges[:, 0] + ranges[:, 1] - 1) + 1)


class _Prepared:
    """Some rows, for batches of some of them."""

    def __init__(self, baked: BakedRows, rows: np.ndarray, places: np.ndarray) -> None:
        self._keys, self._maps = (*baked.keys, "loss_mask"), baked.maps
        self._rows, self._places, self._width = rows, places, self._maps.width
        self._dtypes = dtypes_of(self._keys, baked.layout.ids, self._width)
        self._facts = self._maps.facts(places)
        self._index = self._facts[:, FACTS.index("index")].copy()
        begin = FACTS.index("text_tokens")
        self._counts = RowCounts(self._width, np.ascontiguousarray(self._facts[:, begin:].T), FACTS[begin:])

    def batch(self, first: int, stop: int, later: Later | None = None, width: int | None = None) -> Batch:
        """Of rows `first` to `stop` - 1. With a `later`, its ids may be there then."""
        counts, write = self._counts.between(first, stop), self._write  # before its numbers leave the cache
        arrays = self._in_steps(first, stop) if write is None else write.make(first, stop, self._dtypes, later=later)
        if "index" in self._keys:
            arrays["index"] = self._index[first:stop]
        ordered = {key: arrays[key] for key in self._keys if key in arrays}
        return Batch(ordered, counts)

    def _in_steps(self, first: int, stop: int) -> dict[str, np.ndarray]:
        """Where there are no compiled loops."""
        arrays = {key: empty((stop - first, self._width), dtype) for key, dtype in self._dtypes.items()}
        self._copy_by_torch(arrays["input_ids"], first)
        self._derive(arrays, first, stop)
        return arrays

    def _copy_by_torch(self, out: np.ndarray, first: int) -> None:
        import torch

        where = torch.from_numpy(self._places[first : first + len(out)])
        rows = empty(out.shape, self._maps.ids.dtype)
        torch.index_select(self._maps.ids_tensor, 0, where, out=torch.from_numpy(as_signed(rows)))
        widen(rows, out)

    def _derive(self, arrays: dict[str, np.ndarray], first: int, stop: int) -> None:
        """Writes what is wanted besides ids, where there are no compiled loops."""
        if len(arrays) == 1:
            return
        ids, (first_run, length, kind) = arrays["input_ids"], self._runs
        some = slice(int(first_run[first]), int(first_run[stop]))
        kinds = np.repeat(kind[some].astype(np.int8), length[some]).reshape(ids.shape)
        valid, trained = kinds & VALID > 0, kinds & TRAINED > 0
        make = {
            "attention_mask": lambda: valid,
            "modality": lambda: kinds & IMAGE > 0,
            "labels": lambda: np.where(trained, ids, IGNORED_LABEL),
            "loss_mask": lambda: trained,
            "position_ids": lambda: np.where(valid, np.cumsum(valid, axis=1) - 1, 0),
        }
        for key in arrays.keys() & make:
            arrays[key][...] = make[key]()

    @Lazy
    def _write(self) -> WriteRows | None:
        compiled = kernels()
        if compiled is None:
            return None
        runs = self._runs if len(self._dtypes) > 1 else None
        return compiled.write_rows(self._width, runs, (self._maps.ids, self._places * self._width, None))

    @Lazy
    def _runs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(the first of each row and the one behind the last, length, kind): they fill the rows."""
        number = self._facts[:, FACTS.index("num_runs")]
        row, within = ragged(number)
        stored = self._maps.runs(self._rows[row], self._facts[row, FACTS.index("first_run")] + within)
        end = (stored >> COLUMN_BITS).astype(np.int64)
        begin = np.where(within > 0, np.concatenate([[0], end[:-1]]), 0)
        return totals_before(number), end - begin, (stored & (1 << COLUMN_BITS) - 1).astype(np.int64)
