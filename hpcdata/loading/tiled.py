"""Runs -> arrays by the compiled loops: every place of a batch belongs to one run and is written once, as it stays."""

from __future__ import annotations

import numpy as np

from hpcdata.loading.arrays import empty
from hpcdata.loading.compiled import Kernels, kernels
from hpcdata.loading.forks import Lazy
from hpcdata.loading.placed import IGNORED_LABEL, Placed
from hpcdata.loading.sequences import LITERAL


class Tiled(Placed):
    """The arrays of a batch, equal to what windowed.py makes."""

    @property
    def _kernels(self) -> Kernels:
        found = kernels()
        assert found is not None
        return found

    @Lazy
    def valid(self) -> np.ndarray:
        return self._filled(self._sequences.run_valid, bool)

    def ids(self) -> np.ndarray:
        return self._placed(self._sequences.run_part, self._sequences.run_value, self._id_dtype, self._pad)

    def labels(self) -> np.ndarray:
        runs, is_trained = self._sequences, self._is_trained
        part, value = np.where(is_trained, runs.run_part, LITERAL), np.where(is_trained, runs.run_value, IGNORED_LABEL)
        return self._placed(part, value, "int64", IGNORED_LABEL)

    def loss_mask(self) -> np.ndarray:
        return self._filled(self._is_trained, bool)

    def modality(self) -> np.ndarray:
        return self._filled(self._sequences.run_image, np.int8)

    def positions(self) -> np.ndarray:
        first_run, valid = self._sequences.first_run[:-1], self._sequences.run_valid
        first = np.where(valid, self._counted[:-1] - np.repeat(self._counted[first_run], self._num_of_row), -1)
        positions = self._empty(self._position_dtype, 0)
        self._kernels.count_runs(first, self._dest, self._length, positions)
        return positions.reshape(self._shape)

    def segments(self) -> np.ndarray:
        return self._filled(np.repeat(self._place_in_bin + 1, self._num_of_row) * self._sequences.run_valid, np.int32)

    def _placed(self, part: np.ndarray, value: np.ndarray, dtype: str, pad: int) -> np.ndarray:
        ids = self._empty(dtype, pad)
        self._dataset.place_runs(ids, part, self._token, value, self._dest, self._length)
        return ids.reshape(self._shape)

    def _filled(self, value: np.ndarray, dtype: np.typing.DTypeLike) -> np.ndarray:
        """`value` ([num_runs]) on each run, 0 behind them."""
        out = self._empty(dtype, 0)
        self._kernels.fill_runs(value.astype(np.int64), self._dest, self._length, out)
        return out.reshape(self._shape)

    def _empty(self, dtype: np.typing.DTypeLike, value: int) -> np.ndarray:
        """Flat, with `value` in the bins that have no rows."""
        out = empty((self._size,), dtype)
        out[len(self._bins.first_row[1:]) * self._width :] = value
        return out
