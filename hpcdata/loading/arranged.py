"""Sequences -> batches: runs of stored ids and literals, laid end to end in bins of one width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpcdata.loading.arrays import empty
from hpcdata.loading.bins import Bins
from hpcdata.loading.compiled import kernels
from hpcdata.loading.dataset import TokenDataset
from hpcdata.loading.sequences import Sequences
from hpcdata.loading.tiled import Tiled
from hpcdata.loading.windowed import Windowed


@dataclass(frozen=True, kw_only=True)
class BatchCounts:
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

    def __add__(self, other: BatchCounts) -> BatchCounts:
        return BatchCounts(**{name: value + vars(other)[name] for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
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
        self._keys, self._id_dtype, self._index = keys, id_dtype, sequences.index
        self._first_row, compiled = bins.first_row.tolist(), kernels()
        self._window: Tiled | Windowed
        if compiled is None:
            self._window = Windowed(dataset, sequences, bins, pad=pad, id_dtype=id_dtype, narrow=narrow)
        else:
            self._window = Tiled(dataset, sequences, bins, compiled, pad=pad, id_dtype=id_dtype)
        columns = (
            np.ones_like(sequences.length) if bins.start is None else bins.start == 0,
            sequences.text_tokens if bins.length is None else bins.length,
            sequences.image_tokens,
            sequences.truncated,
            sequences.left_out_images,
            sequences.too_long,
        )
        self._counted = np.zeros((len(sequences.index) + 1, len(columns)), np.int64)
        np.cumsum(np.stack(columns, axis=1), axis=0, out=self._counted[1:])

    def batch(self, first: int, stop: int, num_bins: int, width: int) -> Batch:
        """Of bins `first` to `stop` - 1, with empty ones behind them so that there are `num_bins` of `width`."""
        begin, end = self._first_row[first], self._first_row[stop]
        arrays = self._arrays(first, stop, num_bins, width)
        if "index" in self._keys:
            arrays["index"] = self._index[begin:end]
        samples, text, image, truncated, left_out, too_long = (self._counted[end] - self._counted[begin]).tolist()
        counts = BatchCounts(
            samples=samples - too_long,
            text_tokens=text,
            image_tokens=image,
            padding=num_bins * width - text - image,
            truncated_texts=truncated,
            left_out_images=left_out,
            skipped_samples=too_long,
        )
        return Batch(arrays=arrays, counts=counts)

    def _arrays(self, first: int, stop: int, num_bins: int, width: int) -> dict[str, np.ndarray]:
        keys, batch = self._keys, self._window.batch(first, stop, num_bins, width)
        arrays: dict[str, np.ndarray] = {}
        if "attention_mask" in keys:
            arrays["attention_mask"] = batch.valid
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
            edges = batch.edges()
            found["cu_seqlens"] = edges.astype(np.int32)
            found["max_seqlen"] = np.array(np.diff(edges).max(initial=0))
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
