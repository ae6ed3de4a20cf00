"""Sequences -> arrays: runs of stored ids and literals, laid end to end in bins of one width.

Every array is made by repeating a column of the runs as often as each run is long; the stored ids are copied in windows
of 1, 2, 4... ids, two of them for each run (from its start, and up to its end), which costs little more than memcpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcdata.loading.arrays import empty
from hpcdata.loading.dataset import TokenDataset
from hpcdata.loading.sequences import LITERAL, Sequences

IGNORED_LABEL = -100


@dataclass(frozen=True, kw_only=True, eq=False)
class Bins:
    """Where the rows of a batch go: bin after bin, in the order of the rows."""

    num_bins: int
    """May be more than there are rows for: the rest is padding."""
    width: int
    first_row: np.ndarray
    """[bins with rows + 1]"""
    start: np.ndarray | None = None
    """[num_rows]: leave out as many ids of each row (a document that goes on in another bin)."""
    length: np.ndarray | None = None
    """[num_rows]: and take as many."""

    @classmethod
    def one_each(cls, num_rows: int, width: int, num_bins: int | None = None) -> Bins:
        """A bin for every row."""
        num_bins = num_rows if num_bins is None else num_bins
        return cls(num_bins=num_bins, width=width, first_row=np.arange(num_rows + 1))


def assemble(
    dataset: TokenDataset,
    sequences: Sequences,
    bins: Bins,
    keys: tuple[str, ...],
    pad: int = 0,
    id_dtype: str = "int64",
) -> dict[str, np.ndarray]:
    """The arrays `keys`, of shape [num_bins, width] and as hpcdata.loading.layout says."""
    shape, size = (bins.num_bins, bins.width), bins.num_bins * bins.width
    num_of_row = np.diff(sequences.first_run)
    length, token = sequences.run_length.copy(), sequences.run_token
    if bins.start is not None:
        length, token = _clipped(sequences, bins, num_of_row)
    _fill_up(length, sequences, bins)
    end = np.cumsum(length)
    dest = end - length
    used = int(end[-1]) if len(end) else 0
    fill = _Filler(length, size - used)
    arrays: dict[str, np.ndarray] = {}
    valid = fill(sequences.run_valid, False)
    if "input_ids" in keys or "labels" in keys:
        stored = np.flatnonzero((sequences.run_part != LITERAL) & (length > 0))
        ids = np.zeros(size, dataset.manifest.id_dtype)
        copy_runs(dataset, sequences.run_part[stored], token[stored], length[stored], ids, dest[stored])
        values = fill(sequences.run_value.astype(id_dtype), pad)
        arrays["input_ids"] = ids = np.add(values, ids, out=values)
        if "labels" in keys:
            has_loss = fill(sequences.run_loss & sequences.run_valid, False)
            if id_dtype == "int64":
                labels = arrays["labels"] = empty((size,), np.int64)
                labels[:] = ids
                np.copyto(labels, IGNORED_LABEL, where=~has_loss)
            else:
                arrays["loss_mask"] = has_loss
    arrays["attention_mask"] = valid
    if "modality" in keys:
        arrays["modality"] = fill(sequences.run_image.view(np.int8), 0)
    if "position_ids" in keys:
        counted = np.cumsum(length * sequences.run_valid)
        first = np.append(0, counted)[sequences.first_run[:-1]]
        base = dest - (counted - length * sequences.run_valid) + np.repeat(first, num_of_row)
        positions = fill(-base, 0)
        positions += np.arange(size)
        positions *= valid
        arrays["position_ids"] = positions.astype(position_dtype(id_dtype, bins.width), copy=False)
    if "segment_ids" in keys:
        in_bin = np.arange(len(num_of_row)) - np.repeat(bins.first_row[:-1], np.diff(bins.first_row)) + 1
        arrays["segment_ids"] = fill((np.repeat(in_bin, num_of_row) * sequences.run_valid).astype(np.int32), 0)
    shaped = {key: arrays[key].reshape(shape) for key in (*keys, "loss_mask") if key in arrays}
    if "cu_seqlens" in keys:
        edges = _edges(sequences, dest, length, size, used)
        shaped["cu_seqlens"] = edges.astype(np.int32)
        shaped["max_seqlen"] = np.array(np.diff(edges).max(initial=0))
    return shaped


def position_dtype(id_dtype: str, width: int) -> str:
    """Positions are as wide as ids, unless the row is too long for that."""
    return "int32" if id_dtype == "uint16" and width > 2**16 else id_dtype


def copy_runs(
    dataset: TokenDataset,
    part: np.ndarray,
    first_token: np.ndarray,
    length: np.ndarray,
    out: np.ndarray,
    dest: np.ndarray,
) -> None:
    """out[dest : dest + length] = the ids of `part` from `first_token`, for every run; lengths are at least 1."""
    exponents = np.frexp(length)[1] - 1
    for exponent in np.unique(exponents).tolist():
        at, width = np.flatnonzero(exponents == exponent), 1 << exponent
        view = np.ndarray((len(out) - width + 1, width), out.dtype, out.data, strides=(out.itemsize, out.itemsize))
        view[dest[at]] = dataset.windows(part[at], first_token[at], width)
        rest = length[at] - width
        if rest.any():
            at, rest = at[rest > 0], rest[rest > 0]
            view[dest[at] + rest] = dataset.windows(part[at], first_token[at] + rest, width)


class _Filler:
    """Repeats a column of the runs over the ids of all bins; behind the last run is padding."""

    def __init__(self, length: np.ndarray, num_behind: int) -> None:
        lengths = np.append(length, num_behind) if num_behind else length
        self._is_longer = bool(num_behind)
        self._run = np.repeat(np.arange(len(lengths)), lengths)

    def __call__(self, column: np.ndarray, behind: int | bool) -> np.ndarray:
        if self._is_longer:
            column = np.append(column, np.array(behind, column.dtype))
        out = empty(self._run.shape, column.dtype)
        return np.take(column, self._run, out=out, mode="clip") if len(out) else out


def _fill_up(length: np.ndarray, sequences: Sequences, bins: Bins) -> None:
    """Gives the last run of each bin, which is padding, what is left of the width."""
    of_runs = np.append(0, np.cumsum(length))
    edges = of_runs[sequences.first_run[bins.first_row]]
    padding = bins.width - np.diff(edges)
    assert not len(padding) or padding.min() >= 0, "a bin is too full"
    length[sequences.first_run[bins.first_row[1:]] - 1] = padding


def _clipped(sequences: Sequences, bins: Bins, num_of_row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(length, token) of the runs when a row gives only `bins.length` ids from `bins.start` on."""
    assert bins.start is not None
    assert bins.length is not None
    end = np.cumsum(sequences.run_length)
    offset = end - sequences.run_length
    offset -= np.repeat(np.append(offset, 0)[sequences.first_run[:-1]], num_of_row)
    start = np.repeat(bins.start, num_of_row)
    low = np.maximum(offset, start)
    high = np.minimum(offset + sequences.run_length, start + np.repeat(bins.length, num_of_row))
    return np.maximum(high - low, 0), sequences.run_token + low - offset


def _edges(sequences: Sequences, dest: np.ndarray, length: np.ndarray, size: int, used: int) -> np.ndarray:
    """Where segments begin in the flat batch: of rows, of the padding behind them, and the end."""
    rows = dest[sequences.first_run[:-1]] if len(dest) else np.zeros(0, np.int64)
    padding = sequences.first_run[1:] - 1
    behind = dest[padding[length[padding] > 0]] if len(dest) else np.zeros(0, np.int64)
    return np.unique(np.concatenate([rows, behind, [used, size]]))
