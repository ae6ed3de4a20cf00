"""What each source of a MultimodalLoader has contributed up to a step, recomputed from order and lengths alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hpcdata.multimodal.loading.lengths import REASONS, Lengths, Rooms
from hpcdata.multimodal.loading.steps import PackedSteps, PlainSteps
from hpcdata.order.account import past_steps
from hpcdata.order.draws import Draws

_ROWS_AT_A_TIME = 16_384


@dataclass(frozen=True, kw_only=True)
class RawAccount:
    """Of one source, on all ranks together."""

    samples: int
    epochs: float
    """How often each of its samples has come along, on average; rejected ones count."""
    tokens: int
    """Columns that hold something: text, and what stands for pictures."""
    crops: int
    rejected: dict[str, int]
    """By reason, as far as that is known without decoding."""
    dropped_samples: int
    """Of the epochs that are over: what was in no row, as it did not fill a last step."""


def make_account(steps: PlainSteps | PackedSteps, lengths: Lengths, epoch: int, step: int) -> dict[str, RawAccount]:
    """The account of all steps before `step` of `epoch`, by the names of the sources."""
    number = len(steps.stream.sizes)
    totals, reasons = np.zeros((3, number), np.int64), np.zeros((number, len(REASONS) + 1), np.int64)
    drawn, seen_before = np.zeros(number, np.int64), np.zeros(number, np.int64)
    for past, num_steps in past_steps(steps, epoch, step):
        for draws, rooms in _portions(steps, lengths, past, num_steps):
            is_used = rooms.reason == 0
            for at, values in enumerate((is_used, rooms.num_tokens, rooms.num_crops * is_used)):
                totals[at] += np.bincount(draws.source, values, number).astype(np.int64)
            np.add.at(reasons, (draws.source, rooms.reason), 1)
        if past < epoch:
            drawn += np.array(steps.stream.drawn(past), np.int64)
            seen_before = reasons.sum(axis=1)
    account = {}
    for source, name in enumerate(steps.stream.names):
        samples, tokens, crops = totals[:, source].tolist()
        rejected = {str(REASONS[at - 1]): int(reasons[source, at]) for at in np.flatnonzero(reasons[source, 1:]) + 1}
        account[name] = RawAccount(
            samples=samples,
            epochs=(samples + sum(rejected.values())) / steps.stream.sizes[source],
            tokens=tokens,
            crops=crops,
            rejected=rejected,
            dropped_samples=int(drawn[source] - seen_before[source]),
        )
    return account


def _portions(
    steps: PlainSteps | PackedSteps, lengths: Lengths, epoch: int, num_steps: int
) -> Iterator[tuple[Draws, Rooms]]:
    """What the first steps of an epoch have dealt with."""
    if isinstance(steps, PackedSteps):
        for window, num_bins in steps.windows(epoch, num_steps):
            rows = slice(0, int(window.bins.first_row[num_bins]))
            yield window.draws.take(rows), window.rooms.take(rows)
            at = np.flatnonzero(window.all_rooms.reason)
            yield window.all_draws.take(at), window.all_rooms.take(at)
        return
    num_samples, size = steps.stream.num_samples(epoch), steps.size
    stop = num_steps * size if num_samples is None else min(num_steps * size, num_samples)
    for start in range(0, stop, _ROWS_AT_A_TIME):
        draws = steps.stream.draws(epoch, np.arange(start, min(start + _ROWS_AT_A_TIME, stop)))
        yield draws, lengths.of(draws)
