"""TokenLoader: shuffled, mixed, packed, distributed batches of tensors that resume exactly, on any number of ranks.

    loader = TokenLoader("/out", global_batch_size=256, layout="t2i", seed=7)
    for batch in loader:                       # dict of tensors, see hpcdata.loading.layouts.named
        ...
        torch.save({"loader": loader.state_dict(), ...}, ...)

Step s of an epoch consists of rows s * global_batch_size onwards of the epoch, and rank r of S takes the r-th of S
equal slices. A row is a sample in the epoch's order or, with `packing`, several samples of one window of it. (The rows
of each step of a mixture are turned within it, so that no rank sees some of the sources alone. With
`BestFit(balance="squares")`, ranks get as many rows each, but others: those that make their work equal.) So the
global batches are the same for every S, all ranks end an epoch at the same step, and the whole state is (epoch, step),
for packing with a note of where to go on: restoring it costs nothing, and the world size may change in between.

The last rows of an epoch that do not fill a global batch are dropped (`drop_last=True`; a shuffled epoch drops others
each time), or delivered: as a smaller batch whose slices differ by at most one sample (refused where a rank would get
none, since it would leave the others waiting). With packing, their samples are spread over as many rows as there may
be; if these are fewer than the ranks, they are dropped after all. No rank is ever without a row. `account()` says how
many samples were dropped.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hpcdata.dataset.dataset import TokenDataset
from hpcdata.loading.account import SourceAccount, make_account
from hpcdata.loading.batches import PlainSteps, TokenSteps
from hpcdata.loading.layouts.named import BatchCounts, Layout, find_layout
from hpcdata.loading.packed_batches import PackedSteps
from hpcdata.loading.token_streams import Mixture, left_out_of, open_stream
from hpcdata.native.threads import Later, num_threads
from hpcdata.order.account import Account
from hpcdata.order.checking import digest
from hpcdata.order.looping import Looping, Waits
from hpcdata.order.order import Order
from hpcdata.order.packing import Packing, find_packing
from hpcdata.order.ranks import check_rank, find_rank
from hpcdata.order.steps import Share
from hpcdata.order.streams import MixtureStream

if TYPE_CHECKING:
    import numpy as np
    import torch

    from hpcdata.order.ranks import Mesh

    _Made = tuple[dict[str, torch.Tensor], BatchCounts]

_UNLIMITED = 2**40


class _Begun(NamedTuple):
    """A batch that other threads may still be at."""

    place: tuple[int, int]
    """Its epoch and step."""
    made: _Made
    later: Later | None


class TokenLoader(Looping[TokenSteps]):
    """Iterates over the batches of this rank, from where it stands to the end of `num_epochs` (None: without end).

    The loader itself is the cursor: `epoch` and `step` are those of the next batch, every iterator moves them, and an
    error leaves them where they were. With several threads (see hpcdata.native.threads) the next batch is in work when
    this one is delivered; that is no part of the state, and is let go of where the loader goes on elsewhere. `counts`
    is the account of what this process has delivered, `account()` that of all ranks since the beginning, `waits` how
    long this process waited for its batches.
    """

    def __init__(
        self,
        dataset: TokenDataset | Mixture | str | Path,
        *,
        global_batch_size: int,
        layout: str | Layout = "t2i",
        packing: int | str | Packing | None = None,
        seed: int = 0,
        shuffle: bool = True,
        order: Order | str | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = True,
        num_epochs: int | None = None,
        consumer: str | None = None,
        weights_ledger: str | Path | None = None,
        mesh: Mesh | None = None,
    ) -> None:
        """`global_batch_size` is the rows of one step on all ranks together; the world size must divide it.

        `packing`: the columns of rows that hold several samples each, or a BestFit, Concat or Buckets, or the name of
        one, such as `bestfit:4096`; `bestfit` alone takes the layout's `max_length`.
        `consumer`: who takes the batches, which says what is in them: `hf` (`model(**batch)` of transformers), `torch`
        (your own model) or `any`; by default what the layout says.
        `order`: another one than `seed` and `shuffle` give, or its name, such as `blocks` for data larger than RAM.
        `mesh`: torch's device mesh, whose tensor, pipeline and context parallel peers get the same batches.
        `weights_ledger`: a file for the changes of a mixture's weights, where they are more than a state can hold.
        """
        place, size = find_rank(rank, world_size, mesh)
        self.dataset, stream = open_stream(dataset, seed=seed, shuffle=shuffle, order=order)
        found = find_layout(layout)
        rows = find_packing(packing, getattr(found, "max_length", None))
        found = found if consumer is None else dataclasses.replace(found, consumer=consumer)
        self.layout = _for_packing(found, rows).bind(self.dataset.manifest)
        self.counts = BatchCounts()
        self.waits = Waits()
        self._begun: _Begun | None = None
        self._rank_is_found = rank is None and mesh is None
        super().__init__(
            stream,
            share=Share(rank=place, world_size=size),
            global_batch_size=global_batch_size,
            packing=rows,
            seed=seed,
            shuffle=shuffle,
            has_own_order=order is not None,
            drop_last=drop_last,
            num_epochs=num_epochs,
            weights_ledger=weights_ledger,
        )

    def batch_at(self, epoch: int, step: int) -> dict[str, torch.Tensor]:
        """The batch of any step, without moving the loader."""
        return self._plan(epoch, step)()[0]

    def account(self) -> Account[SourceAccount]:
        """What each source has contributed up to the next batch, on all ranks: recomputed from the cursor alone. Its
        `total` is that of all sources. The time waited is that of this process alone, see `waits`.

        Looks up the lengths of all samples since the beginning, about half a million a second, and reads no ids.
        """
        waited_s, left_out = self.waits.first_s + self.waits.total_s, left_out_of(self.dataset, self.stream)
        return make_account(self._make_steps(), self.epoch, self.step, left_out=left_out, waited_s=waited_s)

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
        self._is_over = False

    def _next(self) -> dict[str, torch.Tensor]:
        asked = time.perf_counter()
        here, begun, self._begun = (self.epoch, self.step), self._begun, None
        made, later = begun[1:] if begun is not None and begun.place == here else self._begin(*here)
        following = self._following()
        if later is not None:
            if later.is_used and self.counts.samples and following[0] == here[0]:  # the first batch is waited for
                self._begun = self._begin_ahead(following)
            later.finish()
        tensors, counts = made
        self.epoch, self.step = following
        self.count(counts)
        self.waits.add(time.perf_counter() - asked)
        return tensors

    def _begin(self, epoch: int, step: int) -> tuple[_Made, Later | None]:
        """A batch, and what other threads may still be at of it: None where there are none."""
        later = Later() if num_threads() > 1 else None
        return self._plan(epoch, step)(later), later

    def _begin_ahead(self, place: tuple[int, int]) -> _Begun | None:
        """The next batch of the epoch, while this one is at work; an error is raised again when it is its turn."""
        try:
            return _Begun(place, *self._begin(*place))
        except Exception:
            return None

    def _plan(self, epoch: int, step: int) -> Callable[..., _Made]:
        if self._rank_is_found:  # looked at once more when the first batch is wanted
            check_rank(self.rank, self.world_size)
            self._rank_is_found = False
        if not step:
            self._check_steps(self._steps, epoch)
        make, find_source = self._steps.plan(epoch, step, self._share)

        def tensors(later: Later | None = None) -> _Made:
            batch = make(later)
            if isinstance(self.stream, MixtureStream) and self.layout.consumer != "hf":
                batch.arrays["source"] = find_source()
            to_tensor = _to_tensor()
            made = {key: to_tensor(array) for key, array in batch.arrays.items()}
            return made if self.packing is None else self._for_consumer(made), batch.counts

        return tensors

    def _for_consumer(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A packed one by the names that models of transformers have; lengths are plain numbers there, as in its own
        collators.
        """
        if self.layout.consumer != "hf":
            return batch
        if "cu_seqlens" in batch:
            edges, longest = batch.pop("cu_seqlens"), int(batch.pop("max_seqlen"))
            batch |= {"cu_seq_lens_q": edges, "cu_seq_lens_k": edges, "max_length_q": longest, "max_length_k": longest}
        return {**batch, "use_cache": False}

    def _make_steps(self) -> TokenSteps:
        size, drop_last = self.global_batch_size, self.drop_last
        if self.packing is None:
            return PlainSteps(self.dataset, self.stream, self.layout, size, drop_last=drop_last)
        samples = self.dataset, self.stream, self.layout
        return PackedSteps(*samples, self.packing, size, drop_last=drop_last, num_ranks=self.world_size)

    def _identity(self) -> dict[str, str]:
        return {"data": self.dataset.manifest.content_digest, "plan": self.dataset.manifest.fingerprint}

    def _own_settings(self) -> dict[str, Any]:
        return {"layout": self.layout.name, "layout_digest": digest(self.layout.settings())}

    def _behind_digests(self) -> dict[str, dict[str, Any]]:
        return {**super()._behind_digests(), "layout_digest": self.layout.settings()}

    def _where(self) -> str:
        return super()._where() if isinstance(self.stream, MixtureStream) else str(self.dataset.path)

    def _let_go(self) -> None:
        self._begun, self._is_over = None, False


@functools.cache
def _to_tensor() -> Callable[[np.ndarray], torch.Tensor]:
    import torch

    return torch.from_numpy


def _for_packing(layout: Layout, packing: Packing | None) -> Layout:
    """Packed samples may be as long as their rows; those that may be cut into pieces, of any length."""
    if packing is None or packing.length is None:
        return layout
    return layout.with_room(_UNLIMITED if packing.cuts else packing.length, force=packing.cuts)
