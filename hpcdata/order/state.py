"""The state of a loader: where it stands, and what must be equal so that a run can go on from there.

A loader of any kind of sample inherits `Cursor`. It says how its steps are made, and which settings are its own.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any, Self

from hpcdata.base.errors import UserError
from hpcdata.native.forks import Lazy
from hpcdata.order.checking import STATE_VERSION, check_state, digest
from hpcdata.order.mixing.weight_ledger import Change
from hpcdata.order.place import Place, S
from hpcdata.order.steps import Mark
from hpcdata.order.streams import MixtureStream, SingleStream

MAX_STATE_BYTES = 1024
_ORDER_OF_STEPS = "order_of_steps"
"""A setting that states of 0.1.0 lack."""
_ROOM_FOR_DIGITS = 64
"""The numbers of a state grow after its ledger of weights was measured."""


class Cursor(Place[S]):
    """A place with its state. The whole state is `epoch` and `step`, whatever the world size."""

    def _identity(self) -> dict[str, str]:
        """`data` and `plan`: digests of what the samples are."""
        raise NotImplementedError

    def _own_settings(self) -> dict[str, Any]:
        """What batches depend on, beside the order."""
        raise NotImplementedError

    def _behind_digests(self) -> dict[str, dict[str, Any]]:
        """What the digests among the settings were made of, by their names."""
        return {"mixture_digest": self.stream.settings()} if isinstance(self.stream, MixtureStream) else {}

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, and of which data and settings: under 1 KB of plain values."""
        settings = {**self._settings, _ORDER_OF_STEPS: "turned"} if self._is_turned else self._settings
        state: dict[str, Any] = {"version": STATE_VERSION, **self._identity(), "settings": settings}
        state |= {"epoch": self.epoch, "step": self.step}
        if self.packing is not None:
            mark = self._mark()
            state["mark"] = [self.epoch, *mark[:2], *([[list(pair) for pair in mark.waiting]] if mark.waiting else [])]
        if isinstance(self.stream, MixtureStream) and self.stream.changes:
            changes = self.stream.changes
            state["changes"] = (
                [[change.epoch, change.position, list(change.weights)] for change in changes]
                if self._weights_ledger is None
                else {"number": len(changes), "digest": self.stream.digests[1]}
            )
        return state

    def fork(self) -> Self:
        """Another loader at the same place, which may be used in another thread: neither moves the other."""
        self._check_worker()
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
            mark = _mark_of(state["mark"])
            self._steps.restore(self.epoch, mark)
            self._noted = self.epoch, self.step, mark

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
            self._steps.restore(epoch, _mark_of(mark))
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


def _mark_of(saved: list[Any]) -> Mark:
    """The mark of a state, where it stands behind its epoch."""
    waiting = tuple((int(grid), int(number)) for grid, number in saved[3]) if len(saved) > 3 else ()
    return Mark(int(saved[1]), int(saved[2]), waiting)
