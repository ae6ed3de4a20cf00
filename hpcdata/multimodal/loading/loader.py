"""MultimodalLoader: batches of raw examples, decoded when they are loaded, that resume exactly on any number of ranks.

    loader = MultimodalLoader(dataset, preprocessor, global_batch_size=32, packing=4096, max_crops=24)
    for batch in loader:                       # dict of tensors, see hpcdata.multimodal.loading.collation
        ...
        torch.save({"loader": loader.state_dict(), ...}, ...)

Order, mixtures, ranks, packing and state are those of TokenLoader (hpcdata.order): step s of an epoch has the same
examples for every world size, each is made with randomness of its own (seed, epoch, example), and a state is an epoch
and a step. With `packing`, examples share rows by their lengths, which are known before a picture is decoded, and no
row has more than `max_crops`. What no row has room for and what would be rejected is in no row, and is counted.

An example that turns out to be damaged when it is decoded leaves its place empty: nobody moves up, so all others stay
where they are. `rejects` counts them by reason; `account()` is about all ranks since the beginning.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hpcdata.base.errors import UserError
from hpcdata.multimodal.loading.accounting import RawAccount, make_account
from hpcdata.multimodal.loading.collation import MMCollator
from hpcdata.multimodal.loading.fetching import Crew, Failed, Fetching
from hpcdata.multimodal.loading.lengths import Lengths, Preprocessor, seeds_of
from hpcdata.multimodal.loading.opening import fingerprint, make_collator, open_packing, open_sources
from hpcdata.multimodal.loading.steps import Batch, PackedSteps, PlainSteps
from hpcdata.multimodal.timing import Times
from hpcdata.multimodal.values import count_reasons
from hpcdata.native.forks import Lazy
from hpcdata.order.account import Account
from hpcdata.order.checking import digest
from hpcdata.order.looping import Looping, Waits
from hpcdata.order.order import Order
from hpcdata.order.packing import Packing
from hpcdata.order.ranks import check_rank, find_rank
from hpcdata.order.steps import Share, Steps
from hpcdata.order.streams import MixtureStream

if TYPE_CHECKING:
    import torch

    from hpcdata.order.ranks import Mesh

    Tensors = dict[str, torch.Tensor]

_logger = logging.getLogger(__name__)
_MOST_AHEAD = 16
"""Batches in work, whatever memory there is."""
_NUM_TOLD = 5
"""Rejects of each reason that are logged one by one."""


class _Begun(NamedTuple):
    place: tuple[int, int]
    batch: Batch
    examples: list[Future[dict[str, Any] | Failed]]


class Delivered(NamedTuple):
    """What a batch of this rank had."""

    samples: int
    failed: tuple[Failed, ...]
    left_out: Counter[str]
    """By reason, of the windows that begin with it; counted on rank 0."""


class MultimodalLoader(Looping[PlainSteps | PackedSteps]):
    """Iterates over the batches of this rank, from where it stands to the end of `num_epochs` (None: without end).

    `epoch` and `step` are those of the next batch; an error leaves them where they were. `rejects` counts what this
    process left out, by reason, `waits` says how long this process waited for batches, and `times` what the time of
    making them went into.
    """

    def __init__(
        self,
        dataset: Any,
        preprocessor: Preprocessor | None = None,
        *,
        global_batch_size: int,
        packing: int | str | Packing | None = None,
        max_crops: int | None = None,
        collator: MMCollator | None = None,
        sequence_length: int | None = None,
        pad_mode: str | None = None,
        consumer: str = "hf",
        seed: int | None = None,
        shuffle: bool = True,
        order: str | Order | None = None,
        drop_last: bool = True,
        num_epochs: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        mesh: Mesh | None = None,
        num_threads: int | None = None,
        memory_mb: int = 1024,
        weights_ledger: str | Path | None = None,
    ) -> None:
        """`dataset`: anything with `len()` and `get(item, rng)`, a DeterministicDataset (which has its preprocessor and
        its seed), or an IterableDatasetMixture. `packing`: columns of a row, a BestFit, or its name. `max_crops`: the
        second budget of a packed row. `collator`: by default what the preprocessor builds for `sequence_length` (with
        `packing`, its columns), `pad_mode` and `consumer`. `num_threads`: that decode, by default as many as this
        process has cores. `memory_mb`: of the examples that are made ahead; two batches are, however large.
        """
        place, size = find_rank(rank, world_size, mesh)
        rows = open_packing(packing, sequence_length, max_crops)
        found = open_sources(dataset, preprocessor, seed, shuffle=shuffle, order=order)
        self.dataset, self.preprocessor, self._sources = dataset, found.preprocessor, found.sources
        self.collator = collator or make_collator(self.preprocessor, rows, sequence_length, pad_mode, consumer)
        self._crew, self.times, self.waits = Crew(num_threads), Times(), Waits()
        most = self._most_columns
        most = None if most is None else most - self.collator.num_more
        self._fetching = Fetching(self._sources, self.preprocessor, self._crew, self.times, most=most)
        self._memory_bytes, self._begun = memory_mb << 20, deque[_Begun]()
        self._process = os.getpid()
        self.rejects: Counter[str] = Counter()
        self.num_samples = 0
        """Examples that this process has delivered."""
        self._rank_is_found = rank is None and mesh is None
        super().__init__(
            found.stream,
            share=Share(rank=place, world_size=size),
            global_batch_size=global_batch_size,
            packing=rows,
            seed=found.seed,
            shuffle=shuffle,
            has_own_order=order is not None,
            drop_last=drop_last,
            num_epochs=num_epochs,
            weights_ledger=weights_ledger,
        )

    def batch_at(self, epoch: int, step: int) -> Tensors:
        """The batch of any step, without moving the loader."""
        return self._finish(self._begin((epoch, step)))[0]

    def account(self) -> Account[RawAccount]:
        """What each source has contributed up to the next batch, on all ranks, and `total`: recomputed from the cursor.

        Measures all examples since the beginning: quick where measures are stored, a pass over headers where not. What
        turned out to be damaged only when it was decoded is not known here: see `rejects`.
        """
        waited_s = self.waits.first_s + self.waits.total_s
        return make_account(self._make_steps(), self._lengths, self.epoch, self.step, waited_s=waited_s)

    def __getstate__(self) -> dict[str, Any]:
        """What was begun belongs to this process."""
        return {**vars(self), "_begun": deque(), "times": Times()}

    def take(self) -> Callable[[], tuple[Tensors, Delivered]] | None:
        """Moves on by one batch and returns what makes it, in whichever thread it is called; None at the end."""
        if self.num_epochs is not None and self.epoch >= self.num_epochs:
            return None
        begun = self._begin((self.epoch, self.step))
        self.epoch, self.step = self._following()
        return lambda: self._finish(begun)

    def count(self, delivered: Delivered) -> None:
        """Adds a batch that `take` prepared, when it is delivered."""
        self._is_over = False
        self.num_samples += delivered.samples
        self.rejects.update(delivered.left_out)
        for failed in delivered.failed:
            reason = failed.error.reason
            self.rejects[reason] += 1
            if self.rejects[reason] <= _NUM_TOLD:
                _logger.warning(
                    "example %d of %s is left out: %s (%s)%s",
                    *(failed.item, failed.source, reason, failed.error.message),
                    "; more of these are only counted" if self.rejects[reason] == _NUM_TOLD else "",
                )

    def _next(self) -> Tensors:
        asked, here = time.perf_counter(), (self.epoch, self.step)
        if self._process != os.getpid():  # of a fork: what was begun is in work in the other process
            self._begun, self._process = deque(), os.getpid()
        self._look_ahead(here)
        following = self._following()
        try:
            tensors, delivered = self._finish(self._begun[0])
        except BaseException:
            self._begun.clear()
            raise
        self._begun.popleft()
        self.epoch, self.step = following
        self.count(delivered)
        self.waits.add(time.perf_counter() - asked)
        return tensors

    def _look_ahead(self, here: tuple[int, int]) -> None:
        """Begins the batch of this place, and those of its epoch behind it as far as there is memory for them."""
        if not self._begun or self._begun[0].place != here:
            self._begun.clear()
            self._begun.append(self._begin(here))
        for step in itertools.count(self._begun[-1].place[1] + 1):
            num_begun = sum(len(begun.examples) for begun in self._begun)
            with_one_more = num_begun * (len(self._begun) + 1) // len(self._begun)
            is_full = with_one_more * self._fetching.bytes_each > self._memory_bytes or not self._fetching.bytes_each
            if len(self._begun) >= _MOST_AHEAD or (is_full and len(self._begun) > 1):
                return
            if not self._steps.has_step(here[0], step):
                return
            self._begun.append(self._begin((here[0], step)))

    def _begin(self, place: tuple[int, int]) -> _Begun:
        if self._rank_is_found:  # looked at once more when the first batch is wanted
            check_rank(self.rank, self.world_size)
            self._rank_is_found = False
        if not place[1]:
            self._check_steps(self._steps, place[0])
        batch = self._steps.batch(*place, self._share)
        draws = batch.draws
        asked = zip(draws.source.tolist(), draws.rows.tolist(), seeds_of(draws, self._sources), strict=True)
        return _Begun(place, batch, [self._fetching.begin(*each) for each in asked])

    def _finish(self, begun: _Begun) -> tuple[Tensors, Delivered]:
        batch = begun.batch
        with self.times.phase("wait"):
            made = [example.result() for example in begun.examples]
        failed = tuple(example for example in made if isinstance(example, Failed))
        rows: list[Any] = []
        for start, stop in itertools.pairwise(batch.edges.tolist()):
            kept = [example for example in made[start:stop] if not isinstance(example, Failed)]
            if batch.is_packed:
                self._check_row(kept, batch.draws.rows[start:stop])
            rows.append(kept if batch.is_packed else (kept[0] if kept else None))
        with self.times.phase("collate"):
            tensors = self.collator(rows, batch.shape)
        if isinstance(self.stream, MixtureStream) and self.collator.consumer != "hf":
            import torch

            tensors["source"] = torch.from_numpy(batch.draws.source)
        left_out = Counter[str]() if self.rank else count_reasons(batch.reasons)
        return tensors, Delivered(len(made) - len(failed), failed, left_out)

    def _check_steps(self, steps: Steps, epoch: int) -> None:
        """Also says how many examples have no place in any row."""
        try:
            super()._check_steps(steps, epoch)
        except UserError as error:
            if not isinstance(steps, PackedSteps) or not (out := steps.left_out(epoch)):
                raise
            what = ", ".join(f"{number} {reason}" for reason, number in out.items())
            raise UserError(f"{error}; of its examples these are left out: {what}") from None

    def _check_row(self, examples: Sequence[Mapping[str, Any]], rows: Any) -> None:
        """Raises UserError where examples became longer than they were measured: something would be cut."""
        found, most = sum(len(one["input_ids"]) + self.collator.num_more for one in examples), self._most_columns
        if most is not None and found > most:
            raise UserError(
                f"the examples of a row ({', '.join(map(str, rows.tolist()))}) have {found} ids, and there is room for "
                f"{most}: they are not what was measured. Does `get` give the same for equal items and rngs?"
            )

    def _make_steps(self) -> PlainSteps | PackedSteps:
        size, lengths = self.global_batch_size, self._lengths
        if self.packing is None:
            return PlainSteps(self.stream, lengths, size, drop_last=self.drop_last, needs_shape=True)
        return PackedSteps(
            self.stream, lengths, self.packing, size, drop_last=self.drop_last, num_ranks=self.world_size
        )

    @Lazy
    def _lengths(self) -> Lengths:
        more, most = self.collator.num_more, self._most_columns
        return Lengths(self._sources, self.preprocessor, more=more, crew=self._crew, most=most)

    @property
    def _most_columns(self) -> int | None:
        """Of a row: the collator would cut what is longer."""
        return None if self.collator.pad_mode is None else self.collator.sequence_length

    def _identity(self) -> dict[str, str]:
        plain = {source.name: fingerprint(source.dataset) for source in self._sources}
        return {"data": digest(plain), "plan": digest({"sources": list(plain)})}

    def _own_settings(self) -> dict[str, Any]:
        settings = {"preprocessor_digest": self.preprocessor.settings(), "collator_digest": self.collator.settings()}
        return {name: digest(values) for name, values in settings.items()}

    def _behind_digests(self) -> dict[str, dict[str, Any]]:
        own = {"preprocessor_digest": self.preprocessor.settings(), "collator_digest": self.collator.settings()}
        return {**super()._behind_digests(), **own}

    def _let_go(self) -> None:
        self._begun, self._is_over = deque(), False
