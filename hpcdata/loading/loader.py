"""TokenLoader: shuffled, distributed batches of tensors that resume exactly, on any number of ranks.

    loader = TokenLoader("/out", global_batch_size=256, layout="t2i", seed=7)
    for batch in loader:                       # dict of tensors, see hpcdata.loading.layout
        ...
        torch.save({"loader": loader.state_dict(), ...}, ...)

Step s of an epoch consists of positions s * global_batch_size onwards of the epoch's order, and rank r of S takes the
r-th of S equal slices. So the global batches are the same for every S, all ranks end an epoch at the same step, and
the whole state is (epoch, step): restoring it costs nothing, and the world size may change in between.

The last positions of an epoch that do not fill a global batch are dropped (`drop_last=True`; a shuffled epoch drops
others each time), or delivered as a smaller one whose slices differ by at most one sample (`drop_last=False`; refused
where a rank would get none, since it would leave the others waiting).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcdata.errors import UserError
from hpcdata.loading.dataset import TokenDataset
from hpcdata.loading.layout import BatchCounts, Layout, find_layout
from hpcdata.loading.order import Order, SequentialOrder, ShuffledOrder
from hpcdata.loading.ranks import find_rank

if TYPE_CHECKING:
    import torch

_STATE_VERSION = 1
_ROWS_AHEAD = 16_384
"""Rows of the order that are computed at a time."""


class TokenLoader:
    """Iterates over the batches of this rank, from where it stands to the end of `num_epochs` (None: without end).

    The loader itself is the cursor: `epoch` and `step` are those of the next batch, every iterator moves them, and an
    error leaves them where they were. `counts` is the account of what this process has delivered.
    """

    def __init__(
        self,
        dataset: TokenDataset | str | Path,
        *,
        global_batch_size: int,
        layout: str | Layout = "t2i",
        seed: int = 0,
        shuffle: bool = True,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = True,
        num_epochs: int | None = None,
    ) -> None:
        """`global_batch_size` is the samples of one step on all ranks together; the world size must divide it."""
        self.dataset = dataset if isinstance(dataset, TokenDataset) else TokenDataset(dataset)
        self.layout = find_layout(layout).bind(self.dataset.manifest)
        self.rank, self.world_size = find_rank(rank, world_size)
        self.global_batch_size = global_batch_size
        self.seed, self.shuffle, self.drop_last, self.num_epochs = seed, shuffle, drop_last, num_epochs
        self.epoch = self.step = 0
        self.counts = BatchCounts()
        self._order = self._make_order()
        self._rows_ahead = _RowsAhead()
        self._check()

    @property
    def batch_size(self) -> int:
        """Samples of one step on this rank."""
        return self.global_batch_size // self.world_size

    @property
    def steps_per_epoch(self) -> int:
        whole, rest = divmod(len(self.dataset), self.global_batch_size)
        return whole + bool(rest and not self.drop_last)

    def __len__(self) -> int:
        """Steps of all epochs. Raises TypeError when there is no end."""
        if self.num_epochs is None:
            raise TypeError("a loader without num_epochs has no length: see steps_per_epoch")
        return self.num_epochs * self.steps_per_epoch

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        while self.num_epochs is None or self.epoch < self.num_epochs:
            yield self._next()

    def iter_epoch(self) -> Iterator[dict[str, torch.Tensor]]:
        """The rest of the current epoch, for `for epoch in range(...)` loops."""
        epoch = self.epoch
        while self.epoch == epoch:
            yield self._next()

    def rows(self, epoch: int, step: int) -> np.ndarray:
        """The dataset rows of this rank's batch: [batch_size] int64, a pure function of settings, epoch and step."""
        return self._order.rows(epoch, np.arange(*self._slice(step)))

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, and of which data and settings: under 1 KB of plain values."""
        return {
            "version": _STATE_VERSION,
            "data": self.dataset.manifest.content_digest,
            "plan": self.dataset.manifest.fingerprint,
            "settings": self._settings(),
            "epoch": self.epoch,
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state`, saved on any world size. Raises UserError when it is of other data or settings."""
        _check_state(state, self.state_dict())
        epoch, step = state.get("epoch"), state.get("step")
        if not isinstance(epoch, int) or not isinstance(step, int) or epoch < 0 or not 0 <= step < self.steps_per_epoch:
            raise UserError(f"loader state is damaged: epoch {epoch!r}, step {step!r} of {self.steps_per_epoch}")
        self.epoch, self.step = epoch, step

    def _next(self) -> dict[str, torch.Tensor]:
        import torch

        batch = self.layout.batch(self.dataset, self._next_rows())
        self.counts += batch.counts
        self.step += 1
        if self.step >= self.steps_per_epoch:
            self.epoch, self.step = self.epoch + 1, 0
        return {key: torch.from_numpy(array) for key, array in batch.arrays.items()}

    def _next_rows(self) -> np.ndarray:
        """`rows(epoch, step)`, out of a block that is computed for many steps at once."""
        ahead = self._rows_ahead
        if not (ahead.epoch == self.epoch and ahead.first_step <= self.step < ahead.first_step + len(ahead.rows)):
            num_steps = max(1, _ROWS_AHEAD // self.batch_size)
            last_step = min(self.step + num_steps, self.steps_per_epoch)
            slices = [np.arange(*self._slice(step)) for step in range(self.step, last_step)]
            rows = self._order.rows(self.epoch, np.concatenate(slices))
            ahead = _RowsAhead(self.epoch, self.step, np.split(rows, np.cumsum([len(part) for part in slices])[:-1]))
            self._rows_ahead = ahead
        return ahead.rows[self.step - ahead.first_step]

    def _slice(self, step: int) -> tuple[int, int]:
        """The positions of this rank's batch, which begins and ends where even shares of the global batch do."""
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"step {step} of an epoch of {self.steps_per_epoch}")
        first = step * self.global_batch_size
        size = min(self.global_batch_size, len(self.dataset) - first)
        return first + size * self.rank // self.world_size, first + size * (self.rank + 1) // self.world_size

    def _make_order(self) -> Order:
        if self.shuffle:
            return ShuffledOrder(num_samples=len(self.dataset), seed=self.seed)
        return SequentialOrder(num_samples=len(self.dataset))

    def _settings(self) -> dict[str, Any]:
        return {
            "global_batch_size": self.global_batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "drop_last": self.drop_last,
            "layout": self.layout.name,
            "layout_digest": _digest(self.layout.settings()),
        }

    def _check(self) -> None:
        size, ranks = self.global_batch_size, self.world_size
        if size < 1 or size % ranks:
            raise UserError(f"global_batch_size={size} cannot be divided evenly among {ranks} ranks")
        if not self.steps_per_epoch:
            raise UserError(
                f"{self.dataset.path} has {len(self.dataset)} samples, less than one global batch of {size}: "
                "use a smaller global_batch_size, or drop_last=False"
            )
        rest = len(self.dataset) % size
        if not self.drop_last and 0 < rest < ranks:
            raise UserError(
                f"the last batch of an epoch has {rest} samples for {ranks} ranks, some would get none: "
                "use another global_batch_size, or drop_last=True"
            )


class _RowsAhead:
    """The rows of this rank for consecutive steps of one epoch."""

    def __init__(self, epoch: int = -1, first_step: int = 0, rows: list[np.ndarray] | None = None) -> None:
        self.epoch = epoch
        self.first_step = first_step
        self.rows = rows or []


def _check_state(state: dict[str, Any], own: dict[str, Any]) -> None:
    if not isinstance(state, dict) or state.get("version") != _STATE_VERSION:
        raise UserError("not a state of this version's TokenLoader: pass what state_dict() returned")
    for name, meaning in (("data", "content digest"), ("plan", "plan fingerprint")):
        if state.get(name) != own[name]:
            raise UserError(
                f"the loader state is of other data: {meaning} {str(state.get(name))[:16]}..., "
                f"this dataset has {own[name][:16]}...: open the dataset that the run was started with"
            )
    theirs = state.get("settings") or {}
    for name, value in own["settings"].items():
        if theirs.get(name) != value:
            raise UserError(
                f"the loader state was saved with {name}={theirs.get(name)!r}, this loader has {value!r}: "
                f"restore {name}, or start a new run without the state"
            )


def _digest(values: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()
