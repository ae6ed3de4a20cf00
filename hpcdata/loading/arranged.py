"""Sequences -> batches: runs of stored ids and literals, laid end to end in bins of one width."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hpcdata.loading.arrays import empty
from hpcdata.loading.bins import Bins
from hpcdata.loading.compiled import kernels
from hpcdata.loading.dataset import TokenDataset
from hpcdata.loading.sequences import Sequences
from hpcdata.loading.tiled import Tiled
from hpcdata.loading.windowed import Windowed


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


class Batch(NamedTuple):
    arrays: dict[str, np.ndarray]
    counts: BatchCounts

    @classmethod
    def join(cls, several: Sequence[Batch]) -> Batch:
        """Their rows, one batch after the other."""
        if len(several) == 1:
            return several[0]
        arrays = {key: _joined([batch.arrays[key] for batch in several]) for key in several[0].arrays}
        if "cu_seqlens" in arrays:
            arrays["cu_seqlens"] = _joined_edges([batch.arrays["cu_seqlens"] for batch in several])
            arrays["max_seqlen"] = np.array(max(int(batch.arrays["max_seqlen"]) for batch in several))
        return cls(arrays=arrays, counts=sum((batch.counts for batch in several), BatchCounts()))


class Arranged:
    """Sequences in bins, for batches of some of the bins: what these have in common is found once."""

    def __init__(
        self,
        dataset: TokenDataset,
        sequences: Sequences,
        bins: Bins,
        *,
        keys: tuple[str, ...],
        pad: int = 0,
        id_dtype: str = "int64",
        narrow: str = "int64",
    ) -> None:
        """`keys`: which arrays to make; `id_dtype`: of the ids; `narrow`: one that holds every id of the layout."""
        sample = bins.sample
        self._keys, self._id_dtype, self._index = keys, id_dtype, sequences.index[sample]
        self._first_row, compiled = bins.first_row.tolist(), kernels()
        self._window: Tiled | Windowed
        if compiled is None:
            self._window = Windowed(dataset, sequences, bins, pad=pad, id_dtype=id_dtype, narrow=narrow)
        else:
            self._window = Tiled(dataset, sequences, bins, compiled, pad=pad, id_dtype=id_dtype)
        self._counted = np.zeros((len(sample) + 1, len(BatchCounts._fields)), np.int64)
        """Of the rows before each: what BatchCounts has, samples with those that are skipped, and no padding."""
        pieces, none = bins.pieces, np.zeros(len(sample), np.int64)
        columns = (
            none + 1 if pieces is None else pieces[0] == 0,
            sequences.text_tokens[sample] if pieces is None else pieces[1],
            sequences.image_tokens[sample],
            none,
            sequences.truncated[sample],
            sequences.left_out_images[sample],
            sequences.too_long[sample],
        )
        for column, counted in zip(columns, self._counted.T, strict=True):
            np.cumsum(column, out=counted[1:])

    def batch(self, first: int, stop: int, num_bins: int, width: int) -> Batch:
        """Of bins `first` to `stop` - 1, with empty ones behind them so that there are `num_bins` of `width`."""
        begin, end = self._first_row[first], self._first_row[stop]
        arrays = self._arrays(first, stop, num_bins, width)
        if "index" in self._keys:
            arrays["index"] = self._index[begin:end]
        counts = BatchCounts(*(self._counted[end] - self._counted[begin]).tolist())
        padding = num_bins * width - counts.text_tokens - counts.image_tokens
        samples = counts.samples - counts.skipped_samples
        return Batch(arrays=arrays, counts=counts._replace(samples=samples, padding=padding))

    def _arrays(self, first: int, stop: int, num_bins: int, width: int) -> dict[str, np.ndarray]:
        keys, batch = self._keys, self._window.batch(first, stop, num_bins, width)
        arrays: dict[str, np.ndarray] = {}
        if "attention_mask" in keys:
            arrays["attention_mask"] = batch.valid()
        if "input_ids" in keys:
            arrays["input_ids"] = batch.ids()
        if "labels" in keys and self._id_dtype == "int64":
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


def _joined(several: list[np.ndarray]) -> np.ndarray:
    if not several[0].ndim:
        return several[0]
    shape = (sum(map(len, several)), *several[0].shape[1:])
    return np.concatenate(several, out=empty(shape, several[0].dtype))


def _joined_edges(several: list[np.ndarray]) -> np.ndarray:
    """Each ends where the next begins."""
    joined, end = [several[0][:1]], 0
    for edges in several:
        joined.append(edges[1:] + end)
        end += edges[-1]
    return np.concatenate(joined)
