"""What each source has contributed up to a step: columns of values, summed by source. A loader gives the columns.

Nothing is counted while a run goes on: order and lengths say it again at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np

from hpcdata.native.arrays import totals_before
from hpcdata.order.bins import Bins
from hpcdata.order.steps import Steps

Portion = tuple[np.ndarray, Mapping[str, np.ndarray]]
"""The sources of some samples, [n], and values of them by name, [n] each."""
T = TypeVar("T")


class Account(dict[str, T]):
    """What each source has contributed, by its name; `total` is that of all."""

    def __init__(self, of_sources: Mapping[str, T], total: T) -> None:
        super().__init__(of_sources)
        self.total = total


def sum_by_source(portions: Iterable[Portion], names: Iterable[str], num_sources: int) -> dict[str, np.ndarray]:
    """Name -> [num_sources] int64."""
    totals = {name: np.zeros(num_sources, np.int64) for name in names}
    for source, values in portions:
        for name, column in values.items():
            totals[name] += np.bincount(source, column, num_sources).astype(np.int64)
    return totals


def past_steps(steps: Steps, epoch: int, step: int) -> Iterator[tuple[int, int]]:
    """(epoch, how many of its steps) of all that is before `step` of `epoch`."""
    for past in range(epoch):
        yield past, steps.num_steps(past) or 0
    yield epoch, step


def padding_of(
    bins: Bins, num_bins: int, lengths: np.ndarray, source: np.ndarray, last_source: int
) -> tuple[np.ndarray, np.ndarray]:
    """(source, padding) of the first `num_bins` bins, [num_bins] each. Padding counts for the sample before it.

    lengths, source: of their rows. last_source: of the sample before the first bin.
    """
    edges = bins.first_row[: num_bins + 1]
    padding = bins.width[:num_bins] - np.diff(totals_before(lengths)[edges])
    return np.concatenate([[last_source], source])[edges[1:]], padding
