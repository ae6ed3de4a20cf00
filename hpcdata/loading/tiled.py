"""Runs -> arrays by the compiled loops: where every run of a window stands is found once, for all batches of it."""

from __future__ import annotations

import numpy as np

from hpcdata.loading.arrays import IGNORED_LABEL, empty, position_dtype
from hpcdata.loading.bins import Bins
from hpcdata.loading.compiled import Kernels, WriteRuns
from hpcdata.loading.dataset import TokenDataset
from hpcdata.loading.forks import Lazy
from hpcdata.loading.places import LITERAL
from hpcdata.loading.sequences import Sequences


class Tiled:
    """What makes the arrays of batches of some of the bins, equal to those of windowed.py.

    Runs are those with ids, [num_runs] each; the room between them is padding.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        sequences: Sequences,
        bins: Bins,
        compiled: Kernels,
        *,
        pad: int,
        id_dtype: str,
    ) -> None:
        self.compiled, self.pad, self.id_dtype = compiled, pad, id_dtype
        self._sequences, self.bins = sequences, bins
        lined_up = (sequences.first_run, sequences.run_length, sequences.run_valid)
        kept, self.begin, self.used = compiled.tile(*lined_up, bins.sample, bins.pieces, bins.first_row)
        self._run, self.bin, self.column, self.length, skipped, self._row = kept
        token = sequences.run_token[self._run] + skipped
        self.places = dataset.places(sequences.run_part[self._run], token, self.length)
        self.value = sequences.run_value[self._run]
        self.first_run = np.searchsorted(self.bin, np.arange(bins.num_bins + 1)).tolist()
        self._flat: _Flat | None = None

    def batch(self, first: int, stop: int, num_bins: int, width: int) -> TiledBatch:
        """Of bins `first` to `stop` - 1, with empty ones behind them so that there are `num_bins` of `width`."""
        flat = self._flat
        if flat is None or flat.width != width:
            flat = self._flat = _Flat(self, width)
        return TiledBatch(self, flat, first, stop, num_bins)

    @Lazy
    def is_trained(self) -> np.ndarray:
        """Of each run, whether it has labels: 0 or 1."""
        return self._sequences.run_loss[self._run].astype(np.int64)

    @Lazy
    def is_image(self) -> np.ndarray:
        return self._sequences.run_image[self._run].astype(np.int64)

    @Lazy
    def position(self) -> np.ndarray:
        """Valid ids before each run in its row."""
        before = np.cumsum(self.length) - self.length
        is_first = np.ones(len(before), bool)
        is_first[1:] = self._row[1:] != self._row[:-1]
        return before - before[is_first][np.cumsum(is_first) - 1]

    @Lazy
    def segment(self) -> np.ndarray:
        return (self.bins.place_of_row() + 1)[self._row]


class _Flat:
    """The runs of a window in bins of one width that stand end to end."""

    def __init__(self, window: Tiled, width: int) -> None:
        self._window, self.width = window, width
        self._dest = window.bin * width + window.column

    @Lazy
    def ids(self) -> WriteRuns:
        return self._place(self._window.places.start, self._window.value)

    @Lazy
    def labels(self) -> WriteRuns:
        window = self._window
        is_trained = window.is_trained > 0
        start = np.where(is_trained, window.places.start, LITERAL)
        return self._place(start, np.where(is_trained, window.value, IGNORED_LABEL))

    @Lazy
    def valid(self) -> WriteRuns:
        return self._fill(np.ones_like(self._dest))

    @Lazy
    def loss_mask(self) -> WriteRuns:
        return self._fill(self._window.is_trained)

    @Lazy
    def modality(self) -> WriteRuns:
        return self._fill(self._window.is_image)

    @Lazy
    def segments(self) -> WriteRuns:
        return self._fill(self._window.segment)

    @Lazy
    def positions(self) -> WriteRuns:
        window = self._window
        return window.compiled.count_runs(window.position, self._dest, window.length)

    @Lazy
    def edges(self) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """(where segments begin, how long they are, the first of each bin): of rows, and of the padding behind them.

        All but the last of the bins without rows have none, as there is one padding behind the others.
        """
        window, bins, width = self._window, self._window.bins, self.width
        filled = np.flatnonzero(np.diff(bins.first_row))
        at = np.concatenate([np.repeat(np.arange(bins.num_bins), np.diff(bins.first_row)), filled])
        column = np.concatenate([window.begin, window.used[filled]])
        order = np.argsort(at, kind="stable")
        at, column = at[order], column[order]
        end = np.append(column[1:], width)
        end[:-1][at[1:] != at[:-1]] = width
        kept = np.flatnonzero(end > column)
        first = np.searchsorted(at[kept], np.arange(bins.num_bins + 1)).tolist()
        return (at * width + column)[kept], (end - column)[kept], first

    @Lazy
    def num_filled(self) -> list[int]:
        """Bins with rows before each."""
        return np.append(0, np.cumsum(np.diff(self._window.bins.first_row) > 0)).tolist()

    def _place(self, start: np.ndarray, value: np.ndarray) -> WriteRuns:
        window = self._window
        return window.compiled.place_runs(window.places.ids, start, value, self._dest, window.length)

    def _fill(self, value: np.ndarray) -> WriteRuns:
        return self._window.compiled.fill_runs(value, self._dest, self._window.length)


class TiledBatch:
    """The arrays of some bins."""

    def __init__(self, window: Tiled, flat: _Flat, first: int, stop: int, num_bins: int) -> None:
        self._window, self._flat, self._bins, self._shape = window, flat, (first, stop), (num_bins, flat.width)
        self._runs = (window.first_run[first], window.first_run[stop], first * flat.width)

    def valid(self) -> np.ndarray:
        return self._written(self._flat.valid, bool)

    def ids(self) -> np.ndarray:
        return self._placed(self._flat.ids, self._window.id_dtype, self._window.pad)

    def labels(self) -> np.ndarray:
        return self._placed(self._flat.labels, "int64", IGNORED_LABEL)

    def loss_mask(self) -> np.ndarray:
        return self._written(self._flat.loss_mask, bool)

    def modality(self) -> np.ndarray:
        return self._written(self._flat.modality, np.int8)

    def positions(self) -> np.ndarray:
        return self._written(self._flat.positions, position_dtype(self._window.id_dtype, self._flat.width))

    def segments(self) -> np.ndarray:
        return self._written(self._flat.segments, np.int32)

    def edges(self) -> tuple[np.ndarray, int]:
        """([num_segments + 1] int32, the longest): where segments begin in the flat batch, and its end."""
        (first, stop), (num_bins, width) = self._bins, self._shape
        begin, length, first_edge = self._flat.edges
        some, num_edges = slice(first_edge[first], first_edge[stop]), first_edge[stop] - first_edge[first]
        num_filled = self._flat.num_filled[stop] - self._flat.num_filled[first]
        num_empty = num_bins - num_filled
        edges = np.empty(num_edges + 1 + (num_empty > 0), np.int32)
        np.subtract(begin[some], first * width, out=edges[:num_edges], casting="unsafe")
        edges[num_edges], edges[-1] = num_filled * width, num_bins * width
        return edges, max(num_empty * width, int(np.maximum.reduce(length[some], initial=0)))

    def _placed(self, place: WriteRuns, dtype: str, pad: int) -> np.ndarray:
        out, (first, stop, base) = empty(self._shape, dtype), self._runs
        with self._window.places.mapped(slice(first, stop)):
            place(out, first, stop, base, pad)
        return out

    def _written(self, write: WriteRuns, dtype: np.typing.DTypeLike) -> np.ndarray:
        out = empty(self._shape, dtype)
        write(out, *self._runs)
        return out
