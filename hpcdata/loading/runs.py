"""Sequences -> arrays: runs of stored ids and literals, laid end to end in bins of one width.

Nothing is done per id in Python, and little per id at all. Where runs follow each other, whole blocks of one width are
copied from the run in which each begins, then the head of every run, in order: it puts right what the run before wrote
too much. Runs with something between them are written in windows of 1, 2, 4... ids, two of them for each run (from its
start, and up to its end). Ids and positions stay in 16 bits as long as they fit, and are widened last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hpcdata.loading.arrays import empty, fill_behind, prefix_mask, ragged, widen, windows_of
from hpcdata.loading.dataset import TokenDataset
from hpcdata.loading.forks import Lazy
from hpcdata.loading.sequences import LITERAL, Sequences

IGNORED_LABEL = -100
_MIN_BLOCK, _MAX_BLOCK = 16, 256
_FEW_ROWS = 64
"""Up to here, a loop over rows is faster than a pass over all columns that some row does not fill."""


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
    narrow: str = "int64",
) -> dict[str, np.ndarray]:
    """The arrays `keys`, of shape [num_bins, width] and as hpcdata.loading.layout says.

    `narrow`: a dtype that holds every id of the layout.
    """
    placed = _Placed(sequences, bins)
    arrays: dict[str, np.ndarray] = {}
    if "attention_mask" in keys:
        arrays["attention_mask"] = placed.valid
    if "input_ids" in keys or "labels" in keys:
        ids = placed.ids(dataset, narrow, pad)
        arrays["input_ids"] = _widened(ids, id_dtype)
    if "labels" in keys and id_dtype == "int64":
        arrays["labels"] = placed.labels(ids)
    elif "labels" in keys:
        arrays["loss_mask"] = placed.loss_mask()
    if "modality" in keys:
        arrays["modality"] = placed.modality()
    if "position_ids" in keys:
        arrays["position_ids"] = _widened(placed.positions(), position_dtype(id_dtype, bins.width))
    if "segment_ids" in keys:
        arrays["segment_ids"] = placed.segments(bins)
    shaped = {key: arrays[key] for key in (*keys, "loss_mask") if key in arrays}
    if "cu_seqlens" in keys:
        edges = placed.edges()
        shaped["cu_seqlens"] = edges.astype(np.int32)
        shaped["max_seqlen"] = np.array(np.diff(edges).max(initial=0))
    return shaped


def position_dtype(id_dtype: str, width: int) -> str:
    """Positions are as wide as ids, unless the row is too long for that."""
    return "int32" if id_dtype == "uint16" and width > 2**16 else id_dtype


_Runs = np.ndarray | slice


class _Placed:
    """The runs of a batch, each with its place (`dest`) in the ids of all bins."""

    def __init__(self, sequences: Sequences, bins: Bins) -> None:
        self._sequences, self._width = sequences, bins.width
        self._shape, self._size = (bins.num_bins, bins.width), bins.num_bins * bins.width
        self._num_of_row = np.diff(sequences.first_run)
        length, self._token = sequences.run_length.copy(), sequences.run_token
        if bins.start is not None:
            length, self._token = _clipped(sequences, bins, self._num_of_row)
        self._valid_of_bin = _fill_up(length, sequences, bins)
        end = np.cumsum(length)
        self._length, self._dest = length, end - length
        self._counted = np.append(0, np.cumsum(length * sequences.run_valid))
        """Valid ids before each run."""
        used = np.zeros(bins.num_bins, np.int64)
        used[: len(self._valid_of_bin)] = self._valid_of_bin
        self._used = used
        valid = self._counted[sequences.first_run[bins.first_row]]
        self._has_gaps = bool((np.diff(valid) != self._valid_of_bin).any())
        """Whether there is padding in front of ids: in columns of their own, images begin behind it."""

    @Lazy
    def valid(self) -> np.ndarray:
        valid = prefix_mask(self._used, self._width)
        if self._has_gaps:
            gaps = np.flatnonzero(~self._sequences.run_valid & (self._length > 0))
            _put(valid.reshape(-1), self._dest[gaps], self._length[gaps], False)
        return valid

    def ids(self, dataset: TokenDataset, dtype: str, pad: int) -> np.ndarray:
        runs, ids = self._sequences, self._empty(dtype)
        is_stored, is_used = runs.run_part != LITERAL, self._length > 0
        stored, literal = np.flatnonzero(is_stored & is_used), np.flatnonzero(~is_stored & is_used & runs.run_valid)
        part, token, shift = runs.run_part[stored], self._token[stored], runs.run_value[stored].astype(dtype)
        has_shift = bool(shift.any())

        def windows(at: _Runs, offset: np.ndarray | int, width: int, out: np.ndarray | None = None) -> np.ndarray:
            direct = out if dtype == dataset.manifest.id_dtype else None
            found = dataset.windows(part[at], token[at] + offset, width, direct)
            return np.add(found, shift[at, None], out=direct) if has_shift else found

        write_runs(ids, self._dest[stored], self._length[stored], windows, may_overrun=True)
        ids[self._dest[literal]] = runs.run_value[literal]
        return self._cleared(ids, pad)

    def labels(self, ids: np.ndarray) -> np.ndarray:
        labels = empty(self._shape, np.int64)
        widen(ids, labels)
        if self._untrained.size:
            np.copyto(labels, IGNORED_LABEL, where=~self.loss_mask())
        else:
            self._clear(labels, IGNORED_LABEL)
        return labels

    def loss_mask(self) -> np.ndarray:
        mask = self.valid.copy()
        _put(mask.reshape(-1), self._dest[self._untrained], self._length[self._untrained], False)
        return mask

    def modality(self) -> np.ndarray:
        modality = empty(self._shape, np.int8)
        modality[:] = 0
        images = np.flatnonzero(self._sequences.run_image & (self._length > 0))
        _put(modality.reshape(-1), self._dest[images], self._length[images], 1)
        return modality

    def positions(self) -> np.ndarray:
        """In 16 bits where they fit."""
        end = self._width + _MAX_BLOCK
        positions = self._empty("int16" if end <= 2**15 else "int32")
        counting = np.arange(end, dtype=positions.dtype)
        first_run = self._sequences.first_run[:-1]
        dest, length, start = self._dest[first_run], self._length_of_row, np.zeros(len(first_run), np.int64)
        if self._has_gaps:
            dest, length = self._dest, self._length * self._sequences.run_valid
            start = self._counted[:-1] - np.repeat(self._counted[first_run], self._num_of_row)

        def windows(at: _Runs, offset: np.ndarray | int, width: int, out: np.ndarray | None = None) -> np.ndarray:
            where = start[at] + offset
            return counting[:width] if not where.any() else windows_of(counting, width)[where]

        kept = length > 0
        dest, length, start = dest[kept], length[kept], start[kept]
        write_runs(positions, dest, length, windows, may_overrun=True)
        return self._cleared(positions, 0)

    def segments(self, bins: Bins) -> np.ndarray:
        segments = self._empty("int32")
        kept = self._length_of_row > 0
        in_bin = np.arange(len(kept)) - np.repeat(bins.first_row[:-1], np.diff(bins.first_row)) + 1
        dest = self._dest[self._sequences.first_run[:-1]]
        _put(segments, dest[kept], self._length_of_row[kept], in_bin[kept].astype(np.int32), may_overrun=True)
        return self._cleared(segments, 0)

    def edges(self) -> np.ndarray:
        """Where segments begin in the flat batch: of rows, of the padding behind them, and the end."""
        first_run, length, dest = self._sequences.first_run, self._length, self._dest
        used = int(dest[-1] + length[-1]) if len(dest) else 0
        begins = np.zeros(len(dest), bool)
        begins[first_run[1:] - 1] = True
        begins &= length > 0
        begins[first_run[:-1]] = True
        edges = np.concatenate([dest[begins], [used, self._size]])
        return np.concatenate([edges[:1], edges[1:][edges[1:] > edges[:-1]]])

    @Lazy
    def _length_of_row(self) -> np.ndarray:
        return np.diff(self._counted[self._sequences.first_run])

    @Lazy
    def _untrained(self) -> np.ndarray:
        """The valid runs without labels."""
        runs = self._sequences
        return np.flatnonzero(~runs.run_loss & runs.run_valid & (self._length > 0))

    def _empty(self, dtype: str) -> np.ndarray:
        """Flat, with room behind the last bin for a block that begins in it."""
        return empty((self._size + _MAX_BLOCK,), dtype)

    def _cleared(self, out: np.ndarray, value: int) -> np.ndarray:
        block = out[: self._size].reshape(self._shape)
        self._clear(block, value)
        return block

    def _clear(self, block: np.ndarray, value: int) -> None:
        """Puts `value` on all padding."""
        if self._has_gaps:
            np.copyto(block, np.array(value).astype(block.dtype), where=~self.valid)
        elif len(block) <= _FEW_ROWS:
            for row, used in zip(block, self._used.tolist(), strict=True):
                row[used:] = value
        else:
            fill_behind(block, self._used, value)


class _Windows(Protocol):
    def __call__(self, at: _Runs, offset: np.ndarray | int, width: int, out: np.ndarray | None = None) -> np.ndarray:
        """[num_runs, width], or what can be broadcast to it: of the runs `at`, `width` values from `offset` on.

        It may be `out`, filled.
        """
        ...


def write_runs(
    out: np.ndarray, dest: np.ndarray, length: np.ndarray, windows: _Windows, *, may_overrun: bool = False
) -> None:
    """out[dest : dest + length] = windows, for every run; in ascending order, lengths are at least 1.

    `may_overrun`: what stands between and behind runs may be overwritten.
    """
    if not len(length):
        return
    if may_overrun:
        _write_blocks(out, dest, length, windows)
        return
    longest = int(length.max())
    if int(length.min()) == longest:
        windows_of(out, longest)[dest] = windows(slice(None), 0, longest)
        return
    exponents = np.frexp(length)[1] - 1
    for exponent in np.unique(exponents).tolist():
        at, width = np.flatnonzero(exponents == exponent), 1 << exponent
        view = windows_of(out, width)
        view[dest[at]] = windows(at, 0, width)
        rest = length[at] - width
        if rest.any():
            at, rest = at[rest > 0], rest[rest > 0]
            view[dest[at] + rest] = windows(at, rest, width)


def _write_blocks(out: np.ndarray, dest: np.ndarray, length: np.ndarray, windows: _Windows) -> None:
    """Whole blocks of one width, each as if the run in which it begins went on to its end; then the heads of all runs,
    in order, as long as a block: what a block or the head before wrote too much, they put right.
    """
    width = min(_MAX_BLOCK, max(_MIN_BLOCK, 1 << (int(length.sum()) // (4 * len(length))).bit_length()))
    first, last = -(-dest // width), -(-(dest + length) // width)
    run, within = ragged(last - first)
    if len(run):
        block = first[run] + within
        blocks = out[: len(out) // width * width].reshape(-1, width)
        target = blocks[block[0] : block[-1] + 1]
        is_whole = len(target) == len(block)
        found = windows(run, block * width - dest[run], width, target if is_whole else None)
        if not is_whole:
            blocks[block] = found
        elif found is not target:
            target[:] = found
    windows_of(out, width)[dest] = windows(slice(None), 0, width)


def _put(
    out: np.ndarray, dest: np.ndarray, length: np.ndarray, value: np.ndarray | int, *, may_overrun: bool = False
) -> None:
    """out[dest : dest + length] = value, one for all runs or one for each."""
    values = np.broadcast_to(np.asarray(value, out.dtype), dest.shape)[:, None]
    write_runs(out, dest, length, lambda at, offset, width, out=None: values[at], may_overrun=may_overrun)


def _widened(block: np.ndarray, dtype: str) -> np.ndarray:
    if block.dtype == dtype:
        return block
    out = empty(block.shape, dtype)
    if block.itemsize == out.itemsize:
        out[:] = block
    else:
        widen(block, out)
    return out


def _fill_up(length: np.ndarray, sequences: Sequences, bins: Bins) -> np.ndarray:
    """Gives the last run of each bin, which is padding, what is left of the width; returns what was there before."""
    of_runs = np.append(0, np.cumsum(length))
    edges = of_runs[sequences.first_run[bins.first_row]]
    used = np.diff(edges)
    assert not len(used) or used.max() <= bins.width, "a bin is too full"
    length[sequences.first_run[bins.first_row[1:]] - 1] = bins.width - used
    return used


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
