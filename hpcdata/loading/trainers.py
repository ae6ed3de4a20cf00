"""Adapters: the batches of a loader for trainers that have a loop, epochs and checkpoints of their own.

    transformers         trainer.get_train_dataloader = lambda: hf_dataloader(loader)       # loader: consumer="hf"
    Lightning            trainer.fit(model, Epochs(loader))
    accelerate           batches = Epochs(loader, device=accelerator.device)
                         accelerator.register_for_checkpointing(batches)
    torch, torchtitan    dcp.save({"model": ..., "data": Epochs(loader)}); it is a Stateful

tests/examples/train.py has each of them as a whole. Make the loader without `num_epochs`: the trainer counts them. Its
epoch is `num_steps` batches, by default as many as the loader's first epoch has. With packing, epochs of the loader are
a little longer or shorter than that: the batches go on in their order all the same, so that none is lost and none is
there twice, wherever a run stops and goes on. Hand over the same arguments and the trainer's own checkpoint: nothing
else is needed to go on. For shorter epochs say `num_steps`, not `limit_train_batches` of Lightning: behind a checkpoint
of a whole epoch it gives no state back, and only the lengths of epochs tell the place.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hpcdata.base.errors import UserError
from hpcdata.loading.background import BackgroundLoader
from hpcdata.loading.layouts.widening import widen
from hpcdata.order.checking import whole
from hpcdata.order.looping import Looping

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

    Batch = dict[str, torch.Tensor]


class Epochs:
    """Each iteration is the rest of one epoch of the trainer, from where the loader stands.

    State and loader are those of the batches that were handed out. `device`: where batches are moved; ids of 16 bits
    become int64 there.
    """

    batch_sampler = None  # trainers look for it
    num_workers = 0

    def __init__(
        self,
        loader: Looping[Any] | BackgroundLoader,
        *,
        num_steps: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """Raises UserError where an epoch has no end and `num_steps` does not say one."""
        self.loader, self._device = loader, device
        self._places = _Places(_inner(loader), num_steps)
        self._batches: Iterator[Batch] | None = None
        self.num_delivered = self._places.number(_inner(loader))
        """Batches handed out since the beginning, in all runs together."""

    @property
    def dataset(self) -> Any:
        return getattr(_inner(self.loader), "dataset", None)

    @property
    def batch_size(self) -> int:
        """Rows of a batch of this rank."""
        return _inner(self.loader).batch_size

    @property
    def sampler(self) -> _FirstEpoch:
        """Where Lightning looks for `set_epoch`."""
        return _FirstEpoch(self)

    @property
    def epoch(self) -> int:
        """Of the trainer, that the next batch is in."""
        return self.num_delivered // len(self)

    def __len__(self) -> int:
        return self._places.num_steps

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(len(self) - self.num_delivered % len(self)):
            if self._batches is None:
                self._batches = iter(self.loader)
            batch = next(self._batches, None)
            if batch is None:
                self._batches = None
                return
            self.num_delivered += 1
            yield batch if self._device is None else widen(batch, self._device)

    def __getstate__(self) -> dict[str, Any]:
        """A copy goes on with the next batch."""
        return {**vars(self), "_batches": None}

    def set_epoch(self, epoch: int) -> None:
        """Goes to the first batch of an epoch of the trainer; within that epoch it stays where it is."""
        if epoch != self.epoch:
            self.num_delivered = epoch * len(self)
            _inner(self.loader).stand_at(*self._places.find(self.num_delivered))

    def state_dict(self) -> dict[str, Any]:
        """One text: checkpoints of any kind keep it as it is."""
        state = {"delivered": self.num_delivered, "num_steps": len(self), "loader": self.loader.state_dict()}
        return {"hpcdata": json.dumps(state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises UserError as the loader does, or when the epochs of the trainer are of another length."""
        try:
            saved = json.loads(state["hpcdata"])
            delivered, num_steps, of_loader = int(saved["delivered"]), saved["num_steps"], saved["loader"]
        except (KeyError, TypeError, ValueError):
            raise UserError("not a state of Epochs: pass what its state_dict() returned") from None
        if num_steps != len(self):
            raise UserError(
                f"the state was saved with num_steps={num_steps} in an epoch of the trainer, these have {len(self)}: "
                f"pass num_steps={num_steps}"
            )
        self.loader.load_state_dict(of_loader)
        self.num_delivered = delivered


class _FirstEpoch:
    """Lightning says which of its epochs comes next. Behind a checkpoint of a whole epoch it says nothing else: it
    gives back no state. Whoever has delivered something, or has a state, knows the place better.
    """

    def __init__(self, batches: Epochs) -> None:
        self._batches = batches

    def set_epoch(self, epoch: int) -> None:
        loader = _inner(self._batches.loader)
        if not self._batches.num_delivered and not loader.epoch and not loader.step:
            self._batches.set_epoch(epoch)


def hf_dataloader(loader: Looping[Any] | BackgroundLoader, *, num_steps: int | None = None) -> DataLoader[Any]:
    """torch's DataLoader for the Trainer of transformers, of the batches of this rank.

    The Trainer says which step of which of its epochs it wants, also when it goes on from a checkpoint. `loader` moves
    along. Finding the place in packed epochs, the first time, takes a pass over the lengths before it.
    """
    from torch.utils.data import BatchSampler, DataLoader, Dataset

    inner = _inner(loader)
    places = _Places(inner, num_steps)

    class Batches(Dataset):
        def __getitem__(self, number: int) -> Batch:
            asked = time.perf_counter()
            batch = inner.batch_at(*places.find(number))
            inner.waits.add(time.perf_counter() - asked)
            inner.stand_at(*places.find(number + 1))
            return batch

    class Steps(BatchSampler):
        """The numbers of the batches of an epoch of the trainer."""

        def __init__(self) -> None:
            self.epoch, self.batch_size, self.drop_last = places.number(inner) // places.num_steps, 1, False
            self.batch_sampler = self  # where Trainer looks for `set_epoch`

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __len__(self) -> int:
            return places.num_steps

        def __iter__(self) -> Iterator[Any]:
            first, self.epoch = self.epoch * places.num_steps, self.epoch + 1
            return ([number] for number in range(first, first + places.num_steps))

    batches = DataLoader(Batches(), batch_sampler=Steps(), collate_fn=_only)
    vars(batches)["_is_accelerate_prepared"] = True  # these are the batches of one rank already
    return batches


def _only(batches: list[Batch]) -> Batch:
    (batch,) = batches
    return batch


def _inner(loader: Looping[Any] | BackgroundLoader) -> Looping[Any]:
    found = loader.loader if isinstance(loader, BackgroundLoader) else loader
    if not isinstance(found, Looping):
        kinds = "a TokenLoader, a MultimodalLoader, or a BackgroundLoader of one"
        raise UserError(f"a {type(found).__name__} was given: expected {kinds}")
    return found


class _Places:
    """The place of the n-th batch of a loader: an epoch, and a step of it."""

    def __init__(self, loader: Looping[Any], num_steps: int | None) -> None:
        self._loader, self._edges = loader.fork(), [0]
        if num_steps is None:
            try:
                num_steps = self._loader.num_steps(0)
            except TypeError:
                raise UserError(
                    "an epoch of this mixture has no end: pass num_steps, the batches of an epoch"
                ) from None
        self.num_steps = whole("num_steps", num_steps)
        if self.num_steps < 1:
            raise UserError(f"num_steps={num_steps}, expected at least 1")

    def find(self, number: int) -> tuple[int, int]:
        loader, edges = self._loader, self._edges
        epoch = max(at for at, first in enumerate(edges) if first <= number)
        while not loader.has_step(epoch, number - edges[epoch]):
            edges.append(edges[epoch] + loader.num_steps(epoch))
            epoch += 1
            loader.stand_at(epoch, 0)
        return epoch, number - edges[epoch]

    def number(self, loader: Looping[Any]) -> int:
        """Of the batch that a loader delivers next."""
        while len(self._edges) <= loader.epoch:
            self._edges.append(self._edges[-1] + self._loader.num_steps(len(self._edges) - 1))
        return self._edges[loader.epoch] + loader.step
