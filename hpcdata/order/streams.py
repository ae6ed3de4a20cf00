"""The canonical order of samples: one source in some order, or a mixture of several. Everything else builds upon it.

    SizedMixture([SizedSource(name="captions", size=9_000_000), SizedSource(name="texts", size=400)], strategy="sqrt")

A source is a name and a number of samples. Its rows are counted behind those of the sources before it, so that one
number says which sample it is. What the samples are, only their loader knows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.native.compiled import kernels
from hpcdata.order.draws import Draws
from hpcdata.order.mixing.interleave import integer_weights
from hpcdata.order.mixing.schedule import Schedule, make_schedule
from hpcdata.order.mixing.shuffling import FEW, ShuffledSources
from hpcdata.order.mixing.sized import SizedMixture, SizedSource
from hpcdata.order.mixing.weight_ledger import Change, digest_of
from hpcdata.order.order import Order, find_order, rows_of_epochs
from hpcdata.order.sampling import derived_seed, select
from hpcdata.order.seeding import example_seeds, uniform

__all__ = ["MixtureStream", "SingleStream", "SizedMixture", "SizedSource", "Stream", "Stretch"]


class Stretch(NamedTuple):
    """Consecutive positions of one source in an order of its own, whose row 0 is `first_row` of the stream."""

    source: int
    first_row: int
    order: Order
    epoch: int
    start: int
    stop: int


class Stream(Protocol):
    names: tuple[str, ...]
    """Of the sources."""
    sizes: tuple[int, ...]
    """Samples of one epoch of each source."""

    def num_samples(self, epoch: int) -> int | None:
        """Samples of an epoch, None if it has no end."""
        ...

    def drawn(self, epoch: int) -> list[int]:
        """Samples of an epoch that has an end, of each source."""
        ...

    def draws(self, epoch: int, positions: np.ndarray) -> Draws:
        """positions: [n] integers in [0, num_samples)."""
        ...

    def stretches(self, epoch: int, start: int, stop: int) -> Iterator[Stretch]:
        """What positions `start` to `stop` - 1 are in the orders of the sources, where it is worth reading ahead.

        Of a source that begins anew on the way, the last of its epochs.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """What the order depends on, as plain values."""
        ...

    def turns(self, epoch: int, steps: np.ndarray) -> np.ndarray | None:
        """[n] float64 in [0, 1), of as many steps: see hpcdata.order.steps.RowSteps. None: they are not turned."""
        ...


class SingleStream:
    """One source, in one order."""

    def __init__(self, name: str, size: int, order: Order, seed: int) -> None:
        self.order, self._seed = order, seed
        self.names: tuple[str, ...] = (name,)
        self.sizes: tuple[int, ...] = (size,)

    def num_samples(self, epoch: int) -> int | None:
        return self.sizes[0]

    def drawn(self, epoch: int) -> list[int]:
        return [self.sizes[0]]

    def draws(self, epoch: int, positions: np.ndarray) -> Draws:
        rows = self.order.rows(epoch, positions)

        def seeds() -> np.ndarray:
            return example_seeds(self._seed, np.full(1, epoch), rows, self.sizes[0])

        return Draws(rows=rows, source=np.zeros(len(rows), np.int64), make_seeds=seeds)

    def stretches(self, epoch: int, start: int, stop: int) -> Iterator[Stretch]:
        yield Stretch(0, 0, self.order, epoch, start, stop)

    def settings(self) -> dict[str, Any]:
        return {}

    def turns(self, epoch: int, steps: np.ndarray) -> None:
        return None


class MixtureStream:
    """A mixture with a seed, and the changes of its weights so far.

    `changes`: in the order in which they happened. Such weights hold until the next of the mixture's schedule.
    `turned`: whether the steps of a shuffled one are turned, so that no rank sees some of its sources alone.
    """

    def __init__(
        self, mixture: SizedMixture, *, seed: int, shuffle: bool, changes: Sequence[Change] = (), turned: bool = True
    ) -> None:
        self.mixture, self._seed, self._shuffle, self.is_turned = mixture, seed, shuffle, turned and shuffle
        self.names, self.sizes = mixture.names, mixture.sizes
        self.changes = tuple(changes)
        before = digest_of(self.changes[:-1])
        self.digests = before, self.changes[-1].behind(before) if self.changes else before
        """Of the changes without the last, and of all."""
        self._selections = [
            select(source.sampling, selection.size, seed=derived_seed(seed, f"source {source.name}"))
            for source, selection in zip(mixture.sources, mixture.selections, strict=True)
        ]
        self._latest: tuple[int, Schedule] | None = None
        self._sizes = np.array(self.sizes, np.int64)
        self._first = np.array([selection.first for selection in self._selections], np.int64)
        self._shuffled = ShuffledSources(self.sizes, self._seed_of)
        self._is_simple = (
            shuffle
            and len(self.sizes) > FEW
            and all(
                source.order == "shuffled" and selection.permutation is None
                for source, selection in zip(mixture.sources, self._selections, strict=True)
            )
        )
        """Whether they are many, all are shuffled, and none is a random part."""

    def num_samples(self, epoch: int) -> int | None:
        return self.schedule(epoch).num_samples

    def drawn(self, epoch: int) -> list[int]:
        schedule = self.schedule(epoch)
        return schedule.counts(schedule.num_samples or 0)

    def schedule(self, epoch: int) -> Schedule:
        latest = self._latest
        if latest is None or latest[0] != epoch:  # threads may ask for two epochs at a time
            latest = self._latest = epoch, self._make_schedule(epoch)
        return latest[1]

    def draws(self, epoch: int, positions: np.ndarray) -> Draws:
        source, draw = self.schedule(epoch).places(positions)
        times, within = np.divmod(draw, self._sizes[source])
        rows = self._all_rows(epoch, source, times, within)

        def seeds() -> np.ndarray:
            sizes = np.array([selection.size for selection in self._selections])[source]
            return example_seeds(self._seed, (epoch << 20) + times, rows, sizes)

        return Draws(rows=rows + self.mixture.first_row[source], source=source, make_seeds=seeds)

    def _all_rows(self, epoch: int, source: np.ndarray, times: np.ndarray, within: np.ndarray) -> np.ndarray:
        """Rows in their sources; those of all that are simply shuffled at once."""
        compiled = kernels()
        if compiled is not None and self._is_simple and len(source):
            return self._shuffled.rows(compiled, epoch, source, times, within) + self._first[source]
        rows = np.empty_like(source)
        for index in range(len(self.sizes)):
            at = np.flatnonzero(source == index)
            if len(at):
                rows[at] = self._rows(index, epoch, times[at], within[at])
        return rows

    def stretches(self, epoch: int, start: int, stop: int) -> Iterator[Stretch]:
        if not self._shuffle or all(source.order == "shuffled" for source in self.mixture.sources):
            return
        schedule = self.schedule(epoch)
        for index, (before, after) in enumerate(zip(schedule.counts(start), schedule.counts(stop), strict=True)):
            times = max(0, after - 1) // self.sizes[index]
            first = int(self.mixture.first_row[index]) + self._selections[index].first
            begin, end = max(0, before - times * self.sizes[index]), after - times * self.sizes[index]
            yield Stretch(index, first, self._order(index, epoch), times, begin, end)

    def changed(self, epoch: int, position: int, weights: Mapping[str, float]) -> MixtureStream:
        """The same stream with other weights from a position on; a weight of 0 leaves a source out."""
        if set(weights) != set(self.names):
            raise UserError(f"weights are for {', '.join(weights)}: expected one for each of {', '.join(self.names)}")
        wanted = integer_weights([weights[name] for name in self.names])
        is_again = bool(self.changes) and self.changes[-1][:2] == (epoch, position)
        kept = self.changes[:-1] if is_again else self.changes
        changed, drawn = copy.copy(self), None
        changed._latest = None
        if self.mixture.policy == "repeat":
            later = [item for item in self.mixture.schedule if item[0] > position]
            schedule = self.schedule(epoch).extended(position, wanted, later)
            changed._latest = epoch, schedule
            drawn = tuple(schedule.stages[-1 - len(later)].base.tolist())
        change = Change(epoch, position, wanted, drawn)
        changed.changes = (*kept, change)
        before = self.digests[0 if is_again else 1]
        changed.digests = before, change.behind(before)
        return changed

    def with_changes(self, changes: Sequence[Change], *, turned: bool | None = None) -> MixtureStream:
        turned = self.is_turned if turned is None else turned
        return MixtureStream(self.mixture, seed=self._seed, shuffle=self._shuffle, changes=changes, turned=turned)

    def settings(self) -> dict[str, Any]:
        mixture = self.mixture
        sources = [
            [s.name, s.sampling, s.max_repeats, *([] if s.order == "shuffled" else [s.order])] for s in mixture.sources
        ]
        schedule = {"schedule": mixture.schedule} if mixture.schedule else {}
        return {"policy": mixture.policy, "weights": mixture.weights, "sources": sources, **schedule}

    def turns(self, epoch: int, steps: np.ndarray) -> np.ndarray | None:
        if not self.is_turned:
            return None
        first = np.uint64(derived_seed(self._seed, f"turns of epoch {epoch}"))
        return uniform(first + steps.astype(np.uint64))

    def _rows(self, index: int, epoch: int, times: np.ndarray, within: np.ndarray) -> np.ndarray:
        """Rows of one source: its `times`-th epoch has an order of its own."""
        if self._shuffle:
            within = rows_of_epochs(self._order(index, epoch), times, within)
        return self._selections[index].rows(within)

    def _order(self, index: int, epoch: int) -> Order:
        return find_order(self.mixture.sources[index].order, self.sizes[index], self._seed_of(index, epoch))

    def _seed_of(self, index: int, epoch: int) -> int:
        return derived_seed(self._seed, f"order of {self.names[index]} in epoch {epoch}")

    def _make_schedule(self, epoch: int) -> Schedule:
        weights = self.mixture.weights
        for change in self.changes:
            if change.epoch < epoch:
                weights = change.weights
        changed = [(change.position, change.weights) for change in self.changes if change.epoch == epoch]
        drawn = {change.position: change.drawn for change in self.changes if change.drawn is not None}
        return make_schedule(
            self.sizes,
            weights,
            policy=self.mixture.policy,
            max_repeats=[source.max_repeats for source in self.mixture.sources],
            changes=sorted([*self.mixture.schedule, *changed], key=_position),
            drawn=drawn if self.mixture.policy == "repeat" else {},
        )


def _position(change: tuple[int, Sequence[int]]) -> int:
    return change[0]
