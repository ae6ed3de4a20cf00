"""What each source of a loader has contributed up to a step, recomputed from the order and the lengths alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcdata.loading.batches import PlainSteps, Steps
from hpcdata.loading.packed_batches import PackedSteps
from hpcdata.native.arrays import totals_before

_COLUMNS = ("samples", "text_tokens", "image_tokens", "padding", "skipped_samples")
_ROWS_AT_A_TIME = 16_384


@dataclass(frozen=True, kw_only=True)
class SourceAccount:
    """Of one source, on all ranks together. Padding counts for the sample before it."""

    samples: int
    epochs: float
    """How often each of its samples has come along, on average; samples that were too long count."""
    text_tokens: int
    image_tokens: int
    padding: int
    skipped_samples: int


def make_account(steps: Steps, epoch: int, step: int) -> dict[str, SourceAccount]:
    """The account of all steps before `step` of `epoch`, by the names of the sources."""
    sizes = steps.stream.sizes
    total = np.zeros((len(_COLUMNS), len(sizes)), np.int64)
    for past in range(epoch + 1):
        num_steps = step if past == epoch else steps.num_steps(past) or 0
        if isinstance(steps, PlainSteps):
            total += _plain(steps, past, num_steps)
        elif isinstance(steps, PackedSteps):
            total += _packed(steps, past, num_steps)
    return {
        name: SourceAccount(**dict(zip(_COLUMNS, column, strict=True)), epochs=(column[0] + column[4]) / sizes[source])
        for source, (name, column) in enumerate(zip(steps.stream.names, total.T.tolist(), strict=True))
    }


def _plain(steps: PlainSteps, epoch: int, num_steps: int) -> np.ndarray:
    stream, layout, size = steps.stream, steps.layout, steps.size
    total = np.zeros((len(_COLUMNS), len(stream.sizes)), np.int64)
    num_samples = stream.num_samples(epoch)
    stop = num_steps * size if num_samples is None else min(num_steps * size, num_samples)
    at_a_time = max(1, _ROWS_AT_A_TIME // size) * size
    for start in range(0, stop, at_a_time):
        draws = stream.draws(epoch, np.arange(start, min(start + at_a_time, stop)))
        lined_up = layout.lineup(stream.dataset.spans(draws.rows), layout.seeds_of(draws)).sequences()
        longest = np.maximum.reduceat(lined_up.length, np.arange(0, len(draws.rows), size))
        widths = np.array([layout.width(length) for length in longest[:, None]])
        padding = np.repeat(widths, size)[: len(draws.rows)] - lined_up.text_tokens - lined_up.image_tokens
        columns = (~lined_up.too_long, lined_up.text_tokens, lined_up.image_tokens, padding, lined_up.too_long)
        total += _by_source(draws.source, columns, len(stream.sizes))
    return total


def _packed(steps: PackedSteps, epoch: int, num_steps: int) -> np.ndarray:
    num_sources = len(steps.stream.sizes)
    total = np.zeros((len(_COLUMNS), num_sources), np.int64)
    behind = last_source = 0
    for window, num_bins in steps.windows(epoch, num_steps * steps.size):
        bins, num_rows = window.bins, int(window.bins.first_row[num_bins])
        draws = window.draws.take(slice(0, num_rows))
        sequences = window.sequences().between(0, num_rows)
        text, whole = sequences.text_tokens, np.ones(num_rows, bool)
        if bins.start is not None and bins.length is not None:
            text, whole = bins.length[:num_rows], bins.start[:num_rows] == 0
        used = totals_before(text + sequences.image_tokens)
        edges = bins.first_row[: num_bins + 1]
        free = bins.width[:num_bins] - np.diff(used[edges])
        none = np.zeros(num_rows, np.int64)
        total += _by_source(draws.source, (whole, text, sequences.image_tokens, none, none), num_sources)
        before = np.concatenate([[last_source], draws.source])[edges[1:]]
        total[3] += np.bincount(before, free, num_sources).astype(np.int64)
        total[4] += np.bincount(window.skipped, minlength=num_sources)
        behind += num_bins
        last_source = int(before[-1]) if num_bins else last_source
    total[3, last_source] += (num_steps * steps.size - behind) * (steps.packing.length or 1)
    return total


def _by_source(source: np.ndarray, columns: tuple[np.ndarray, ...], num_sources: int) -> np.ndarray:
    """[num_columns, num_sources]"""
    return np.stack([np.bincount(source, column, num_sources).astype(np.int64) for column in columns])
