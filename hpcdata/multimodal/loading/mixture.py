"""Datasets with weights, for MultimodalLoader, or as an endless stream of its own.

    mixture = IterableDatasetMixture(datasets=[captions, answers], weights=[0.7, 0.3], seed=42)
    loader = MultimodalLoader(mixture, preprocessor, global_batch_size=32)

MultimodalLoader takes datasets, weights, names and policy, and has its own order: every rate is kept in every window,
it resumes at once on any world size, and equal datasets have different orders. Iterating over the mixture itself gives
Molmo's order (allenai/molmo, its robot fork; `generation="molmo2"` for allenai/molmo2), for runs that began there: an
independent draw for each example, resumed by drawing again up to `start_index`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.order.mixing.schedule import WeightsFrom
from hpcdata.order.mixing.sized import SizedMixture, SizedSource
from hpcdata.order.seeding import example_seed

GENERATIONS = ("molmo", "molmo2")


class Draw(NamedTuple):
    """One example of Molmo's order."""

    source: int
    item: int
    epoch: int


class IterableDatasetMixture(SizedMixture):
    """See the module; `datasets`, in the order in which sources are numbered."""

    def __init__(
        self,
        datasets: Sequence[Any] | Mapping[str, Any],
        weights: Sequence[float] | None = None,
        seed: int = 0,
        *,
        names: Sequence[str] | None = None,
        strategy: str | None = None,
        policy: str = "repeat",
        schedule: Sequence[WeightsFrom] = (),
        max_repeats: int = 1,
        global_batch_size: int = 1,
        mixture_rates: Sequence[float] | None = None,
        start_index: int = 0,
        shuffle: bool = True,
        world_size: int = 1,
        rank: int = 0,
        stratify: bool = False,
        generation: str = "molmo",
    ) -> None:
        """`datasets`: by name, or with `names` (by default those of their classes). `weights`: relative; by default in
        proportion to sizes, see `strategy` (hpcdata.order.mixing.interleave). `policy`, `schedule`, `max_repeats`: see
        hpcdata.order.mixing.schedule. The rest, from `global_batch_size` on (`mixture_rates` is another word for
        `weights`), is for iterating over the mixture itself.
        """
        given = list(datasets.values()) if isinstance(datasets, Mapping) else list(datasets)
        if weights is not None and mixture_rates is not None:
            raise UserError("weights and mixture_rates are the same: pass one of them")
        weights = list(mixture_rates or ()) or None if weights is None else list(weights)
        if weights is not None and len(weights) != len(given):
            raise UserError(f"{len(weights)} weights for {len(given)} datasets: pass one for each")
        if names is None:
            names = list(datasets) if isinstance(datasets, Mapping) else _names_of(given)
        each: Sequence[float | None] = weights or [None] * len(given)
        super().__init__(
            [
                SizedSource(name=name, size=len(dataset), weight=weight, max_repeats=max_repeats)
                for name, dataset, weight in zip(names, given, each, strict=True)
            ],
            strategy=strategy,
            policy=policy,
            schedule=schedule,
        )
        if generation not in GENERATIONS:
            raise UserError(f"generation={generation!r}, expected one of {', '.join(GENERATIONS)}")
        if global_batch_size % world_size or start_index % global_batch_size:
            raise UserError(
                f"global_batch_size={global_batch_size} must be a multiple of world_size={world_size}, and "
                f"start_index={start_index} one of global_batch_size"
            )
        self.datasets, self.seed = given, seed
        self._global_batch_size, self._start_index, self._shuffle = global_batch_size, start_index, shuffle
        self._world_size, self._rank, self._stratify, self._generation = world_size, rank, stratify, generation

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Examples of this rank, and of this worker of a DataLoader, without end."""
        worker, num_workers = _worker()
        for draw in self.draws(worker, num_workers):
            dataset = self.datasets[draw.source]
            if hasattr(dataset, "preprocessor"):  # a DeterministicDataset has its own seeds
                yield dataset.get(draw.item, draw.epoch)
            else:
                seed = example_seed(self.seed, draw.epoch, draw.item, len(dataset))
                yield dataset.get(draw.item, np.random.RandomState(seed))

    def draws(self, worker: int = 0, num_workers: int = 1) -> Iterator[Draw]:
        """Which examples: Molmo's order, of which a worker has every `num_workers`-th batch."""
        size, world_size = self._global_batch_size, self._world_size
        batches = itertools.batched if hasattr(itertools, "batched") else _batched
        for number, batch in enumerate(batches(self._all_draws(), size)):
            if number * size < self._start_index or (number - self._start_index // size) % num_workers != worker:
                continue
            for at, draw in enumerate(batch):
                turn = at - self._rank if self._generation == "molmo2" else at + self._rank
                if turn % world_size == 0:
                    yield draw

    def _all_draws(self) -> Iterator[Draw]:
        sizes, is_two = [len(dataset) for dataset in self.datasets], self._generation == "molmo2"
        weights = np.array([float(weight) for weight in self.weights])
        rates = (weights / weights.sum()).astype(np.float32)
        counts, orders = [0] * len(sizes), [(-1, np.empty(0, np.int32))] * len(sizes)
        for source in self._sources(rates):
            epoch, place = divmod(counts[source], sizes[source])
            counts[source] += 1
            if orders[source][0] != epoch:
                orders[source] = epoch, self._order(sizes[source], epoch, is_two=is_two)
            yield Draw(source, int(orders[source][1][place]), epoch)

    def _sources(self, rates: np.ndarray) -> Iterator[int]:
        is_two, number = self._generation == "molmo2", len(rates)
        if self._stratify:
            counts = np.zeros(number, np.int64)
            while True:
                total = counts.sum()
                source = int(np.argmax(rates - counts / total)) if total else 0
                counts[source] += 1
                yield source
        rng = np.random.RandomState(self.seed)
        size = 1 if is_two else self._global_batch_size
        while True:
            yield from rng.choice(number, size=size, p=rates).tolist()

    def _order(self, size: int, epoch: int, *, is_two: bool) -> np.ndarray:
        order = np.arange(size, dtype=np.int32)
        if is_two and not self._shuffle:
            return order
        if is_two:
            sequence = np.random.SeedSequence(self.seed, spawn_key=(epoch, 1))
            np.random.RandomState(np.random.MT19937(sequence)).shuffle(order)
        else:
            np.random.RandomState(self.seed + epoch * 1771).shuffle(order)
        return order


def group_rates(groups: Sequence[Mapping[str, Any]], sizes: Mapping[str, int]) -> dict[str, float]:
    """Rates of datasets in groups, each of which has its `rate`, shared out by the square roots of sizes.

    groups: {"rate": 0.4, "datasets": {name: None, or a part of it (0.1), or another size (5000)}}, as
    `root_size_mixture` of Molmo. They sum to 1. sizes: of each dataset. Raises UserError for a name that has none.
    """
    rates: dict[str, float] = {}
    for group in groups:
        roots = {name: math.sqrt(_size(name, factor, sizes)) for name, factor in group["datasets"].items()}
        total = sum(roots.values())
        for name, root in roots.items():
            if name in rates:
                raise UserError(f"dataset {name} is in two groups")
            rates[name] = group["rate"] * root / total
    whole = sum(rates.values())
    return {name: rates[name] / whole for name in sorted(rates)}


def _size(name: str, factor: float | None, sizes: Mapping[str, int]) -> float:
    if name not in sizes:
        raise UserError(f"a group names dataset {name}, there are {', '.join(sorted(sizes))}")
    if factor is None:
        return sizes[name]
    return sizes[name] * factor if factor <= 1 else factor


def _names_of(datasets: Sequence[Any]) -> list[str]:
    """Those that they have, or those of their classes, numbered where there are several."""
    found = [str(getattr(dataset, "name", None) or type(unwrapped(dataset)).__name__) for dataset in datasets]
    return [name if found.count(name) == 1 else f"{name}_{found[:at].count(name)}" for at, name in enumerate(found)]


def unwrapped(dataset: Any) -> Any:
    """The dataset of a DeterministicDataset: a loader seeds its examples by the same formula."""
    return dataset.dataset if hasattr(dataset, "preprocessor") and hasattr(dataset, "dataset") else dataset


def _worker() -> tuple[int, int]:
    from torch.utils.data import get_worker_info

    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)


def _batched(values: Iterator[Draw], size: int) -> Iterator[tuple[Draw, ...]]:
    while batch := tuple(itertools.islice(values, size)):
        yield batch
