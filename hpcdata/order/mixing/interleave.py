"""The interleave of weighted sources in closed form: which source stands at a position, and which of its draws it is.

Weights are integers, at most 2^31 together. The sources are the leaves of a Huffman tree; at an inner node, position n
of its stream belongs to the left branch where round(n * left / both) steps up. So a place costs O(log sources) integer
operations, forwards and backwards, any whole period of `sum(weights)` positions holds every source exactly as often as
its weight says, and every prefix deviates from its exact share by at most 1/2 a level, weighted by the shares
below: less than 2 for any weights, less than 1 for two sources.

What weights are relative to is a strategy. Where they change, and where an epoch ends: hpcdata.order.mixing.schedule.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.native.compiled import kernels
from hpcdata.native.forks import Lazy

_MAX_TOTAL = 2**31
_SCALE = 2**30


def integer_weights(weights: Sequence[float | Fraction]) -> tuple[int, ...]:
    """The smallest integers in the ratio of `weights` (0.3 means 3/10), rounded to 1 in 10^9 where they are large."""
    exact = [_exact(weight) for weight in weights]
    total = sum(exact, Fraction())
    if not total:
        raise UserError(f"weights {list(weights)} are all zero: at least one source must be drawn from")
    scale = math.lcm(*(weight.denominator for weight in exact))
    values = [int(weight * scale) for weight in exact]
    divisor = math.gcd(*values)
    values = [value // divisor for value in values]
    if sum(values) > _MAX_TOTAL:
        values = [max(1, round(weight * _SCALE / total)) if weight else 0 for weight in exact]
    return tuple(values)


def relative_weights(
    given: Sequence[float | None],
    sizes: Sequence[int],
    strategy: str | None,
    tokens_per_sample: Sequence[Fraction | None] = (),
) -> list[float | Fraction]:
    """The weights that a strategy makes of those that were given to sources (None: none) of these sizes.

    `strategy` says what weights are relative to: `weights` (nothing), `proportional` (the samples of a source),
    `sqrt` (their square root), `power:A` (their A-th power: the smaller A, the more small sources are upsampled) or
    `uniform`. By default `weights` if any source has one, else `proportional`. With `tokens` they are shares of the
    tokens, not of the samples: 1 each is as many tokens of each source in the long run.
    """
    if strategy is None:
        strategy = "proportional" if all(weight is None for weight in given) else "weights"
    if strategy == "weights" and None in given:
        raise UserError("some sources of the mixture have a weight and some have none: give one to each")
    if strategy == "tokens":
        return [
            Fraction(str(1 if weight is None else weight)) / mean
            for weight, mean in zip(given, _known(tokens_per_sample), strict=True)
        ]
    base = [_share(size, strategy) for size in sizes]
    return [share if weight is None else share * weight for share, weight in zip(base, given, strict=True)]


def _exact(weight: Any) -> Fraction:
    """A number of Python, or one of another library, such as a tensor. Raises UserError."""
    if not isinstance(weight, Fraction | int | float | np.number):
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            weight = weight.item() if hasattr(weight, "item") else weight
    if not isinstance(weight, Fraction | int | float | np.number) or not math.isfinite(weight) or weight < 0:
        raise UserError(f"weight {weight!r}: expected a number >= 0")
    return weight if isinstance(weight, Fraction) else Fraction(str(weight))


class _Split(NamedTuple):
    """An inner node: `left` of `total` positions belong to the left branch. A leaf is the index of a source."""

    left: int
    total: int
    branches: tuple[_Split | int, _Split | int]

    def count_left(self, position: int) -> int:
        """How many of the first `position` positions belong to the left branch."""
        periods, rest = divmod(position, self.total)
        return periods * self.left + (rest * self.left + self.total // 2) // self.total

    def split(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(how many before each position belong to the left branch, whether it does itself)."""
        periods, rest = np.divmod(positions, self.total)
        before, over = np.divmod(rest * self.left + self.total // 2, self.total)
        return periods * self.left + before, over + self.left >= self.total

    def position(self, branch: int, draw: int) -> int:
        """The position of the branch's draw: the inverse of what `count_left` counts."""
        weight = self.total - self.left if branch else self.left
        periods, rest = divmod(draw, weight)
        threshold = (rest + 1) * self.total - (self.total - 1 - self.total // 2 if branch else self.total // 2)
        return periods * self.total - (-threshold // weight) - 1


class Interleave:
    """Sources with positive integer weights, in one endless stream. Weight 0: not in it."""

    def __init__(self, weights: Sequence[int]) -> None:
        self.weights = tuple(weights)
        heap: list[tuple[int, int, _Split | int]] = [(w, source, source) for source, w in enumerate(weights) if w]
        heapq.heapify(heap)
        for number in itertools.count(len(weights)):
            if len(heap) == 1:
                break
            small, large = heapq.heappop(heap), heapq.heappop(heap)
            total = small[0] + large[0]
            heapq.heappush(heap, (total, number, _Split(small[0], total, (small[2], large[2]))))
        self._root = heap[0][2]
        self._paths = dict(_paths(self._root))

    def places(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """positions: [n] int64 -> (source, draw): [n] int64 each. Draws of a source count from 0."""
        compiled = kernels()
        if compiled is not None and isinstance(self._root, _Split):
            return compiled.interleave(np.ascontiguousarray(positions), *self._tree)
        return self._places(positions)

    @Lazy
    def _tree(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """left, total: [num_nodes]; branches: [num_nodes, 2], nodes before it or -1 - source. The root is the last."""
        left, total, branches = [], [], []

        def add(node: _Split | int) -> int:
            if not isinstance(node, _Split):
                return -1 - node
            found = [add(branch) for branch in node.branches]
            left.append(node.left)
            total.append(node.total)
            branches.append(found)
            return len(left) - 1

        add(self._root)
        return np.array(left), np.array(total), np.array(branches)

    def _places(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        source, draw = np.empty_like(positions), np.empty_like(positions)
        stack = [(self._root, positions, np.arange(len(positions)))]
        while stack:
            node, local, at = stack.pop()
            if not isinstance(node, _Split):
                source[at], draw[at] = node, local
                continue
            before, goes_left = node.split(local)
            goes_right = ~goes_left
            stack.append((node.branches[0], before[goes_left], at[goes_left]))
            stack.append((node.branches[1], (local - before)[goes_right], at[goes_right]))
        return source, draw

    def position(self, source: int, draw: int) -> int:
        """Where a draw of a source stands: the inverse of `places`."""
        for node, branch in reversed(self._paths[source]):
            draw = node.position(branch, draw)
        return draw

    def counts(self, position: int) -> list[int]:
        """How often each source has been drawn before `position`."""
        counts = [0] * len(self.weights)
        for source, path in self._paths.items():
            number = int(position)
            for node, branch in path:
                left = node.count_left(number)
                number = number - left if branch else left
            counts[source] = number
        return counts


def _known(tokens_per_sample: Sequence[Fraction | None]) -> list[Fraction]:
    if not tokens_per_sample or not all(tokens_per_sample):
        raise UserError("a source has no tokens, or none that are known: weights cannot be shares of tokens")
    return [mean for mean in tokens_per_sample if mean is not None]


def _share(size: int, strategy: str) -> float:
    if strategy in ("weights", "uniform"):
        return 1
    if strategy == "proportional":
        return size
    if strategy == "sqrt":
        return math.isqrt(size << 32) / 2**16
    match = re.fullmatch(r"power:(\d*\.?\d+)", strategy)
    if not match:
        raise UserError(
            f"mixture strategy {strategy!r}: expected weights, proportional, uniform, sqrt, tokens, or power:A "
            "(as in power:0.3)"
        )
    return round(size ** float(match[1]), 6)


def _paths(node: _Split | int, path: tuple[tuple[_Split, int], ...] = ()) -> Iterator[tuple[int, tuple]]:
    """(source, the nodes and branches that lead to it) for every leaf."""
    if isinstance(node, _Split):
        for branch, child in enumerate(node.branches):
            yield from _paths(child, (*path, (node, branch)))
    else:
        yield node, path
