"""The place of a loader: the epoch and the step of its next batch, and how many there are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.order.checking import whole
from hpcdata.order.mixing.weight_ledger import WeightLedger
from hpcdata.order.packing.base import Packing
from hpcdata.order.ranks import check_worker
from hpcdata.order.steps import Mark, RowSteps, Share, Steps
from hpcdata.order.streams import MixtureStream, Stream

S = TypeVar("S", bound=Steps)


class Place(Generic[S]):
    """`epoch` and `step` of the next batch of a rank."""

    _rank_is_found = False
    """Whether nobody gave it, and it was not looked at once more."""

    def __init__(
        self,
        stream: Stream,
        *,
        share: Share,
        global_batch_size: int,
        packing: Packing | None,
        seed: int,
        shuffle: bool,
        has_own_order: bool,
        drop_last: bool,
        num_epochs: int | None,
        weights_ledger: str | Path | None = None,
    ) -> None:
        """Called last by what inherits, as it makes the steps. `has_own_order`: an order was given beside the seed."""
        self._weights_ledger = None if weights_ledger is None else WeightLedger(weights_ledger)
        self.stream, self._share, self.rank, self.world_size = stream, share, share.rank, share.world_size
        self.global_batch_size, self.packing = whole("global_batch_size", global_batch_size), packing
        self.seed, self.shuffle, self._has_own_order = whole("seed", seed), shuffle, has_own_order
        self.drop_last = drop_last
        self.num_epochs = None if num_epochs is None else whole("num_epochs", num_epochs)
        self.epoch = self.step = 0
        self._made_in = os.getpid()
        self._noted: tuple[int, int, Mark] | None = None
        if self.num_epochs is not None and self.num_epochs < 0:
            raise UserError(f"num_epochs={num_epochs}, expected 0 or more, or None for a loop without end")
        if self.global_batch_size < 1 or self.global_batch_size % self.world_size:
            raise UserError(
                f"global_batch_size={global_batch_size} cannot be divided evenly among {self.world_size} ranks"
            )
        self._steps = self._make_steps()
        self._check_steps(self._steps, 0)
        self._check_rest(0)

    def _check_worker(self) -> None:
        """Called before it moves on by itself. Whoever asks for a step by its number gets it in any worker."""
        check_worker(is_its_own=self._made_in == os.getpid() and not self._rank_is_found)

    def _make_steps(self) -> S:
        """The steps of `stream`, which may be another one than before."""
        raise NotImplementedError

    def _where(self) -> str:
        """What an error says about where the samples are."""
        return ", ".join(self.stream.names)

    def _let_go(self) -> None:
        """Called when the loader goes on elsewhere: what was prepared is not wanted."""

    @property
    def batch_size(self) -> int:
        """Rows of one step on this rank."""
        return self.global_batch_size // self.world_size

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the current epoch; with packing, and in mixtures whose weights were changed, epochs may differ."""
        return self.num_steps(self.epoch)

    def num_steps(self, epoch: int) -> int:
        """Steps of an epoch. With packing, this packs all of it. Raises TypeError when it has no end."""
        steps = self._steps if epoch == self.epoch else self._make_steps()
        num_steps = steps.num_steps(epoch)
        if num_steps is None:
            raise TypeError("an epoch of this mixture has no end: its policy is repeat")
        self._check_steps(steps, epoch)
        return num_steps

    def has_step(self, epoch: int, step: int) -> bool:
        """Whether the epoch has a step `step`: with packing, this packs no more than is needed to know."""
        steps = self._steps if epoch == self.epoch else self._make_steps()
        return steps.has_step(epoch, step)

    def __len__(self) -> int:
        """Steps of all epochs. Raises TypeError when there is no end."""
        if self.num_epochs is None:
            raise TypeError("a loader without num_epochs has no length: see steps_per_epoch")
        if isinstance(self._steps, RowSteps) and not isinstance(self.stream, MixtureStream):
            return self.num_epochs * self.steps_per_epoch
        return sum(self.num_steps(epoch) for epoch in range(self.num_epochs))

    def rows(self, epoch: int, step: int) -> np.ndarray:
        """The dataset rows of this rank's batch: [num_samples] int64, a pure function of settings, epoch and step."""
        return self._steps.draws(epoch, step, self._share).rows

    @property
    def place(self) -> tuple[object, int, int]:
        """Where the loader stands, by which weights: another value once it goes on elsewhere."""
        return self.stream, self.epoch, self.step

    def stand_at(self, epoch: int, step: int) -> None:
        """Goes to a step that is there, by the same weights; what a state needs to know of it is found out later."""
        self._let_go()
        self.epoch, self.step, self._noted = epoch, step, None

    def set_epoch(self, epoch: int) -> None:
        """Goes to the first step of an epoch; where it stands in that epoch, it stays."""
        epoch = whole("epoch", epoch)
        if epoch < 0:
            raise UserError(f"epoch {epoch}, expected 0 or more")
        if epoch != self.epoch:
            if self.num_epochs is not None and epoch >= self.num_epochs:
                raise UserError(
                    f"epoch {epoch} is behind the last of num_epochs={self.num_epochs}, there are no batches: give the "
                    "loader more of them, or leave num_epochs out"
                )
            self.stand_at(epoch, 0)

    def _following(self) -> tuple[int, int]:
        """The place of the batch behind the next."""
        has_next = self._steps.has_step(self.epoch, self.step + 1)
        return (self.epoch, self.step + 1) if has_next else (self.epoch + 1, 0)

    def _check_steps(self, steps: Steps, epoch: int) -> None:
        """Whether the epoch has a step. One epoch may pack into fewer rows than another."""
        if not steps.has_step(epoch, 0):
            what, num_samples = "rows" if self.packing else "samples", self.stream.num_samples(epoch)
            found = f"epoch {epoch} of {self._where()} has {num_samples} samples"
            if not num_samples:
                raise UserError(f"{found}: there is nothing to load")
            if not self.drop_last and self.world_size == 1:
                raise UserError(f"{found}, and none has a row: each is without ids, or left out as too long")
            if not self.drop_last:
                raise UserError(f"{found}, too few rows for {self.world_size} ranks: use fewer ranks")
            raise UserError(
                f"{found}, less than one global batch of {self.global_batch_size} {what}: use a smaller "
                "global_batch_size, or drop_last=False"
            )

    def _check_rest(self, epoch: int) -> None:
        """Of this epoch and the next: all later ones are like that."""
        if self.packing is not None or self.drop_last:
            return
        for num_samples in (self.stream.num_samples(epoch), self.stream.num_samples(epoch + 1)):
            rest = (num_samples or 0) % self.global_batch_size
            if 0 < rest < self.world_size:
                raise UserError(
                    f"the last batch of an epoch has {rest} samples for {self.world_size} ranks, some would get none: "
                    "use another global_batch_size, or drop_last=True"
                )
