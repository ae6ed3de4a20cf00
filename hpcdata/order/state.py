"""The state of a loader: where it stands, and what must be equal so that a run can go on from there.

A loader of any kind of sample inherits `Cursor`. It says how its steps are made, and which settings are its own.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.native.forks import Lazy
from hpcdata.order.checking import STATE_VERSION, check_state, digest
from hpcdata.order.mixing.weight_ledger import Change, WeightLedger
from hpcdata.order.packing import Packing
from hpcdata.order.steps import Mark, RowSteps, Share, Steps
from hpcdata.order.streams import MixtureStream, SingleStream, Stream

MAX_STATE_BYTES = 1024
_ORDER_OF_STEPS = "order_of_steps"
"""A setting that states of 0.1.0 lack."""
_ROOM_FOR_DIGITS = 64
"""The numbers of a state grow after its ledger of weights was measured."""


S = TypeVar("S", bound=Steps)


class Cursor(Generic[S]):
    """The place of the next batch of a rank: `epoch` and `step`. The whole state is that, whatever the world size."""

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
        self.global_batch_size, self.packing = global_batch_size, packing
        self.seed, self.shuffle, self._has_own_order = seed, shuffle, has_own_order
        self.drop_last, self.num_epochs = drop_last, num_epochs
        self.epoch = self.step = 0
        self._noted: tuple[int, int, Mark] | None = None
        if num_epochs is not None and num_epochs < 0:
            raise UserError(f"num_epochs={num_epochs}, expected 0 or more, or None for a loop without end")
        if global_batch_size < 1 or global_batch_size % self.world_size:
            raise UserError(
                f"global_batch_size={global_batch_size} cannot be divided evenly among {self.world_size} ranks"
            )
        self._steps = self._make_steps()
        self._check_steps(self._steps, 0)
        self._check_rest(0)

    def _make_steps(self) -> S:
        """The steps of `stream`, which may be another one than before."""
        raise NotImplementedError

    def _identity(self) -> dict[str, str]:
        """`data` and `plan`: digests of what the samples are."""
        raise NotImplementedError

    def _own_settings(self) -> dict[str, Any]:
        """What batches depend on, beside the order."""
        raise NotImplementedError

    def _behind_digests(self) -> dict[str, dict[str, Any]]:
        """What the digests among the settings were made of, by their names."""
        return {"mixture_digest": self.stream.settings()} if isinstance(self.stream, MixtureStream) else {}

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

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, and of which data and settings: under 1 KB of plain values."""
        settings = {**self._settings, _ORDER_OF_STEPS: "turned"} if self._is_turned else self._settings
        state: dict[str, Any] = {"version": STATE_VERSION, **self._identity(), "settings": settings}
        state |= {"epoch": self.epoch, "step": self.step}
        if self.packing is not None:
            mark = self._mark()
            state["mark"] = [self.epoch, *mark[:2], *([mark.waiting] if mark.waiting else [])]
        if isinstance(self.stream, MixtureStream) and self.stream.changes:
            changes = self.stream.changes
            state["changes"] = (
                [[change.epoch, change.position, list(change.weights)] for change in changes]
                if self._weights_ledger is None
                else {"number": len(changes), "digest": self.stream.digests[1]}
            )
        return state

    @property
    def place(self) -> tuple[object, int, int]:
        """Where the loader stands, by which weights: another value once it goes on elsewhere."""
        return self.stream, self.epoch, self.step

    def fork(self) -> Self:
        """Another loader at the same place, which may be used in another thread: neither moves the other."""
        other = copy.copy(self)
        other._let_go()
        other._steps = other._make_steps()
        other._steps.restore(self.epoch, self._mark())
        return other

    def follow(self, state: dict[str, Any]) -> None:
        """Goes where a fork of this loader stood, which needs no check and finds nothing out."""
        self._let_go()
        self.epoch, self.step = state["epoch"], state["step"]
        if self.packing is not None:
            mark = Mark(*state["mark"][1:])
            self._steps.restore(self.epoch, mark)
            self._noted = self.epoch, self.step, mark

    def stand_at(self, epoch: int, step: int) -> None:
        """Goes to a step that is there, by the same weights; what a state needs to know of it is found out later."""
        self._let_go()
        self.epoch, self.step, self._noted = epoch, step, None

    def set_epoch(self, epoch: int) -> None:
        """Goes to the first step of an epoch; where it stands in that epoch, it stays."""
        if epoch < 0:
            raise UserError(f"epoch {epoch}, expected 0 or more")
        if epoch != self.epoch:
            self.stand_at(epoch, 0)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state`, saved on any world size. Raises UserError when it is of other data or settings."""
        before = self.stream, self._steps
        try:
            self._turn_as(state)
            check_state(state, self.state_dict(), self._behind_digests())
            noted = self._read_ledger(state)
        except UserError:
            self.stream = before[0]
            raise
        self._let_go()
        try:
            epoch, step = self._restore(state, noted)
        except (ValueError, TypeError, IndexError, UserError):
            self.stream, self._steps = before
            place = f"epoch {state.get('epoch')!r}, step {state.get('step')!r}"
            raise UserError(f"loader state is damaged: {place}") from None
        try:
            self._check_rest(epoch)
        except UserError:
            self.stream, self._steps = before
            raise
        self.epoch, self.step, self._noted = epoch, step, None

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Draws from the sources of the mixture by other weights from the next batch on; all ranks must do the same.

        With packing, from the next window on. The change is part of the state, with the position where it happened.
        With a `weights_ledger`, rank 0 adds it to that file, and the state has its digest.
        """
        if not isinstance(self.stream, MixtureStream):
            raise UserError("set_weights is for mixtures, this loader has one dataset")
        self._let_go()
        before, position = self.stream, self.step * self.global_batch_size
        mark = self._mark()
        if self.packing is not None:
            is_begun = mark.first_bin < position
            position = (mark.window + is_begun) * self.packing.window
        self.stream = before.changed(self.epoch, position, weights)
        try:
            if len(json.dumps(self.state_dict())) > MAX_STATE_BYTES - _ROOM_FOR_DIGITS:
                raise UserError(
                    f"the weights of {len(before.names)} sources were changed {len(before.changes)} times, a state of "
                    f"{MAX_STATE_BYTES} bytes holds no more: give the loader a file for them, weights_ledger=PATH"
                )
            self._check_rest(self.epoch)
            if self._weights_ledger is not None and not self.rank:
                self._weights_ledger.add(self.stream.changes, self.stream.digests)
        except UserError:
            self.stream = before
            raise
        self._steps, self._noted = self._make_steps(), None
        self._steps.restore(self.epoch, mark)
        if not self._steps.has_step(self.epoch, self.step):
            self.epoch, self.step = self.epoch + 1, 0

    @property
    def _is_turned(self) -> bool:
        """Whether the steps of a mixture are turned: see RowSteps."""
        return isinstance(self.stream, MixtureStream) and self.packing is None and self.stream.is_turned

    def _turn_as(self, state: dict[str, Any]) -> None:
        """Turns steps, or not, as whoever saved the state: states of 0.1.0 say nothing of it, and had none."""
        settings = state.get("settings") if isinstance(state, dict) else None
        if self.packing is None and isinstance(self.stream, MixtureStream) and isinstance(settings, dict):
            self.stream = self.stream.with_changes(self.stream.changes, turned=_ORDER_OF_STEPS in settings)

    def _mark(self) -> Mark:
        """Of the window in which the next batch begins. What a fork has found out is not packed once more."""
        if self._noted is not None and self._noted[:2] == (self.epoch, self.step):
            return self._noted[2]
        return self._steps.mark(self.epoch, self.step)

    def _following(self) -> tuple[int, int]:
        """The place of the batch behind the next."""
        has_next = self._steps.has_step(self.epoch, self.step + 1)
        return (self.epoch, self.step + 1) if has_next else (self.epoch + 1, 0)

    def _restore(self, state: dict[str, Any], noted: list[Change] | None) -> tuple[int, int]:
        """Makes stream and steps as they were, and returns the place; raises one of several errors if it cannot."""
        epoch, step = state.get("epoch"), state.get("step")
        if isinstance(self.stream, MixtureStream):
            if noted is None:
                noted = [Change(int(e), int(at), tuple(map(int, w))) for e, at, w in state.get("changes", ())]
            self.stream = self.stream.with_changes(noted)
        self._steps = self._make_steps()
        mark = state.get("mark")
        if self.packing is not None and mark is not None and mark[0] == epoch:
            waiting = tuple((int(grid), int(number)) for grid, number in mark[3]) if len(mark) > 3 else ()
            self._steps.restore(epoch, Mark(int(mark[1]), int(mark[2]), waiting))
        if not isinstance(epoch, int) or not isinstance(step, int) or min(epoch, step) < 0:
            raise ValueError
        if step and not self._steps.has_step(epoch, step):
            if not self._steps.is_left_out(epoch, step):
                raise ValueError
            return epoch + 1, 0
        return epoch, step

    def _read_ledger(self, state: dict[str, Any]) -> list[Change] | None:
        """The changes of weights that a state has the digest of; None where it has none, or all of them itself."""
        stored = state.get("changes")
        if not isinstance(stored, dict):
            return None
        if self._weights_ledger is None:
            raise UserError(
                f"the weights of this state were changed {stored.get('number')} times, in a file of their own: give "
                "the loader that file, weights_ledger=PATH"
            )
        return self._weights_ledger.read(str(stored.get("digest")))

    @Lazy
    def _settings(self) -> dict[str, Any]:
        """They never change: weights that do are no part of them."""
        settings: dict[str, Any] = {
            "global_batch_size": self.global_batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "drop_last": self.drop_last,
            **self._own_settings(),
        }
        if self.packing is not None:
            settings["packing"] = repr(self.packing)
        if self._has_own_order and isinstance(self.stream, SingleStream):
            settings["order"] = repr(self.stream.order)
        if isinstance(self.stream, MixtureStream):
            settings["mixture_digest"] = digest(self.stream.settings())
        return settings

    def _check_steps(self, steps: Steps, epoch: int) -> None:
        """Whether the epoch has a step. One epoch may pack into fewer rows than another."""
        if not steps.has_step(epoch, 0):
            what = "rows" if self.packing else "samples"
            if self.packing is not None and not self.drop_last:
                raise UserError(
                    f"epoch {epoch} of {self._where()} has {self.stream.num_samples(epoch)} samples, too few rows for "
                    f"{self.world_size} ranks: use fewer ranks"
                )
            raise UserError(
                f"epoch {epoch} of {self._where()} has {self.stream.num_samples(epoch)} samples, less than one "
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
