"""Where the sequences of a window stand: end to end in bins of one width."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as Several
from dataclasses import dataclass

import numpy as np

from hpcdata.native.arrays import ragged, totals_before

_ANY_WIDTH = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True, eq=False)
class Bins:
    """Bin after bin: their rows, and which sequence each row is."""

    sample: np.ndarray
    """[num_rows]: a number within the sequences."""
    first_row: np.ndarray
    """[num_bins + 1]; bins without rows stand behind the others of their batch."""
    width: np.ndarray
    """[num_bins]: the columns of each."""
    start: np.ndarray | None = None
    """[num_rows]: leave out as many ids of each row (a document that goes on in another bin)."""
    length: np.ndarray | None = None
    """[num_rows]: and take as many."""
    cost: np.ndarray | None = None
    """[num_bins] int64: what each costs to train on, where ranks are to get equal parts of that. Only of whole windows.
    """

    @classmethod
    def one_each(cls, num_rows: int) -> Bins:
        """A bin for every row, as wide as the batch that it will be in, which has no segments."""
        width = np.full(num_rows, _ANY_WIDTH)
        return cls(sample=np.arange(num_rows), first_row=np.arange(num_rows + 1), width=width)

    @property
    def num_bins(self) -> int:
        return len(self.first_row) - 1

    @property
    def num_rows(self) -> int:
        return int(self.first_row[-1])

    @property
    def pieces(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(start, length), where rows are pieces of sequences."""
        return None if self.start is None or self.length is None else (self.start, self.length)

    def between(self, first: int, stop: int) -> Bins:
        """Those of bins `first` to `stop` - 1 that have rows, by themselves."""
        rows = slice(*self.first_row[[first, stop]].tolist())
        edges = self.first_row[first : stop + 1] - rows.start
        return Bins(
            sample=self.sample[rows],
            first_row=np.unique(edges),
            width=self.width[first:stop][np.diff(edges) > 0],
            start=None if self.start is None else self.start[rows],
            length=None if self.length is None else self.length[rows],
        )

    @classmethod
    def join(cls, several: Several[Bins]) -> Bins:
        """One after the other."""
        if len(several) == 1:
            return several[0]
        pieces = [bins.pieces for bins in several if bins.pieces is not None]
        start, length = map(np.concatenate, zip(*pieces, strict=True)) if pieces else (None, None)
        sizes = np.concatenate([np.diff(bins.first_row) for bins in several])
        return cls(
            sample=np.concatenate([bins.sample for bins in several]),
            first_row=totals_before(sizes),
            width=np.concatenate([bins.width for bins in several]),
            start=start,
            length=length,
        )

    def split(self, most: int) -> Bins:
        """The same rows in as many bins as there are rows, but at most `most`: some bins are cut between rows, though
        not beside a piece of one id, which teaches nothing alone.
        """
        may_be_edge = np.ones(self.num_rows + 1, bool)
        if self.length is not None:
            may_be_edge[:-1] = self.length > 1
            may_be_edge[1:] &= self.length > 1
        is_edge = np.zeros(self.num_rows + 1, bool)
        is_edge[self.first_row] = True
        inner = np.flatnonzero(~is_edge & may_be_edge)
        num_more = max(0, min(len(inner), most - self.num_bins))
        is_edge[inner[np.arange(num_more) * len(inner) // max(1, num_more)]] = True
        edges = np.flatnonzero(is_edge)
        bin_of = np.searchsorted(self.first_row, edges[:-1], side="right") - 1
        return dataclasses.replace(self, first_row=edges, width=self.width[bin_of], cost=None)

    def with_squares(self, lengths: np.ndarray) -> Bins:
        """The same, a bin's cost being the sum of the squares of its segments: what attention within them costs.

        lengths: [num_sequences].
        """
        of_row = lengths[self.sample] if self.length is None else self.length
        return dataclasses.replace(self, cost=np.diff(totals_before(of_row.astype(np.int64) ** 2)[self.first_row]))

    def totals(self, values: np.ndarray) -> np.ndarray:
        """[num_bins] int64: the sums of some `values` of the sequences."""
        return np.diff(totals_before(values[self.sample])[self.first_row])

    def place_of_row(self) -> np.ndarray:
        """[num_rows]: of each row among those of its bin."""
        return ragged(np.diff(self.first_row))[1]

    def clip(
        self, first_run: np.ndarray, run_length: np.ndarray, run_start: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(length, start): how much of each run of the rows is taken, and where that begins.

        first_run: [num_rows + 1]; run_length, run_start: [num_runs] of the rows' runs, one row after the other.
        """
        if self.start is None or self.length is None:
            return run_length.copy(), run_start
        num_of_row = np.diff(first_run)
        end = np.cumsum(run_length)
        offset = end - run_length
        offset -= np.repeat(np.append(offset, 0)[first_run[:-1]], num_of_row)
        start = np.repeat(self.start, num_of_row)
        low = np.maximum(offset, start)
        high = np.minimum(offset + run_length, start + np.repeat(self.length, num_of_row))
        return np.maximum(high - low, 0), run_start + low - offset
