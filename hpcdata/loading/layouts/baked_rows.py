"""Batches of a layout that was baked: rows are copied as they are stored, the other arrays are made of their runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from hpcdata.dataset.baked.maps import BakedMaps, find_baked
from hpcdata.dataset.baked.record import COLUMN_BITS, FACTS, IMAGE, TRAINED, VALID
from hpcdata.dataset.dataset import TokenDataset
from hpcdata.loading.layouts.assembly import Batch, BatchCounts
from hpcdata.loading.layouts.base import IGNORED_LABEL, Layout, MakeBatch
from hpcdata.native.arrays import as_signed, empty, position_dtype, ragged, totals_before, widen
from hpcdata.native.compiled import WriteRuns, kernels
from hpcdata.native.forks import ForkLock, Lazy
from hpcdata.native.threads import Later
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
        self._layout, self._keys, self._maps = baked.layout, (*baked.keys, "loss_mask"), baked.maps
        self._rows, self._places, self._width = rows, places, self._maps.width
        self._facts = self._maps.facts(places)
        self._index = self._facts[:, FACTS.index("index")].copy()
        account = self._facts[:, FACTS.index("text_tokens") :]
        self._counted = np.zeros((len(rows) + 1, account.shape[1]), np.int64)
        np.cumsum(account, axis=0, out=self._counted[1:])
        self._has_more_than_ids = bool({"attention_mask", "modality", "labels", "position_ids"} & set(self._keys))
        self._compiled = kernels()
        if self._compiled is not None:
            start = places * self._width
            self._place = self._compiled.place_rows(self._maps.ids, start, np.full(len(rows), self._width))

    def batch(self, first: int, stop: int, later: Later | None = None, width: int | None = None) -> Batch:
        """Of rows `first` to `stop` - 1. With a `later`, its ids may be there then."""
        ids = empty((stop - first, self._width), self._layout.ids)
        self._copy(ids, first, later)
        text, image, truncated, left_out, skipped = (self._counted[stop] - self._counted[first]).tolist()
        counts = BatchCounts(
            samples=len(ids) - skipped,
            text_tokens=text,
            image_tokens=image,
            padding=ids.size - text - image,
            truncated_texts=truncated,
            left_out_images=left_out,
            skipped_samples=skipped,
        )
        arrays = {"input_ids": ids, "index": self._index[first:stop]}
        if self._has_more_than_ids:
            arrays |= self._others(ids, first, stop)
        return Batch(arrays={key: arrays[key] for key in self._keys if key in arrays}, counts=counts)

    def _copy(self, out: np.ndarray, first: int, later: Later | None) -> None:
        if self._compiled is not None:
            self._place(out, first, len(out), None, 0, 0, later=later)
            return
        import torch

        where = torch.from_numpy(self._places[first : first + len(out)])
        rows = empty(out.shape, self._maps.ids.dtype)
        torch.index_select(self._maps.ids_tensor, 0, where, out=torch.from_numpy(as_signed(rows)))
        widen(rows, out)

    def _others(self, ids: np.ndarray, first: int, stop: int) -> dict[str, np.ndarray]:
        """What is wanted besides ids and indices."""
        wanted: dict[str, np.typing.DTypeLike] = {
            "attention_mask": bool,
            "modality": np.int8,
            "labels": np.int64,
            "position_ids": position_dtype(self._layout.ids, self._width),
        }
        if self._layout.ids != "int64" and "labels" in self._keys:
            del wanted["labels"]
            wanted["loss_mask"] = bool
        shape = ids.shape
        if self._compiled is None:
            return self._of_columns({key: wanted[key] for key in self._keys if key in wanted}, ids, first, stop)
        arrays = {}
        for key in (key for key in self._keys if key in wanted):
            out = arrays[key] = empty(shape, wanted[key])
            runs = self._valid_runs if key == "position_ids" else self._runs
            write: WriteRuns = getattr(runs, f"{key}_writer")
            edges, pad = runs.first_run, IGNORED_LABEL if key == "labels" else 0
            write(out, int(edges[first]), int(edges[stop]), first * self._width, pad)
        return arrays

    def _of_columns(
        self, wanted: dict[str, np.typing.DTypeLike], ids: np.ndarray, first: int, stop: int
    ) -> dict[str, np.ndarray]:
        """The same where there are no compiled loops."""
        runs = self._runs
        some = slice(int(runs.first_run[first]), int(runs.first_run[stop]))
        kind = np.repeat(runs.kind[some].astype(np.int8), runs.length[some]).reshape(ids.shape)
        valid, trained = kind & VALID > 0, kind & TRAINED > 0
        arrays = {
            "attention_mask": lambda: valid,
            "modality": lambda: kind & IMAGE > 0,
            "labels": lambda: np.where(trained, ids, IGNORED_LABEL),
            "loss_mask": lambda: trained,
            "position_ids": lambda: np.where(valid, np.cumsum(valid, axis=1) - 1, 0),
        }
        return {key: arrays[key]().astype(dtype) for key, dtype in wanted.items()}

    @Lazy
    def _runs(self) -> _Runs:
        number = self._facts[:, FACTS.index("num_runs")]
        row, within = ragged(number)
        stored = self._maps.runs(self._rows[row], self._facts[row, FACTS.index("first_run")] + within)
        end = (stored >> COLUMN_BITS).astype(np.int64)
        begin = np.where(within > 0, np.concatenate([[0], end[:-1]]), 0)
        return _Runs(self, row, begin, end - begin, (stored & (1 << COLUMN_BITS) - 1).astype(np.int64))

    @Lazy
    def _valid_runs(self) -> _Runs:
        runs = self._runs
        is_valid = runs.kind & VALID > 0
        return _Runs(self, runs.row[is_valid], runs.begin[is_valid], runs.length[is_valid], runs.kind[is_valid])


class _Runs:
    """Runs of rows, and what writes an array of each kind."""

    def __init__(
        self, rows: _Prepared, row: np.ndarray, begin: np.ndarray, length: np.ndarray, kind: np.ndarray
    ) -> None:
        self._rows, self.row, self.begin, self.length, self.kind = rows, row, begin, length, kind
        self.first_run = np.searchsorted(row, np.arange(len(rows._rows) + 1))
        self._dest = row * rows._width + begin

    @Lazy
    def attention_mask_writer(self) -> WriteRuns:
        return self._fill(VALID)

    @Lazy
    def modality_writer(self) -> WriteRuns:
        return self._fill(IMAGE)

    @Lazy
    def loss_mask_writer(self) -> WriteRuns:
        return self._fill(TRAINED)

    @Lazy
    def position_ids_writer(self) -> WriteRuns:
        before = totals_before(self.length)[:-1]
        first = before - before[np.minimum(self.first_run[self.row], max(len(before) - 1, 0))]
        return self._compiled.count_runs(first, self._dest, self.length)

    @Lazy
    def labels_writer(self) -> WriteRuns:
        trained, rows = self.kind & TRAINED > 0, self._rows
        start = np.where(trained, rows._places[self.row] * rows._width + self.begin, -1)
        value = np.where(trained, 0, IGNORED_LABEL)
        return self._compiled.place_runs(rows._maps.ids, start, value, self._dest, self.length)

    def _fill(self, bit: int) -> WriteRuns:
        return self._compiled.fill_runs((self.kind & bit > 0).astype(np.int64), self._dest, self.length)

    @property
    def _compiled(self) -> Any:
        return self._rows._compiled
