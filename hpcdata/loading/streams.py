"""The canonical order of samples: one dataset in some order, or a mixture of several. Everything else builds upon it.

    Mixture([Source(dataset="/captions", weight=3), Source(dataset="/texts", weight=1, sampling="random:10%")],
            policy="stop_all")

A stream says for any positions of an epoch which rows stand there; its dataset holds the parts of all sources.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.dataset.dataset import TokenDataset
from hpcdata.dataset.manifest import LayoutDefaults, Manifest
from hpcdata.dataset.partlist import Parts
from hpcdata.loading.block_prefetch import BlocksAhead
from hpcdata.order.draws import Draws
from hpcdata.order.mixture import POLICIES, Schedule, integer_weights, make_schedule
from hpcdata.order.order import Order, find_order, rows_of_epochs
from hpcdata.order.sampling import derived_seed, select
from hpcdata.order.seeding import example_seeds
from hpcdata.shards.counts import Counts


class Stream(Protocol):
    dataset: TokenDataset
    names: tuple[str, ...]
    """Of the sources."""
    sizes: tuple[int, ...]
    """Samples of one epoch of each source."""

    def num_samples(self, epoch: int) -> int | None:
        """Samples of an epoch, None if it has no end."""
        ...

    def draws(self, epoch: int, positions: np.ndarray) -> Draws:
        """positions: [n] integers in [0, num_samples)."""
        ...

    def will_draw(self, epoch: int, start: int, stop: int) -> bool:
        """These positions are next: what blocks need is read ahead. True when that is all that they need."""
        ...

    def settings(self) -> dict[str, Any]:
        """What the order depends on, as plain values."""
        ...


class SingleStream:
    """One dataset, in one order."""

    def __init__(self, dataset: TokenDataset, order: Order, seed: int) -> None:
        self.dataset, self._order, self._seed = dataset, order, seed
        self.names: tuple[str, ...] = (dataset.path.resolve().name,)
        self.sizes: tuple[int, ...] = (len(dataset),)
        self._ahead = BlocksAhead()

    def num_samples(self, epoch: int) -> int | None:
        return self.sizes[0]

    def draws(self, epoch: int, positions: np.ndarray) -> Draws:
        rows = self._order.rows(epoch, positions)

        def seeds() -> np.ndarray:
            return example_seeds(self._seed, np.full(1, epoch), rows, self.sizes[0])

        return Draws(rows=rows, source=np.zeros(len(rows), np.int64), make_seeds=seeds)

    def will_draw(self, epoch: int, start: int, stop: int) -> bool:
        return self._ahead.reach(self.dataset, 0, self._order, epoch, start, stop)

    def settings(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset of a mixture."""

    dataset: TokenDataset | str | Path
    weight: float | None = None
    """Its share of the samples, in proportion to the others'."""
    name: str | None = None
    """By default the name of its folder; unique in the mixture."""
    sampling: str = "all"
    """`all`, or `first:N`, `end:N%`, `random:0.5%`...: see hpcdata.loading.sampling."""
    order: str = "shuffled"
    """Or `blocks`, `blocks:ROWSxBLOCKS` for data larger than RAM, `sequential`: see hpcdata.loading.order."""
    max_repeats: int = 1
    """With the policy `max_repeats`: how often each of its samples is delivered."""


class Mixture:
    """Weighted sources; see hpcdata.order.mixture for the policies.

    `strategy` says what weights are relative to: `weights` (nothing), `proportional` (the samples of a source),
    `sqrt` (their square root), `power:A` (their A-th power: the smaller A, the more small sources are upsampled) or
    `uniform`. By default `weights` if any source has one, else `proportional`.
    """

    def __init__(self, sources: Sequence[Source], *, strategy: str | None = None, policy: str = "repeat") -> None:
        if not sources:
            raise UserError("a mixture needs at least one source")
        if policy not in POLICIES:
            raise UserError(f"mixture policy {policy!r}: expected one of {', '.join(POLICIES)}")
        self.policy = policy
        self.sources = tuple(sources)
        datasets = [s.dataset if isinstance(s.dataset, TokenDataset) else TokenDataset(s.dataset) for s in sources]
        self.names = tuple(s.name or d.path.resolve().name for s, d in zip(sources, datasets, strict=True))
        if len(set(self.names)) < len(self.names):
            raise UserError(
                f"sources of a mixture need different names, got {', '.join(self.names)}: pass Source(name=...)"
            )
        self.selections = tuple(select(s.sampling, len(d)) for s, d in zip(sources, datasets, strict=True))
        for name, selection in zip(self.names, self.selections, strict=True):
            if not selection.num_samples:
                raise UserError(f"source {name} of the mixture has no samples")
        for name, source in zip(self.names, sources, strict=True):
            find_order(source.order, 1, 0)
            if source.order.startswith("blocks") and source.sampling.startswith("random"):
                raise UserError(f"source {name} of the mixture: blocks of a random subset are not read in one go")
        if any(source.max_repeats < 1 for source in sources):
            raise UserError("max_repeats of a source: expected at least 1")
        self.sizes = tuple(selection.num_samples for selection in self.selections)
        self.weights = integer_weights(_weights(sources, self.sizes, strategy))
        self.first_row = np.cumsum([0] + [len(dataset) for dataset in datasets])
        self.dataset = TokenDataset(_joined(self.names, [dataset.manifest for dataset in datasets]))


class MixtureStream:
    """A mixture with a seed, and the changes of its weights so far.

    `changes`: (epoch, position, integer weights from there on), in the order in which they happened.
    """

    def __init__(self, mixture: Mixture, *, seed: int, shuffle: bool, changes: Sequence[tuple] = ()) -> None:
        self.mixture, self._seed, self._shuffle = mixture, seed, shuffle
        self.dataset, self.names, self.sizes = mixture.dataset, mixture.names, mixture.sizes
        self.changes = tuple((int(epoch), int(at), tuple(map(int, weights))) for epoch, at, weights in changes)
        self._selections = [
            select(source.sampling, selection.size, seed=derived_seed(seed, f"source {name}"))
            for source, selection, name in zip(mixture.sources, mixture.selections, mixture.names, strict=True)
        ]
        self._latest: tuple[int, Schedule] | None = None
        self._ahead = [BlocksAhead() for _ in mixture.names]

    def num_samples(self, epoch: int) -> int | None:
        return self.schedule(epoch).num_samples

    def schedule(self, epoch: int) -> Schedule:
        latest = self._latest
        if latest is None or latest[0] != epoch:  # threads may ask for two epochs at a time
            latest = self._latest = epoch, self._make_schedule(epoch)
        return latest[1]

    def draws(self, epoch: int, positions: np.ndarray) -> Draws:
        source, draw = self.schedule(epoch).places(positions)
        rows, times = np.empty_like(source), np.empty_like(source)
        for index, size in enumerate(self.sizes):
            at = np.flatnonzero(source == index)
            if len(at):
                times[at], within = np.divmod(draw[at], size)
                rows[at] = self._rows(index, epoch, times[at], within)

        def seeds() -> np.ndarray:
            sizes = np.array([selection.size for selection in self._selections])[source]
            return example_seeds(self._seed, (epoch << 20) + times, rows, sizes)

        return Draws(rows=rows + self.mixture.first_row[source], source=source, make_seeds=seeds)

    def will_draw(self, epoch: int, start: int, stop: int) -> bool:
        if not self._shuffle or all(source.order == "shuffled" for source in self.mixture.sources):
            return False
        schedule, is_all = self.schedule(epoch), True
        for index, (before, after) in enumerate(zip(schedule.counts(start), schedule.counts(stop), strict=True)):
            times = max(0, after - 1) // self.sizes[index]
            first = int(self.mixture.first_row[index]) + self._selections[index].first
            begin, end = max(0, before - times * self.sizes[index]), after - times * self.sizes[index]
            is_asked = self._ahead[index].reach(self.dataset, first, self._order(index, epoch), times, begin, end)
            is_all &= is_asked or begin >= end
        return is_all

    def changed(self, epoch: int, position: int, weights: Mapping[str, float]) -> MixtureStream:
        """The same stream with other weights from a position on; a weight of 0 leaves a source out."""
        if set(weights) != set(self.names):
            raise UserError(f"weights are for {', '.join(weights)}: expected one for each of {', '.join(self.names)}")
        change = (epoch, position, integer_weights([weights[name] for name in self.names]))
        kept = [earlier for earlier in self.changes if earlier[:2] != (epoch, position)]
        return self.with_changes([*kept, change])

    def with_changes(self, changes: Sequence[tuple]) -> MixtureStream:
        return MixtureStream(self.mixture, seed=self._seed, shuffle=self._shuffle, changes=changes)

    def settings(self) -> dict[str, Any]:
        mixture = self.mixture
        sources = [
            [n, s.sampling, s.max_repeats, *([] if s.order == "shuffled" else [s.order])]
            for n, s in zip(self.names, mixture.sources, strict=True)
        ]
        return {"policy": mixture.policy, "weights": mixture.weights, "sources": sources}

    def _rows(self, index: int, epoch: int, times: np.ndarray, within: np.ndarray) -> np.ndarray:
        """Rows of one source: its `times`-th epoch has an order of its own."""
        if self._shuffle:
            within = rows_of_epochs(self._order(index, epoch), times, within)
        return self._selections[index].rows(within)

    def _order(self, index: int, epoch: int) -> Order:
        seed = derived_seed(self._seed, f"order of {self.names[index]} in epoch {epoch}")
        return find_order(self.mixture.sources[index].order, self.sizes[index], seed)

    def _make_schedule(self, epoch: int) -> Schedule:
        weights = self.mixture.weights
        for change in self.changes:
            if change[0] < epoch:
                weights = change[2]
        return make_schedule(
            self.sizes,
            weights,
            policy=self.mixture.policy,
            max_repeats=[source.max_repeats for source in self.mixture.sources],
            changes=[change[1:] for change in self.changes if change[0] == epoch],
        )


def _weights(sources: Sequence[Source], sizes: Sequence[int], strategy: str | None) -> list[float]:
    given = [source.weight for source in sources]
    if strategy is None:
        strategy = "proportional" if all(weight is None for weight in given) else "weights"
    if strategy == "weights" and None in given:
        raise UserError("some sources of the mixture have a weight and some have none: give one to each")
    base = [_share(size, strategy) for size in sizes]
    return [share if weight is None else share * weight for share, weight in zip(base, given, strict=True)]


def _share(size: int, strategy: str) -> float:
    if strategy in ("weights", "uniform"):
        return 1
    if strategy == "proportional":
        return size
    if strategy == "sqrt":
        return math.isqrt(size << 32) / 2**16
    match = re.fullmatch(r"power:(\d*\.?\d+)", strategy)
    if not match:
        raise UserError(
            f"mixture strategy {strategy!r}: expected weights, proportional, uniform, sqrt or power:A (as in power:0.3)"
        )
    return round(size ** float(match[1]), 6)


def _joined(names: Sequence[str], manifests: Sequence[Manifest]) -> Manifest:
    """One manifest with the parts of all, for what must be equal in them. Raises UserError where it is not."""
    first = manifests[0]
    for name, manifest in zip(names, manifests, strict=True):
        if manifest.id_dtype != first.id_dtype:
            raise UserError(
                f"source {name} of the mixture has {manifest.id_dtype} ids, {names[0]} has {first.id_dtype}: "
                "encode them with the same tokenizers"
            )
    settings = [manifest.layout for manifest in manifests]
    parts = [
        dataclasses.replace(part, path=str((manifest.folder / part.path).resolve()).lstrip("/"))
        for manifest in manifests
        for part in manifest.parts
    ]
    block_sizes = [layout.block_size for layout in settings if layout.block_size is not None]
    return Manifest(
        fingerprint=_digest([manifest.fingerprint for manifest in manifests]),
        id_dtype=first.id_dtype,
        parts=Parts.of(parts),
        counts=sum((manifest.counts for manifest in manifests), Counts()),
        content_digest=_digest([manifest.content_digest for manifest in manifests]),
        text=_same("text tokenizer", names, [manifest.text for manifest in manifests]),
        image=_same("image tokenizer", names, [manifest.image for manifest in manifests]),
        layout=LayoutDefaults(
            img_token_shift=_same("img_token_shift", names, [layout.img_token_shift for layout in settings]),
            text_vocab_size=_same("text_vocab_size", names, [layout.text_vocab_size for layout in settings]),
            block_size=max(block_sizes, default=None),
            resolution=max((layout.resolution for layout in settings if layout.resolution), default=None),
        ),
        folder=Path("/"),
    )


def _same(what: str, names: Sequence[str], values: Sequence[Any]) -> Any:
    """The one value that all sources have, apart from those that have none."""
    found = [(name, value) for name, value in zip(names, values, strict=True) if value is not None]
    for name, value in found:
        if value != found[0][1]:
            raise UserError(f"sources {found[0][0]} and {name} of the mixture differ in {what}: encode them alike")
    return found[0][1] if found else None


def _digest(values: Any) -> str:
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=32).hexdigest()
