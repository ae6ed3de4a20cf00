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


@dataclass(frozen=True, kw_only=True)
class Subset:
    """The same for a source that is read from its beginning: whether a row takes part, in the order of the source.

    Of `random` those that the permutation puts first: exactly so many, any row is asked in O(1), nothing is stored.
    """

    size: int
    num_samples: int
    first: int = 0
    permutation: ShuffledOrder | None = None

    def holds(self, rows: np.ndarray) -> np.ndarray:
        """rows: [n] integers in [0, size) -> [n] bool."""
        if self.permutation is None:
            return (rows >= self.first) & (rows < self.first + self.num_samples)
        return self.permutation.rows(0, rows) < self.num_samples


def subset(strategy: str, size: int, *, seed: int = 0) -> Subset:
    """Of `strategy` as in `select`, which may take none here. Raises UserError."""
    kind, num_samples = amount(strategy, size, least=0)
    if kind == "random" and num_samples:
        permutation = ShuffledOrder(num_samples=size, seed=derived_seed(seed, "random subset"))
        return Subset(size=size, num_samples=num_samples, permutation=permutation)
    return Subset(size=size, num_samples=num_samples, first=size - num_samples if kind == "end" else 0)


def check_strategy(strategy: str) -> None:
    """Raises UserError for what is none, whatever the size of a source is."""
    if strategy != "all":
        _parsed(strategy)


def select(strategy: str, size: int, *, seed: int = 0) -> Selection:
    """The selection that `strategy` makes of a source of `size` samples. Raises UserError."""
    kind, num_samples = amount(strategy, size, least=1)
    if kind == "random":
        permutation = ShuffledOrder(num_samples=size, seed=derived_seed(seed, "random subset"))
        return Selection(size=size, num_samples=num_samples, permutation=permutation)
    return Selection(size=size, num_samples=num_samples, first=size - num_samples if kind == "end" else 0)


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose: what uses it has nothing in common with other uses of `seed`."""
    digest = hashlib.blake2b(f"hpcdata seed 1: {purpose} of {seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def amount(strategy: str, size: int, *, least: int) -> tuple[str, int]:
    """(`all`, `first`, `end` or `random`, how many samples of `size`). Raises UserError for fewer than `least`."""
    if strategy == "all":
        return strategy, size
    kind, number, share = _parsed(strategy)
    if share is not None:
        number = math.ceil(share * size)
    if not least <= number <= size:
        raise UserError(f"sampling strategy {strategy!r} is {number} of {size} samples: expected {least} to {size}")
    return kind, number


def _parsed(strategy: str) -> tuple[str, int, Fraction | None]:
    """(kind, number, share); the number is of no meaning where there is a share."""
    match = _PATTERN.fullmatch(strategy)
    if not match:
        raise UserError(
            f"sampling strategy {strategy!r}: expected all, or first, end or random with a number or a percentage, "
            "as in first:1000, end:10%, random:0.5%"
        )
    kind, number = match.groups()
    if not number.endswith("%"):
        return kind, int(number), None
    share = Fraction(number[:-1]) / 100
    return kind, 0, share
