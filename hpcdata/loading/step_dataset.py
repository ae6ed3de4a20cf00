"""StepDataset: the steps of a loader as a map-style dataset, for torch's DataLoader and torchdata's StatefulDataLoader.

    steps = StepDataset(loader)
    DataLoader(steps, batch_size=None, num_workers=2)             # batches in the loader's order, whatever the workers
    StatefulDataLoader(steps, batch_size=None, num_workers=2)     # with the state_dict of its own
    accelerator.prepare(steps.dataloader(num_workers=2))          # a DataLoader that accelerate leaves as it is, and
                                                                  # that moves `loader` with the batches it delivers

A TokenLoader needs no worker processes, and is faster without; this is for code that insists on a DataLoader. Item k
is the loader's k-th batch of this rank from where the loader stood when it was passed. Items do not depend on each
other, so that workers, prefetching and restarts cannot change them. Asking for items does not move the loader. Only
`steps.dataloader()` moves it, so that `loader.state_dict()` is of the batches that were delivered. These are the
batches of one rank already: `accelerator.prepare` and Lightning would share them out once more, or fail, if they were
not told so.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from hpcdata.base.errors import UserError
from hpcdata.order.checking import check_state

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader, Dataset

    from hpcdata.order.looping import Looping

T = TypeVar("T")


class StepDataset:
    """Length and items of what is left of `loader.num_epochs`. With packing, making it packs all of these epochs."""

    def __init__(self, loader: Looping[Any]) -> None:
        if not hasattr(loader, "batch_at"):
            raise UserError(f"a {type(loader).__name__} was given: expected a TokenLoader or a MultimodalLoader")
        if loader.num_epochs is None:
            raise UserError("StepDataset needs an end: make the loader with num_epochs")
        self.loader = loader
        self._state = loader.state_dict()
        self._edges = [0]
        for epoch in range(loader.num_epochs):
            self._edges.append(self._edges[-1] + loader.num_steps(epoch))
        self._first = self._edges[min(loader.epoch, loader.num_epochs)] + loader.step

    def __len__(self) -> int:
        return max(0, self._edges[-1] - self._first)

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        """The batch `step` steps after the loader's place."""
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of {len(self)}")
        return self.loader.batch_at(*self._place(step))

    def dataloader(self, **options: Any) -> DataLoader[dict[str, torch.Tensor]]:
        """torch's DataLoader of the batches of this rank, marked as prepared for accelerate and for Lightning.

        Whatever its workers prepare, `loader` stands where the last batch that it delivered left off.
        """
        from torch.utils.data import DataLoader, DistributedSampler

        class Delivering(DataLoader):
            def __iter__(self) -> Any:
                return steps._delivered(super().__iter__())

        class InOrder(DistributedSampler):
            """To Lightning, a sampler of this kind says that nothing is to be shared out."""

            def __init__(self) -> None:
                """As it is no share."""

            def __iter__(self) -> Iterator[Any]:
                return iter(range(len(steps)))

            def __len__(self) -> int:
                return len(steps)

        steps, dataset = self, cast("Dataset[dict[str, torch.Tensor]]", self)
        loader = Delivering(dataset, batch_size=None, sampler=InOrder(), **options)
        vars(loader)["_is_accelerate_prepared"] = True
        return loader

    def _delivered(self, batches: Iterator[T]) -> Iterator[T]:
        for number, batch in enumerate(self.loader.waits.counted(batches)):
            self.loader.stand_at(*self._place(number + 1))
            yield batch

    def state_dict_at(self, step: int) -> dict[str, Any]:
        """The state of a loader that has delivered the first `step` items."""
        epoch, step_of_epoch = self._place(step)
        return {**self._state, "epoch": epoch, "step": step_of_epoch}

    def state_dict(self) -> dict[str, Any]:
        """Of what it was made from: a StatefulDataLoader saves it beside the number of items that it delivered."""
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises UserError unless this is made from the same data and settings, with the loader at the same place."""
        check_state(state, self._state)
        for name in ("epoch", "step", "changes"):
            if state.get(name) != self._state.get(name):
                raise UserError(
                    f"the state is of steps counted from {name} {state.get(name)}, these count from "
                    f"{self._state.get(name)}: make the StepDataset from a loader that stands where it did then"
                )

    def _place(self, step: int) -> tuple[int, int]:
        """(epoch, step of the epoch)."""
        at = self._first + step
        epoch = bisect.bisect_right(self._edges, at) - 1
        return epoch, at - self._edges[epoch]
