"""The widths of batches that are as wide as their longest sample, on all ranks together.

Every rank has to know the longest sample of the whole global batch. Where one of the first few is as long as any may
be, no more are looked at. Else few of the others can be it: how many ids a sample has is two numbers of one column, and
control tokens add little to that. So only those are lined up that may be longer than the longest one that is known.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hpcdata.dataset.dataset import TokenDataset
from hpcdata.loading.layouts.base import Layout
from hpcdata.loading.layouts.interleaved import Conversing
from hpcdata.native.arrays import ragged, totals_before
from hpcdata.order.draws import Draws

Drawn = Callable[[np.ndarray], Draws]
"""What stands at some positions."""
_SOME = 512
"""Samples of a step that are looked at first."""
_FIRST = 8
"""Samples of a step that are lined up first: those that have the most ids."""


def widths_of_steps(
    dataset: TokenDataset, layout: Layout, draws: Drawn, positions: np.ndarray, edges: np.ndarray
) -> list[int]:
    """The columns of the batches of steps of positions edges[k] to edges[k + 1] - 1; none of them is empty."""
    sizes = np.diff(edges)
    longest, is_open = np.zeros(len(sizes), np.int64), np.ones(len(sizes), bool)
    if sizes.max() > 2 * _SOME:
        some = np.minimum(sizes, _SOME)
        longest = longest_of_steps(dataset, layout, draws(positions[_at(edges[:-1], some)]), totals_before(some))
        full = layout.width(np.array([layout.max_width]))
        is_open = np.array([layout.width(length) < full for length in longest[:, None]])
    if is_open.any():
        at, of_open = _at(edges[:-1][is_open], sizes[is_open]), totals_before(sizes[is_open])
        longest[is_open] = longest_of_steps(dataset, layout, draws(positions[at]), of_open)
    return [layout.width(length) for length in longest[:, None]]


def longest_of_steps(dataset: TokenDataset, layout: Layout, draws: Draws, edges: np.ndarray) -> np.ndarray:
    """[num_steps] int64: the greatest length of the samples edges[k] to edges[k + 1] - 1; none of the steps is empty.

    edges: [num_steps + 1], from 0 to the number of draws.
    """
    if not _is_bounded(layout):
        return np.maximum.reduceat(_lengths(dataset, layout, draws, None), edges[:-1])
    of_span, of_row = _num_added(layout)
    most = dataset.num_ids(draws.rows)
    if of_span:
        most += of_span * dataset.num_spans(draws.rows)
    np.minimum(most, layout.max_width - of_row, out=most)
    first, sizes = _greatest(most, edges), np.diff(edges)
    longest = np.maximum.reduceat(
        _lengths(dataset, layout, draws, first), totals_before(np.minimum(sizes, _FIRST))[:-1]
    )
    most[first] = -1
    others = np.flatnonzero(most > np.repeat(longest - of_row, sizes))
    if len(others):
        step = np.searchsorted(edges, others, side="right") - 1
        np.maximum.at(longest, step, _lengths(dataset, layout, draws, others))
    return longest


def _is_bounded(layout: Layout) -> bool:
    """Whether its samples are their spans and a few control tokens: not so with a template of conversations."""
    lineup = type(layout).lineup
    if isinstance(layout, Conversing) and lineup is Conversing.lineup:
        return layout.template is None
    return lineup is Layout.lineup


def _num_added(layout: Layout) -> tuple[int, int]:
    """The most control tokens of a span, and of a sample beside those of its spans."""
    form, controls = layout.form, layout.controls
    ends = int(controls.eos is not None)
    of_span = max(2 * int(form.framed), ends * (form.eos != "end"))
    return of_span, int(controls.bos is not None) + int(layout.draws_lots) + ends * (form.eos != "turns")


def _greatest(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The places of the greatest values of each step."""
    found = []
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        number = min(_FIRST, stop - start)
        found.append(start + np.argpartition(values[start:stop], stop - start - number)[-number:])
    return np.concatenate(found)


def _at(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray | slice:
    """`sizes` places from each of the starts on."""
    if len(starts) == 1:
        return slice(int(starts[0]), int(starts[0] + sizes[0]))
    step, within = ragged(sizes)
    return starts[step] + within


def _lengths(dataset: TokenDataset, layout: Layout, draws: Draws, at: np.ndarray | None) -> np.ndarray:
    """Of all, or of those at some places."""
    seeds = layout.seeds_of(draws)
    if at is None:
        return layout.lineup(dataset.spans(draws.rows), seeds).length
    return layout.lineup(dataset.spans(draws.rows[at]), None if seeds is None else seeds[at]).length
