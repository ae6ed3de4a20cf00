"""Samples that are lined up -> batches: runs of stored ids and literals, laid end to end in bins of one width."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hpcdata.dataset.dataset import TokenDataset
from hpcdata.loading.layouts.assembly_compiled import Tiled, TiledBatch
from hpcdata.loading.layouts.assembly_numpy import Windowed, WindowedBatch
from hpcdata.loading.layouts.sequences import Lineup, Sequences
from hpcdata.native.compiled import NUM_COUNTS, kernels
from hpcdata.native.threads import Later
from hpcdata.order.bins import Bins


class BatchCounts(NamedTuple):
    """The account of one batch, or of several added up."""

    samples: int = 0
    text_tokens: int = 0
    """Valid text ids, with those that the layout adds."""
    image_tokens: int = 0
    padding: int = 0
    truncated_texts: int = 0
    left_out_images: int = 0
    skipped_samples: int = 0
    """Samples that are too long for the layout: delivered as padding (`too_long="skip"`)."""

    def __add__(self, other: BatchCounts) -> BatchCounts:  # type: ignore[override]
        return BatchCounts._make(map(operator.add, self, other))


class RowCounts:
    """The accounts of batches of consecutive rows: found at once for all batches of one size, as most are."""

    def __init__(self, columns: int, counted: np.ndarray, names: Sequence[str]) -> None:
        """counted: [len(names), num_rows] integers, what BatchCounts has by these names. `samples` and `padding` are
        what they leave of the rows and of their `columns`.
        """
        self._columns, self._counted = columns, counted
        fields = BatchCounts._fields
        self._known = [(fields.index(name), at) for at, name in enumerate(names) if name in fields]
        self._found: tuple[int, int, list[BatchCounts]] = (0, 0, [])

    def between(self, first: int, stop: int) -> BatchCounts:
        """Of rows `first` to `stop` - 1."""
        size = stop - first
        if not size:
            return BatchCounts()
        begin, of_size, found = self._found
        if size != of_size or (first - begin) % size:
            begin = first % size
            found = self._of_size(begin, size)
            self._found = begin, size, found
        return found[(first - begin) // size]

    def _of_size(self, begin: int, size: int) -> list[BatchCounts]:
        """Of all batches of this size from row `begin` on."""
        number = (self._counted.shape[1] - begin) // size
        totals = self._counted[:, begin : begin + number * size].reshape(-1, number, size).sum(axis=2)
        counts = np.zeros((number, len(BatchCounts._fields)), np.int64)
        for field, at in self._known:
            counts[:, field] = totals[at]
        samples, text, image, padding, _, _, skipped = counts.T
        samples[:], padding[:] = size - skipped, size * self._columns - text - image
        return [BatchCounts(*row) for row in counts.tolist()]


class Batch(NamedTuple):
    arrays: dict[str, np.ndarray]
    counts: BatchCounts


class Arranged:
    """Samples in bins, for batches of some of the bins: what these have in common is found once."""

    def __init__(
        self,
        dataset: TokenDataset,
        lineup: Lineup,
        bins: Bins,
        *,
        keys: tuple[str, ...],
        pad: int = 0,
        id_dtype: str = "int64",
        narrow: str = "int64",
        is_packed: bool = False,
    ) -> None:
        """`keys`: which arrays to make; `id_dtype`: of the ids; `narrow`: one that holds every id of the layout.
        `is_packed`: samples share bins, so the first id of each has no label.
        """
        self.keys, self.id_dtype, self._index = keys, id_dtype, lineup.index[bins.sample]
        self._first_row, compiled = bins.first_row.tolist(), kernels()
        self.window: Tiled | Windowed
        if compiled is None:
            sequences = lineup.sequences()
            self.window = Windowed(
                dataset, sequences, bins, pad=pad, id_dtype=id_dtype, narrow=narrow, is_packed=is_packed
            )
            self.counted = _count(sequences, bins)
        else:
            self.window = Tiled(dataset, lineup, bins, compiled, pad=pad, id_dtype=id_dtype, is_packed=is_packed)
            self.counted = self.window.counted

    def batch(self, first: int, stop: int, width: int, later: Later | None = None) -> Batch:
        """Of bins `first` to `stop` - 1. With a `later`, the last of its arrays may be there then."""
        return make_batch([(self, first, stop)], stop - first, width, later)

    def index(self, first: int, stop: int) -> np.ndarray:
        """The samples' indices in the plan, bin after bin."""
        return self._index[self._first_row[first] : self._first_row[stop]]

    def counts(self, first: int, stop: int) -> BatchCounts:
        counts = BatchCounts(*(self.counted[stop] - self.counted[first]).tolist())
        return counts._replace(samples=counts.samples - counts.skipped_samples) if counts.skipped_samples else counts


def _count(sequences: Sequences, bins: Bins) -> np.ndarray:
    """[num_bins + 1, NUM_COUNTS]: what BatchCounts has, of the bins before each, skipped samples among the others."""
    sample, pieces = bins.sample, bins.pieces
    counted, none = np.zeros((len(sample) + 1, NUM_COUNTS), np.int64), np.zeros(len(sample), np.int64)
    columns = (
        none + 1 if pieces is None else pieces[0] == 0,
        sequences.text_tokens[sample] if pieces is None else pieces[1],
        sequences.image_tokens[sample],
        none,
        sequences.truncated[sample],
        sequences.left_out_images[sample],
        sequences.too_long[sample],
    )
    for column, of_column in zip(columns, counted.T, strict=True):
        np.cumsum(column, out=of_column[1:])
    return counted[bins.first_row]


Piece = tuple[Arranged, int, int]
"""Bins of a window: the first, and the one behind the last."""


def make_batch(pieces: Sequence[Piece], num_bins: int, width: int, later: Later | None = None) -> Batch:
    """Bins of several windows, with empty ones behind them so that there are `num_bins` of `width`.

    With a `later`, the last of its arrays may be there then.
    """
    keys, id_dtype = pieces[0][0].keys, pieces[0][0].id_dtype
    counts = pieces[0][0].counts(*pieces[0][1:])
    for arranged, first, stop in pieces[1:]:
        counts += arranged.counts(first, stop)
    arrays = _arrays(_placed(pieces, num_bins, width, later), keys, id_dtype)
    if "index" in keys:
        index = [arranged.index(first, stop) for arranged, first, stop in pieces]
        arrays["index"] = index[0] if len(index) == 1 else np.concatenate(index)
    padding = num_bins * width - counts.text_tokens - counts.image_tokens
    return Batch(arrays=arrays, counts=counts._replace(padding=padding))


def _placed(pieces: Sequence[Piece], num_bins: int, width: int, later: Later | None) -> TiledBatch | WindowedBatch:
    tiled = [(piece[0].window, piece[1], piece[2]) for piece in pieces if isinstance(piece[0].window, Tiled)]
    if tiled:
        return TiledBatch(tiled, num_bins, width, later)
    windowed = [(piece[0].window, piece[1], piece[2]) for piece in pieces if isinstance(piece[0].window, Windowed)]
    return WindowedBatch(windowed, num_bins, width)


def _arrays(batch: TiledBatch | WindowedBatch, keys: tuple[str, ...], id_dtype: str) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    if "attention_mask" in keys:
        arrays["attention_mask"] = batch.valid()
    if "input_ids" in keys:
        arrays["input_ids"] = batch.ids()
    if "labels" in keys and id_dtype == "int64":
        arrays["labels"] = batch.labels()
    elif "labels" in keys:
        arrays["loss_mask"] = batch.loss_mask()
    if "modality" in keys:
        arrays["modality"] = batch.modality()
    if "position_ids" in keys:
        arrays["position_ids"] = batch.positions()
    if "segment_ids" in keys:
        arrays["segment_ids"] = batch.segments()
    found = {key: arrays[key] for key in (*keys, "loss_mask") if key in arrays}
    if "cu_seqlens" in keys:
        found["cu_seqlens"], longest = batch.edges()
        found["max_seqlen"] = np.array(longest)
    return found
