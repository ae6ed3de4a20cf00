"""Runs -> arrays by NumPy, where there are no compiled loops: see `assembly_compiled` for these.

Nothing is done per id in Python, and little per id at all. Where runs follow each other, whole blocks of one width are
copied from the run in which each begins, then the head of every run, in order: it puts right what the run before wrote
too much. Runs with something between them are written in windows of 1, 2, 4... ids, two of them for each run (from its
start, and up to its end). Ids and positions stay in 16 bits as long as they fit, and are widened last.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import Protocol

import numpy as np

from hpcdata.dataset.dataset import TokenDataset
from hpcdata.dataset.id_rows import LITERAL
from hpcdata.loading.layouts.sequences import Sequences
from hpcdata.native.arrays import (
    IGNORED_LABEL,
    fill_behind,
    position_dtype,
    prefix_mask,
    ragged,
    totals_before,
    widen,
    windows_of,
)
from hpcdata.native.forks import Lazy
from hpcdata.native.recycled import empty
from hpcdata.order.bins import Bins

_MIN_BLOCK, _MAX_BLOCK = 16, 256
_FEW_ROWS = 64
"""Up to here, a loop over rows is faster than a pass over all columns that some row does not fill."""
_Runs = np.ndarray | slice


class Windowed:
    """What makes the arrays of batches of some of the bins."""

    def __init__(
        self,
        dataset: TokenDataset,
        sequences: Sequences,
        bins: Bins,
        *,
        pad: int,
        id_dtype: str,
        narrow: str,
        is_packed: bool,
    ) -> None:
        """`id_dtype`: of the arrays of ids; `narrow`: one that holds every id of the layout. `is_packed`: the first id
        of a sample has no label.
        """
        self.dataset, self.pad, self.id_dtype, self.narrow, self.is_packed = dataset, pad, id_dtype, narrow, is_packed
        self._rows, self._bins = sequences.take(bins.sample), bins

    def between(self, first: int, stop: int) -> tuple[Sequences, Bins]:
        """The rows of bins `first` to `stop` - 1."""
        return self._rows.between(*self._bins.first_row[[first, stop]].tolist()), self._bins.between(first, stop)


class WindowedBatch:
    """The runs of a batch, each with its place (`dest`) in the ids of all bins, and the arrays made of them."""

    def __init__(self, pieces: Several[tuple[Windowed, int, int]], num_bins: int, width: int) -> None:
        """(window, first bin, last bin + 1) of each piece; empty bins behind them make it `num_bins` of `width`."""
        self._context, self._width = pieces[0][0], width
        rows = [window.between(first, stop) for window, first, stop in pieces]
        sequences = self._sequences = Sequences.join([sequences for sequences, _ in rows])
        bins = self._bins = Bins.join([bins for _, bins in rows])
        self._shape, self._size = (num_bins, width), num_bins * width
        self._num_of_row = np.diff(sequences.first_run)
        length, self._token = bins.clip(sequences.first_run, sequences.run_length, sequences.run_token)
        self._valid_of_bin = _fill_up(length, sequences, bins, width)
        end = np.cumsum(length)
        self._length, self._dest = length, end - length
        self._counted = totals_before(length * sequences.run_valid)
        """Valid ids before each run."""
        used = np.zeros(num_bins, np.int64)
        used[: len(self._valid_of_bin)] = self._valid_of_bin
        self._used = used
        valid = self._counted[sequences.first_run[bins.first_row]]
        self._has_gaps = bool((np.diff(valid) != self._valid_of_bin).any())
        """Whether there is padding in front of ids: in columns of their own, images begin behind it."""

    def valid(self) -> np.ndarray:
        return self._valid

    @Lazy
    def _valid(self) -> np.ndarray:
        valid = prefix_mask(self._used, self._width)
        if self._has_gaps:
            gaps = np.flatnonzero(~self._sequences.run_valid & (self._length > 0))
            _put(valid.reshape(-1), self._dest[gaps], self._length[gaps], False)
        return valid

    def ids(self) -> np.ndarray:
        return _widened(self._ids, self._context.id_dtype)

    @Lazy
    def _ids(self) -> np.ndarray:
        """In 16 bits where they fit."""
        runs, dtype, dataset = self._sequences, self._context.narrow, self._context.dataset
        ids = self._empty(dtype)
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
        return self._cleared(ids, self._context.pad)

    def labels(self) -> np.ndarray:
        labels = empty(self._shape, np.int64)
        widen(self._ids, labels)
        if self._untrained.size:
            np.copyto(labels, IGNORED_LABEL, where=~self.loss_mask())
        else:
            self._clear(labels, IGNORED_LABEL)
        labels.reshape(-1)[self._first_ids] = IGNORED_LABEL
        return labels

    def loss_mask(self) -> np.ndarray:
        mask = self._valid.copy()
        _put(mask.reshape(-1), self._dest[self._untrained], self._length[self._untrained], False)
        mask.reshape(-1)[self._first_ids] = False
        return mask

    def modality(self) -> np.ndarray:
        modality = empty(self._shape, np.int8)
        modality[:] = 0
        images = np.flatnonzero(self._sequences.run_image & (self._length > 0))
        _put(modality.reshape(-1), self._dest[images], self._length[images], 1)
        return modality

    def positions(self) -> np.ndarray:
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
        return _widened(self._cleared(positions, 0), position_dtype(self._context.id_dtype, self._width))

    def segments(self) -> np.ndarray:
        segments, first_run = self._empty("int32"), self._sequences.first_run
        dest = self._dest[first_run[:-1]]
        length = self._dest[first_run[1:] - 1] - dest  # with the padding in front of ids
        kept = length > 0
        in_bin = self._bins.place_of_row() + 1
        _put(segments, dest[kept], length[kept], in_bin[kept].astype(np.int32), may_overrun=True)
        return self._cleared(segments, 0)

    def edges(self) -> tuple[np.ndarray, int]:
        """([num_segments + 1] int32, the longest): where segments begin in the flat batch, and its end.

        They are rows, and the padding behind them.
        """
        first_run, length, dest = self._sequences.first_run, self._length, self._dest
        used = int(dest[-1] + length[-1]) if len(dest) else 0
        begins = np.zeros(len(dest), bool)
        begins[first_run[1:] - 1] = True
        begins &= length > 0
        begins[first_run[:-1]] = True
        edges = np.concatenate([dest[begins], np.arange(used, self._size, self._width), [self._size]])
        edges = np.concatenate([edges[:1], edges[1:][edges[1:] > edges[:-1]]])
        return edges.astype(np.int32), int(np.diff(edges).max(initial=0))

    @property
    def _first_ids(self) -> np.ndarray:
        """Where samples begin, if they share rows."""
        begins = self._sequences.run_valid & (self._length > 0)
        begins &= self._counted[:-1] == np.repeat(self._counted[self._sequences.first_run[:-1]], self._num_of_row)
        return self._dest[begins] if self._context.is_packed else np.zeros(0, np.int64)

    @Lazy
    def _length_of_row(self) -> np.ndarray:
        return np.diff(self._counted[self._sequences.first_run])

    @Lazy
    def _is_trained(self) -> np.ndarray:
        """Which runs have labels."""
        return self._sequences.run_loss & self._sequences.run_valid

    @Lazy
    def _untrained(self) -> np.ndarray:
        """The valid runs without labels."""
        return np.flatnonzero(~self._is_trained & self._sequences.run_valid & (self._length > 0))

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
            np.copyto(block, np.array(value).astype(block.dtype), where=~self._valid)
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


def _fill_up(length: np.ndarray, sequences: Sequences, bins: Bins, width: int) -> np.ndarray:
    """Gives the last run of each bin, which is padding, what is left of the width; returns what was there before."""
    of_runs = totals_before(length)
    edges = of_runs[sequences.first_run[bins.first_row]]
    used = np.diff(edges)
    assert not len(used) or used.max() <= width, "a bin is too full"
    length[sequences.first_run[bins.first_row[1:]] - 1] = width - used
    return used


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
