"""What each source of a MultimodalLoader has contributed up to a step, recomputed from order and lengths alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from hpcdata.multimodal.loading.lengths import Lengths, Rooms
from hpcdata.multimodal.loading.steps import PackedSteps, PlainSteps
from hpcdata.multimodal.values import REASONS
from hpcdata.order.account import Account, padding_of, past_steps
from hpcdata.order.draws import Draws

_ROWS_AT_A_TIME = 16_384
_COLUMNS = ("samples", "tokens", "crops", "padding", "dropped_samples")


@dataclass(frozen=True, kw_only=True)
class RawAccount:
    """Of one source, on all ranks together."""

    samples: int
    epochs: float
    """How often each of its samples has come along, on average; rejected ones count."""
    tokens: int
    """Columns that hold something: text, and what stands for pictures."""
    crops: int
    padding: int
    """Of packed rows; it counts for the sample before it."""
    rejected: dict[str, int]
    """By reason, as far as that is known without decoding."""
    dropped_samples: int
    """Of the epochs that are over: what was in no row, as it did not fill a last step."""
    waited_s: float = field(default=0.0, compare=False)
    """Seconds that this process waited for its batches, since it began; shared out among the sources by samples."""


def make_account(
    steps: PlainSteps | PackedSteps, lengths: Lengths, epoch: int, step: int, *, waited_s: float
) -> Account[RawAccount]:
    """The account of all steps before `step` of `epoch`, by the names of the sources; `total` is that of all."""
    number = len(steps.stream.sizes)
    totals = {name: np.zeros(number, np.int64) for name in _COLUMNS}
    reasons = np.zeros((number, len(REASONS) + 1), np.int64)
    for past, num_steps in past_steps(steps, epoch, step):
        before = reasons.sum(axis=1)
        for draws, rooms, padding in _portions(steps, lengths, past, num_steps):
            is_used = rooms.reason == 0
            values = (is_used, rooms.num_tokens, rooms.num_crops * is_used, padding)
            for name, column in zip(_COLUMNS, values, strict=False):
                totals[name] += np.bincount(draws.source, column, number).astype(np.int64)
            np.add.at(reasons, (draws.source, rooms.reason), 1)
        if past < epoch:
            drawn = np.array(steps.stream.drawn(past), np.int64)
            totals["dropped_samples"] += drawn - (reasons.sum(axis=1) - before)
    all_samples = max(1, int(totals["samples"].sum()))

    def of(sources: slice) -> RawAccount:
        values = {name: int(total[sources].sum()) for name, total in totals.items()}
        by_reason = reasons[sources].sum(axis=0)
        return RawAccount(
            **values,
            epochs=int(by_reason.sum()) / sum(steps.stream.sizes[sources]),
            rejected={str(REASONS[at - 1]): int(by_reason[at]) for at in np.flatnonzero(by_reason[1:]) + 1},
            waited_s=waited_s * values["samples"] / all_samples,
        )

    names = steps.stream.names
    return Account({name: of(slice(at, at + 1)) for at, name in enumerate(names)}, of(slice(None)))


def _portions(
    steps: PlainSteps | PackedSteps, lengths: Lengths, epoch: int, num_steps: int
) -> Iterator[tuple[Draws, Rooms, np.ndarray]]:
    """What the first steps of an epoch have dealt with, and the padding behind each sample."""
    if isinstance(steps, PackedSteps):
        for window, num_bins in steps.windows(epoch, num_steps):
            rows = slice(0, int(window.bins.first_row[num_bins]))
            draws, rooms = window.draws.take(rows), window.rooms.take(rows)
            _, behind = padding_of(window.bins, num_bins, rooms.num_tokens, draws.source, 0)
            padding = np.zeros(len(draws.rows), np.int64)
            padding[window.bins.first_row[1 : num_bins + 1] - 1] = behind
            yield draws, rooms, padding
            at = np.flatnonzero(window.all_rooms.reason)
            yield window.all_draws.take(at), window.all_rooms.take(at), np.zeros(len(at), np.int64)
        return
    num_samples, size = steps.stream.num_samples(epoch), steps.size
    stop = num_steps * size if num_samples is None else min(num_steps * size, num_samples)
    for start in range(0, stop, _ROWS_AT_A_TIME):
        draws = steps.stream.draws(epoch, np.arange(start, min(start + _ROWS_AT_A_TIME, stop)))
        yield draws, lengths.of(draws), np.zeros(len(draws.rows), np.int64)
