"""A mixture as values: sources that have a name, a size and a weight, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.order.mixing.interleave import integer_weights, relative_weights
from hpcdata.order.mixing.schedule import POLICIES, WeightsFrom, declared
from hpcdata.order.order import find_order
from hpcdata.order.sampling import select


@dataclass(frozen=True, kw_only=True)
class SizedSource:
    """A source of a mixture."""

    name: str
    """Unique in the mixture."""
    size: int
    """Its samples."""
    weight: float | None = None
    """Its share of the samples, in proportion to the others'."""
    sampling: str = "all"
    """`all`, or `first:N`, `end:N%`, `random:0.5%`...: see hpcdata.order.sampling."""
    order: str = "shuffled"
    """Or `blocks`, `blocks:ROWSxBLOCKS` for data larger than RAM, `sequential`: see hpcdata.order.order."""
    max_repeats: int = 1
    """With the policy `max_repeats`: how often each of its samples is delivered."""
    tokens: int | None = None
    """Of all its samples, where they are known: for weights that are shares of tokens."""


class SizedMixture:
    """Weighted sources; see hpcdata.order.mixing.schedule for the policies and for weights that change, and
    hpcdata.order.mixing.interleave for what weights are relative to.
    """

    def __init__(
        self,
        sources: Sequence[SizedSource],
        *,
        strategy: str | None = None,
        policy: str = "repeat",
        schedule: Sequence[WeightsFrom] = (),
    ) -> None:
        if not sources:
            raise UserError("a mixture needs at least one source")
        if policy not in POLICIES:
            raise UserError(f"mixture policy {policy!r}: expected one of {', '.join(POLICIES)}")
        self.policy = policy
        self.sources = tuple(sources)
        self.names = tuple(source.name for source in sources)
        if len(set(self.names)) < len(self.names):
            raise UserError(
                f"sources of a mixture need different names, got {', '.join(self.names)}: pass Source(name=...)"
            )
        self.selections = tuple(select(source.sampling, source.size) for source in sources)
        self.sizes = tuple(selection.num_samples for selection in self.selections)
        for source, size in zip(sources, self.sizes, strict=True):
            _check_source(source, size)
        means = [Fraction(source.tokens or 0, source.size) or None for source in sources]
        given = [source.weight for source in sources]
        self.weights = integer_weights(relative_weights(given, self.sizes, strategy, means))
        if schedule and policy != "repeat":
            raise UserError(f"a schedule of weights is for the policy repeat, whose epoch has no end, not for {policy}")
        self.schedule = declared(schedule, self.names, self.weights, means)
        """(position, weights from there on)"""
        self.first_row = np.cumsum([0] + [source.size for source in sources])


def _check_source(source: SizedSource, size: int) -> None:
    """`size`: how many of its samples take part."""
    if not size:
        raise UserError(f"source {source.name} of the mixture has no samples")
    find_order(source.order, 1, 0)
    if source.order.startswith("blocks") and source.sampling.startswith("random"):
        raise UserError(f"source {source.name} of the mixture: blocks of a random subset are not read in one go")
    if source.max_repeats < 1:
        raise UserError("max_repeats of a source: expected at least 1")
