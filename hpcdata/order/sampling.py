"""A part of a source: `all`, `first:N`, `end:N`, `random:N`, or a percentage such as `random:0.5%`.

These are the sampling strategies of LLaVA's data lists. Percentages are exact and rounded up, fractions of a percent
work. `random` is one fixed subset for a seed: the first rows of a permutation of the source, so nothing is stored.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.order.order import ShuffledOrder

_PATTERN = re.compile(r"(first|end|random):(\d+|\d*\.?\d+%|\d+\.%)")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which rows of `size` take part: their number and, for `random`, the permutation whose first rows they are."""

    size: int
    num_samples: int
    first: int = 0
    permutation: ShuffledOrder | None = None

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """positions: [n] integers in [0, num_samples) -> rows of the source: [n] int64."""
        if self.permutation is None:
            return positions + self.first
        return self.permutation.rows(0, positions)


def select(strategy: str, size: int, *, seed: int = 0) -> Selection:
    """The selection that `strategy` makes of a source of `size` samples. Raises UserError."""
    if strategy == "all":
        return Selection(size=size, num_samples=size)
    match = _PATTERN.fullmatch(strategy)
    if not match:
        raise UserError(
            f"sampling strategy {strategy!r}: expected all, or first, end or random with a number or a percentage, "
            "as in first:1000, end:10%, random:0.5%"
        )
    kind, amount = match.groups()
    num_samples = _number(strategy, amount, size)
    if kind == "random":
        permutation = ShuffledOrder(num_samples=size, seed=derived_seed(seed, "random subset"))
        return Selection(size=size, num_samples=num_samples, permutation=permutation)
    return Selection(size=size, num_samples=num_samples, first=size - num_samples if kind == "end" else 0)


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose: what uses it has nothing in common with other uses of `seed`."""
    digest = hashlib.blake2b(f"hpcdata seed 1: {purpose} of {seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _number(strategy: str, amount: str, size: int) -> int:
    if amount.endswith("%"):
        share = Fraction(amount[:-1]) / 100
        number = math.ceil(share * size)
    else:
        number = int(amount)
    if not 0 < number <= size:
        raise UserError(f"sampling strategy {strategy!r} is {number} of {size} samples: expected 1 to {size}")
    return number
