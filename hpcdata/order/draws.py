"""Draws: which samples stand at some positions of the canonical order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hpcdata.native.forks import Lazy


@dataclass(frozen=True, kw_only=True, eq=False)
class Draws:
    """What stands at some positions, [n] int64 each."""

    rows: np.ndarray
    """Of the stream's dataset."""
    source: np.ndarray
    make_seeds: Callable[[], np.ndarray]

    @Lazy
    def seeds(self) -> np.ndarray:
        """Of each example in this epoch, uint64: see hpcdata.order.seeding. Most layouts never ask."""
        return self.make_seeds()

    def take(self, at: np.ndarray | slice) -> Draws:
        return Draws(rows=self.rows[at], source=self.source[at], make_seeds=lambda: self.seeds[at])

    @classmethod
    def join(cls, several: Sequence[Draws]) -> Draws:
        if len(several) == 1:
            return several[0]
        return cls(
            rows=np.concatenate([draws.rows for draws in several]),
            source=np.concatenate([draws.source for draws in several]),
            make_seeds=lambda: np.concatenate([draws.seeds for draws in several]),
        )
