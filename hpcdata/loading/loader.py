"""TokenLoader: shuffled, mixed, packed, distributed batches of tensors that resume exactly, on any number of ranks.

    loader = TokenLoader("/out", global_batch_size=256, layout="t2i", seed=7)
    for batch in loader:                       # dict of tensors, see hpcdata.loading.layouts.named
        ...
        torch.save({"loader": loader.state_dict(), ...}, ...)

Step s of an epoch consists of rows s * global_batch_size onwards of the epoch, and rank r of S takes the r-th of S
equal slices. A row is a sample in the epoch's order or, with `packing`, several samples of one window of it. So the
global batches are the same for every S, all ranks end an epoch at the same step, and the whole state is (epoch, step),
for packing with a note of where to go on: restoring it costs nothing, and the world size may change in between.

The last rows of an epoch that do not fill a global batch are dropped (`drop_last=True`; a shuffled epoch drops others
each time), or delivered: as a smaller batch whose slices differ by at most one sample (refused where a rank would get
none, since it would leave the others waiting), with packing as one that is filled up with empty rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.dataset.dataset import TokenDataset
from hpcdata.loading.account import SourceAccount, make_account
from hpcdata.loading.batches import Mark, PlainSteps, Share, Steps
from hpcdata.loading.layouts.named import BatchCounts, Layout, find_layout
from hpcdata.loading.packed_batches import PackedSteps
from hpcdata.loading.streams import Mixture, MixtureStream, SingleStream, Stream
from hpcdata.native.forks import Lazy
from hpcdata.native.threads import Later
from hpcdata.order.order import Order, find_order
from hpcdata.order.packing import Packing, find_packing
from hpcdata.order.ranks import find_rank
from hpcdata.order.state import MAX_STATE_BYTES, STATE_VERSION, check_state, digest

if TYPE_CHECKING:
    import torch

    _Made = tuple[dict[str, torch.Tensor], BatchCounts]

_UNLIMITED = 2**40
_ROOM_FOR_DIGITS = 64
"""The numbers of a state grow after its ledger of weights was measured."""


class _Begun(NamedTuple):
    """A batch, and what other threads may still be at of it."""

    place: tuple[int, int]
    """Its epoch and step."""
    made: _Made
    later: Later


class TokenLoader:
    """Iterates over the batches of this rank, from where it stands to the end of `num_epochs` (None: without end).

    The loader itself is the cursor: `epoch` and `step` are those of the next batch, every iterator moves them, and an
    error leaves them where they were. With several threads (see hpcdata.native.threads) the next batch is in work when
    this one is delivered; that is no part of the state, and is let go of where the loader goes on elsewhere. `counts`
    is the account of what this process has delivered, `account()` that of all ranks since the beginning.
    """

    def __init__(
        self,
        dataset: TokenDataset | Mixture | str | Path,
        *,
        global_batch_size: int,
        layout: str | Layout = "t2i",
        packing: int | Packing | None = None,
        seed: int = 0,
        shuffle: bool = True,
        order: Order | str | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = True,
        num_epochs: int | None = None,
    ) -> None:
        """`global_batch_size` is the rows of one step on all ranks together; the world size must divide it.

        `packing`: the columns of rows that hold several samples each, or a BestFit, Concat or Buckets.
        `order`: another one than `seed` and `shuffle` give, or its name, such as `blocks` for data larger than RAM.
        """
        self.rank, self.world_size = find_rank(rank, world_size)
        self.global_batch_size = global_batch_size
        self.seed, self.shuffle, self.drop_last, self.num_epochs = seed, shuffle, drop_last, num_epochs
        self.packing = find_packing(packing)
        self._order = order
        self.stream = self._make_stream(dataset)
        self.dataset = self.stream.dataset
        self.layout = self._for_packing(find_layout(layout)).bind(self.dataset.manifest)
        self.epoch = self.step = 0
        self.counts = BatchCounts()
        self._begun: _Begun | None = None
        self._share = Share(rank=self.rank, world_size=self.world_size)
        if global_batch_size < 1 or global_batch_size % self.world_size:
            raise UserError(
                f"global_batch_size={global_batch_size} cannot be divided evenly among {self.world_size} ranks"
            )
        self._steps = self._make_steps()
        self._check_steps(self._steps, 0)
        self._check_rest(0)

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
        if isinstance(self._steps, PlainSteps) and not isinstance(self.stream, MixtureStream):
            return self.num_epochs * self.steps_per_epoch
        return sum(self.num_steps(epoch) for epoch in range(self.num_epochs))

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        while self.num_epochs is None or self.epoch < self.num_epochs:
            yield self._next()

    def iter_epoch(self) -> Iterator[dict[str, torch.Tensor]]:
        """The rest of the current epoch, for `for epoch in range(...)` loops."""
        epoch = self.epoch
        while self.epoch == epoch:
            yield self._next()

    def rows(self, epoch: int, step: int) -> np.ndarray:
        """The dataset rows of this rank's batch: [num_samples] int64, a pure function of settings, epoch and step."""
        return self._steps.draws(epoch, step, self._share).rows

    def batch_at(self, epoch: int, step: int) -> dict[str, torch.Tensor]:
        """The batch of any step, without moving the loader."""
        return self._plan(epoch, step)()[0]

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, and of which data and settings: under 1 KB of plain values."""
        state = {
            "version": STATE_VERSION,
            "data": self.dataset.manifest.content_digest,
            "plan": self.dataset.manifest.fingerprint,
            "settings": self._settings,
            "epoch": self.epoch,
            "step": self.step,
        }
        if self.packing is not None:
            state["mark"] = [self.epoch, *self._steps.mark(self.epoch, self.step)]
        if isinstance(self.stream, MixtureStream) and self.stream.changes:
            state["changes"] = [[epoch, position, list(weights)] for epoch, position, weights in self.stream.changes]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state`, saved on any world size. Raises UserError when it is of other data or settings."""
        check_state(state, self.state_dict())
        before, self._begun = (self.stream, self._steps), None
        epoch, step = state.get("epoch"), state.get("step")
        try:
            if isinstance(self.stream, MixtureStream):
                self.stream = self.stream.with_changes(state.get("changes", ()))
            self._steps = self._make_steps()
            mark = state.get("mark")
            if self.packing is not None and mark is not None and mark[0] == epoch:
                self._steps.restore(epoch, Mark(int(mark[1]), int(mark[2])))
            if not isinstance(epoch, int) or not isinstance(step, int) or min(epoch, step) < 0:
                raise ValueError
            if step and not self._steps.has_step(epoch, step):
                raise ValueError
        except (ValueError, TypeError, IndexError, UserError):
            self.stream, self._steps = before
            raise UserError(f"loader state is damaged: epoch {epoch!r}, step {step!r}") from None
        try:
            self._check_rest(epoch)
        except UserError:
            self.stream, self._steps = before
            raise
        self.epoch, self.step = epoch, step

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Draws from the sources of the mixture by other weights from the next batch on; all ranks must do the same.

        With packing, from the next window on. The change is part of the state, with the position where it happened.
        """
        if not isinstance(self.stream, MixtureStream):
            raise UserError("set_weights is for mixtures, this loader has one dataset")
        before, position, self._begun = self.stream, self.step * self.global_batch_size, None
        mark = self._steps.mark(self.epoch, self.step)
        if self.packing is not None:
            is_begun = mark.first_bin < position
            position = (mark.window + is_begun) * self.packing.window
        self.stream = before.changed(self.epoch, position, weights)
        try:
            if len(json.dumps(self.state_dict())) > MAX_STATE_BYTES - _ROOM_FOR_DIGITS:
                raise UserError(f"the weights were changed {len(before.changes)} times: start a new run for more")
            self._check_rest(self.epoch)
        except UserError:
            self.stream = before
            raise
        self._steps = self._make_steps()
        self._steps.restore(self.epoch, mark)
        if not self._steps.has_step(self.epoch, self.step):
            self.epoch, self.step = self.epoch + 1, 0

    def account(self) -> dict[str, SourceAccount]:
        """What each source has contributed up to the next batch, on all ranks: recomputed from the cursor alone.

        Looks up the lengths of all samples since the beginning, about half a million a second, and reads no ids.
        """
        return make_account(self._make_steps(), self.epoch, self.step)

    def __getstate__(self) -> dict[str, Any]:
        """What was begun belongs to this process."""
        return {**vars(self), "_begun": None}

    def take(self) -> Callable[[], _Made] | None:
        """Moves on by one batch and returns what makes it, in whichever thread it is called; None at the end."""
        if self.num_epochs is not None and self.epoch >= self.num_epochs:
            return None
        self._begun, make = None, self._plan(self.epoch, self.step)
        self.epoch, self.step = self._following()
        return make

    def count(self, counts: BatchCounts) -> None:
        """Adds a batch that `take` prepared, when it is delivered."""
        self.counts += counts

    def _next(self) -> dict[str, torch.Tensor]:
        here, begun, self._begun = (self.epoch, self.step), self._begun, None
        if begun is None or begun.place != here:
            begun = self._begin(here)
        following = self._following()
        if begun.later.is_used and self.counts.samples and following[0] == here[0]:  # the first batch is waited for
            self._begun = self._begin_ahead(following)
        tensors, counts = begun.made
        begun.later.finish()
        self.epoch, self.step = following
        self.count(counts)
        return tensors

    def _following(self) -> tuple[int, int]:
        """The place of the batch behind the next."""
        has_next = self._steps.has_step(self.epoch, self.step + 1)
        return (self.epoch, self.step + 1) if has_next else (self.epoch + 1, 0)

    def _begin(self, place: tuple[int, int]) -> _Begun:
        later = Later()
        return _Begun(place, self._plan(*place)(later), later)

    def _begin_ahead(self, place: tuple[int, int]) -> _Begun | None:
        """The next batch of the epoch, while this one is at work; an error is raised again when it is its turn."""
        try:
            return self._begin(place)
        except Exception:
            return None

    def _plan(self, epoch: int, step: int) -> Callable[..., _Made]:
        if not step:
            self._check_steps(self._steps, epoch)
        make, find_source = self._steps.plan(epoch, step, self._share)

        def tensors(later: Later | None = None) -> _Made:
            import torch

            batch = make(later)
            if isinstance(self.stream, MixtureStream):
                batch.arrays["source"] = find_source()
            return {key: torch.from_numpy(array) for key, array in batch.arrays.items()}, batch.counts

        return tensors

    def _make_stream(self, dataset: TokenDataset | Mixture | str | Path) -> Stream:
        if isinstance(dataset, Mixture):
            if self._order is not None:
                raise UserError("order is for one dataset: the sources of a mixture have orders of their own")
            return MixtureStream(dataset, seed=self.seed, shuffle=self.shuffle)
        opened = dataset if isinstance(dataset, TokenDataset) else TokenDataset(dataset)
        if isinstance(self._order, str):
            self._order = find_order(self._order, len(opened), self.seed)
        order = self._order or find_order("shuffled" if self.shuffle else "sequential", len(opened), self.seed)
        return SingleStream(opened, order, self.seed)

    def _make_steps(self) -> Steps:
        size, drop_last = self.global_batch_size, self.drop_last
        if self.packing is None:
            return PlainSteps(self.stream, self.layout, size, drop_last=drop_last)
        return PackedSteps(self.stream, self.layout, self.packing, size, drop_last=drop_last)

    def _for_packing(self, layout: Layout) -> Layout:
        """Packed samples may be as long as their rows; those that may be cut into pieces, of any length."""
        if self.packing is None or self.packing.length is None:
            return layout
        return layout.with_room(_UNLIMITED if self.packing.cuts else self.packing.length, force=self.packing.cuts)

    @Lazy
    def _settings(self) -> dict[str, Any]:
        """They never change: weights that do are no part of them."""
        settings = {
            "global_batch_size": self.global_batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "drop_last": self.drop_last,
            "layout": self.layout.name,
            "layout_digest": digest(self.layout.settings()),
        }
        if self.packing is not None:
            settings["packing"] = repr(self.packing)
        if self._order is not None:
            settings["order"] = repr(self._order)
        if isinstance(self.stream, MixtureStream):
            settings["mixture_digest"] = digest(self.stream.settings())
        return settings

    def _check_steps(self, steps: Steps, epoch: int) -> None:
        """Whether the epoch has a step. One epoch may pack into fewer rows than another."""
        if not steps.has_step(epoch, 0):
            what = "rows" if self.packing else "samples"
            raise UserError(
                f"epoch {epoch} of {self.dataset.path} has {self.stream.num_samples(epoch)} samples, less than one "
                f"global batch of {self.global_batch_size} {what}: use a smaller global_batch_size, or drop_last=False"
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
