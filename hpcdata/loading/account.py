"""What each source of a TokenLoader has contributed up to a step, recomputed from the order and the lengths alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from hpcdata.loading.batches import PlainSteps, TokenSteps
from hpcdata.loading.packed_batches import PackedSteps
from hpcdata.order.account import Account, Portion, padding_of, past_steps, sum_by_source

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
    dropped_samples: int
    """Of the epochs that are over: what was in no row, as it did not fill a last step, or has no ids."""
    left_out_samples: int = 0
    """Of its dataset: what a selection (hpcdata.select) left out, once for all."""
    waited_s: float = field(default=0.0, compare=False)
    """Seconds that this process waited for its batches, since it began; shared out among the sources by samples."""


def make_account(
    steps: TokenSteps, epoch: int, step: int, *, left_out: Sequence[int], waited_s: float
) -> Account[SourceAccount]:
    """The account of all steps before `step` of `epoch`, by the names of the sources.

    left_out: samples of the dataset of each source. waited_s: of this process, for all sources together.
    """
    names, sizes = steps.stream.names, steps.stream.sizes
    past, now = list(past_steps(steps, epoch, step))[:-1], [(epoch, step)]
    over, last = (sum_by_source(_portions(steps, parts), _COLUMNS, len(sizes)) for parts in (past, now))
    totals = {column: total + last[column] for column, total in over.items()}
    drawn = sum((np.array(steps.stream.drawn(number)) for number, _ in past), np.zeros(len(sizes), np.int64))
    totals["dropped_samples"] = drawn - over["samples"] - over["skipped_samples"]
    totals["left_out_samples"] = np.array(left_out, np.int64)
    all_samples = max(1, int(totals["samples"].sum()))

    def of(sources: slice) -> SourceAccount:
        values = {column: int(total[sources].sum()) for column, total in totals.items()}
        num_seen, waited = values["samples"] + values["skipped_samples"], waited_s * values["samples"] / all_samples
        return SourceAccount(**values, epochs=num_seen / sum(sizes[sources]), waited_s=waited)

    by_name = {name: of(slice(source, source + 1)) for source, name in enumerate(names)}
    return Account(by_name, of(slice(None)))


def _portions(steps: TokenSteps, parts: Iterable[tuple[int, int]]) -> Iterator[Portion]:
    """Of the first steps of some epochs: (epoch, how many)."""
    for epoch, num_steps in parts:
        if isinstance(steps, PlainSteps):
            yield from _plain(steps, epoch, num_steps)
        elif isinstance(steps, PackedSteps):
            yield from _packed(steps, epoch, num_steps)


def _plain(steps: PlainSteps, epoch: int, num_steps: int) -> Iterator[Portion]:
    stream, layout, size = steps.stream, steps.layout, steps.size
    num_samples = stream.num_samples(epoch)
    stop = num_steps * size if num_samples is None else min(num_steps * size, num_samples)
    at_a_time = max(1, _ROWS_AT_A_TIME // size) * size
    for start in range(0, stop, at_a_time):
        draws = stream.draws(epoch, np.arange(start, min(start + at_a_time, stop)))
        lined_up = layout.lineup(steps.dataset.spans(draws.rows), layout.seeds_of(draws)).sequences()
        longest = np.maximum.reduceat(lined_up.length, np.arange(0, len(draws.rows), size))
        widths = np.array([layout.width(length) for length in longest[:, None]])
        text, image = lined_up.text_tokens, lined_up.image_tokens
        padding = np.repeat(widths, size)[: len(draws.rows)] - text - image
        columns = (~lined_up.too_long, text, image, padding, lined_up.too_long)
        yield draws.source, dict(zip(_COLUMNS, columns, strict=True))


def _packed(steps: PackedSteps, epoch: int, num_steps: int) -> Iterator[Portion]:
    last_source = 0
    for window, num_bins in steps.windows(epoch, num_steps):
        bins, num_rows = window.bins, int(window.bins.first_row[num_bins])
        source = window.draws.source[:num_rows]
        sequences = window.sequences().between(0, num_rows)
        text, whole = sequences.text_tokens, np.ones(num_rows, bool)
        if bins.start is not None and bins.length is not None:
            text, whole = bins.length[:num_rows], bins.start[:num_rows] == 0
        yield source, {"samples": whole, "text_tokens": text, "image_tokens": sequences.image_tokens}
        owner, padding = padding_of(bins, num_bins, text + sequences.image_tokens, source, last_source)
        yield owner, {"padding": padding}
        yield window.skipped, {"skipped_samples": np.ones(len(window.skipped))}
        last_source = int(owner[-1]) if num_bins else last_source
