"""Where the runs of a batch stand: sequences end to end in bins of one width. What is made of them is in runs.py."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcdata.loading.dataset import TokenDataset
from hpcdata.loading.forks import Lazy
from hpcdata.loading.sequences import Sequences

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


class Placed:
    """The runs of a batch, each with its place (`dest`) in the ids of all bins."""

    def __init__(
        self, dataset: TokenDataset, sequences: Sequences, bins: Bins, *, pad: int, id_dtype: str, narrow: str
    ) -> None:
        """`id_dtype`: of the arrays of ids; `narrow`: one that holds every id of the layout."""
        self._dataset, self._pad, self._id_dtype, self._narrow = dataset, pad, id_dtype, narrow
        self._sequences, self._bins, self._width = sequences, bins, bins.width
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

    @property
    def _position_dtype(self) -> str:
        return position_dtype(self._id_dtype, self._width)

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
    def _place_in_bin(self) -> np.ndarray:
        """Of each row among those of its bin."""
        first_row = self._bins.first_row
        return np.arange(first_row[-1]) - np.repeat(first_row[:-1], np.diff(first_row))

    @Lazy
    def _is_trained(self) -> np.ndarray:
        """Which runs have labels."""
        return self._sequences.run_loss & self._sequences.run_valid


def position_dtype(id_dtype: str, width: int) -> str:
    """Positions are as wide as ids, unless the row is too long for that."""
    return "int32" if id_dtype == "uint16" and width > 2**16 else id_dtype


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
