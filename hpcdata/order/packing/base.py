"""What every packing is asked for, and how its options are checked and shown."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Protocol

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.order.bins import Bins
from hpcdata.order.checking import whole

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Packing(Protocol):
    @property
    def window(self) -> int:
        """Samples of a window."""
        ...

    @property
    def length(self) -> int | None:
        """Columns of every bin; None where they differ."""
        ...

    @property
    def cuts(self) -> bool:
        """Whether a sample may go on in another bin."""
        ...

    @property
    def max_images(self) -> int | None:
        """The most images of a bin; None where they are not counted."""
        ...

    @property
    def carries(self) -> bool:
        """Whether what `place` leaves out is placed with the next window: the last sequences of each grid."""
        ...

    def place(
        self, lengths: np.ndarray, grids: np.ndarray, bins_per_step: int, images: np.ndarray | None = None
    ) -> Bins:
        """The bins of a window; sequences of length 0 are in none.

        lengths, grids: [num_samples], of its sequences and of their first images. images: [num_samples], how many each
        has, none more than `max_images`; only there where `max_images` is.
        """
        ...


def describe(packing: DataclassInstance) -> str:
    """Part of the state of a loader: what is None is left out, as it was before there was such an option."""
    values = {field.name: getattr(packing, field.name) for field in dataclasses.fields(packing)}
    values = {name: int(value) if isinstance(value, np.integer) else value for name, value in values.items()}
    given = ", ".join(f"{name}={value!r}" for name, value in values.items() if value is not None)
    return f"{type(packing).__name__}({given})"


def check_balance(balance: str | None) -> None:
    if balance not in (None, "squares"):
        raise UserError(f"packing: balance={balance!r}, expected squares or None")


def check_multiple(length: int, multiple: int | None) -> None:
    check(multiple=1 if multiple is None else multiple)
    if length % (multiple or 1):
        raise UserError(f"packing: length={length} is no multiple of multiple={multiple}")


def check(**options: int) -> None:
    for name, value in options.items():
        if whole(f"packing: {name}", value) < 1:
            raise UserError(f"packing: {name}={value}, expected at least 1")
