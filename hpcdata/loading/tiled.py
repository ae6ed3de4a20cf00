"""Runs -> arrays by the compiled loops: where every run of a window stands is found once, for all batches of it."""

from __future__ import annotations

import numpy as np

from hpcdata.loading.arrays import IGNORED_LABEL, empty, position_dtype
from hpcdata.loading.bins import Bins
from hpcdata.loading.compiled import Kernels
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
        num_runs = np.diff(sequences.first_run)
        length, token = bins.clip(sequences)
        dest = np.append(0, np.cumsum(length))
        first_run = sequences.first_run[bins.first_row]  # of each bin
        of_bin = dest[first_run]
        bin_of = np.repeat(np.arange(bins.num_bins), np.diff(first_run))
        kept = np.flatnonzero(sequences.run_valid & (length > 0))
        self.run_bin, self.length = bin_of[kept], length[kept]
        self.column = dest[kept] - of_bin[self.run_bin]
        self.first_run = np.searchsorted(self.run_bin, np.arange(bins.num_bins + 1)).tolist()
        self._row = np.repeat(np.arange(len(num_runs)), num_runs)[kept]
        self._sequences, self._bins, self._kept = sequences, bins, kept
        self.places = dataset.places(sequences.run_part[kept], token[kept], self.length)
        self.value = sequences.run_value[kept]
        self._begin_rows(dest[sequences.first_run[:-1]], of_bin)

    def batch(self, first: int, stop: int, num_bins: int, width: int) -> TiledBatch:
        """Of bins `first` to `stop` - 1, with empty ones behind them so that there are `num_bins` of `width`."""
        return TiledBatch(self, first, stop, num_bins, width)

    def _begin_rows(self, dest: np.ndarray, of_bin: np.ndarray) -> None:
        """In which bin and column segments begin: of rows, and of the padding behind them."""
        bins = self._bins
        bin_of_row = np.repeat(np.arange(bins.num_bins), np.diff(bins.first_row))
        filled = np.flatnonzero(np.diff(bins.first_row))
        edge_bin = np.concatenate([bin_of_row, filled])
        column = np.concatenate([dest - of_bin[bin_of_row], np.diff(of_bin)[filled]])
        order = np.argsort(edge_bin, kind="stable")
        self.edge_bin, self.edge_column = edge_bin[order], column[order]
        self.first_edge = np.searchsorted(self.edge_bin, np.arange(bins.num_bins + 1)).tolist()
        self.num_filled = np.searchsorted(filled, np.arange(bins.num_bins + 1)).tolist()
        """Bins with rows before each."""

    @Lazy
    def ones(self) -> np.ndarray:
        return np.ones(len(self.length), np.int64)

    @Lazy
    def is_trained(self) -> np.ndarray:
        """Of each run, whether it has labels: 0 or 1."""
        return self._sequences.run_loss[self._kept].astype(np.int64)

    @Lazy
    def label(self) -> tuple[np.ndarray, np.ndarray]:
        """(start, value): as those of ids, where there are labels."""
        is_trained = self.is_trained > 0
        return np.where(is_trained, self.places.start, LITERAL), np.where(is_trained, self.value, IGNORED_LABEL)

    @Lazy
    def is_image(self) -> np.ndarray:
        return self._sequences.run_image[self._kept].astype(np.int64)

    @Lazy
    def position(self) -> np.ndarray:
        """Valid ids before each run in its row."""
        before = np.cumsum(self.length) - self.length
        is_first = np.ones(len(before), bool)
        is_first[1:] = self._row[1:] != self._row[:-1]
        return before - before[is_first][np.cumsum(is_first) - 1]

    @Lazy
    def segment(self) -> np.ndarray:
        return (self._bins.place_of_row() + 1)[self._row]


class TiledBatch:
    """The arrays of some bins."""

    def __init__(self, window: Tiled, first: int, stop: int, num_bins: int, width: int) -> None:
        self._window, self._width, self._shape, self._size = window, width, (num_bins, width), num_bins * width
        self._first, self._stop = first, stop
        self._runs = runs = slice(window.first_run[first], window.first_run[stop])
        self._dest = (window.run_bin[runs] - first) * width + window.column[runs]
        self._length = window.length[runs]

    @property
    def valid(self) -> np.ndarray:
        return self._filled(self._window.ones, bool)

    def ids(self) -> np.ndarray:
        window = self._window
        return self._placed(window.places.start, window.value, window.id_dtype, window.pad)

    def labels(self) -> np.ndarray:
        return self._placed(*self._window.label, "int64", IGNORED_LABEL)

    def loss_mask(self) -> np.ndarray:
        return self._filled(self._window.is_trained, bool)

    def modality(self) -> np.ndarray:
        return self._filled(self._window.is_image, np.int8)

    def positions(self) -> np.ndarray:
        out = empty(self._shape, position_dtype(self._window.id_dtype, self._width))
        self._window.compiled.count_runs(self._window.position[self._runs], self._dest, self._length, out)
        return out

    def segments(self) -> np.ndarray:
        return self._filled(self._window.segment, np.int32)

    def edges(self) -> np.ndarray:
        """Where segments begin in the flat batch: of rows, of the padding behind them, and the end."""
        window = self._window
        num_filled = window.num_filled[self._stop] - window.num_filled[self._first]
        some = slice(window.first_edge[self._first], window.first_edge[self._stop])
        begins = (window.edge_bin[some] - self._first) * self._width + window.edge_column[some]
        edges = np.concatenate([begins, [num_filled * self._width, self._size]])
        return np.concatenate([edges[:1], edges[1:][edges[1:] > edges[:-1]]])

    def _placed(self, start: np.ndarray, value: np.ndarray, dtype: str, pad: int) -> np.ndarray:
        runs, window, out = self._runs, self._window, empty(self._shape, dtype)
        place = window.compiled.place_runs
        window.places.within(
            runs, lambda ids: place(ids, start[runs], value[runs], self._dest, self._length, out, pad=pad)
        )
        return out

    def _filled(self, value: np.ndarray, dtype: np.typing.DTypeLike) -> np.ndarray:
        """`value` ([num_runs]) on each run, 0 between them."""
        out = empty(self._shape, dtype)
        self._window.compiled.fill_runs(value[self._runs], self._dest, self._length, out)
        return out
