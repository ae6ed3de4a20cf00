"""When a mixture is drawn by which weights: the stages of an epoch. They change where somebody changed them, where a
declared schedule says so, and where a source is used up.

| policy | an epoch ends |
|---|---|
| `repeat` | never |
| `stop_first` | when the first source has delivered each of its samples once |
| `stop_all` | when all sources have; the small ones repeat until then |
| `max_repeats` | when all have been delivered `max_repeats` times; one that has leaves, the others keep their ratio |

    Mixture(sources, schedule=[WeightsFrom({"web": 1, "code": 3}, samples=2_000_000),
                               WeightsFrom({"web": 0, "code": 1}, tokens=5_000_000_000, ramp=True)])

What is declared is part of the settings and costs a state nothing. Positions count in samples of all ranks; `tokens`
are turned into the position where as many are expected, by the mean length of each source.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.order.checking import whole
from hpcdata.order.mixing.interleave import Interleave, integer_weights

POLICIES = ("repeat", "stop_first", "stop_all", "max_repeats")
_RAMP_STEPS = 64
Weights = tuple[int, ...]


@dataclass(frozen=True)
class WeightsFrom:
    """Weights of all sources, by name, from a place on: `samples` or `tokens` since the beginning."""

    weights: Mapping[str, float]
    samples: int | None = None
    tokens: int | None = None
    ramp: bool = False
    """They are reached there, in 64 equal steps from the place before."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """From position `start` on: an interleave whose sources have been drawn `base` times before, [num_sources]."""

    start: int
    weights: Weights
    base: np.ndarray

    @property
    def interleave(self) -> Interleave:
        return _interleave(self.weights)

    def counts(self, position: int) -> np.ndarray:
        return self.base + np.array(self.interleave.counts(position - self.start), np.int64)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One epoch of a mixture. `num_samples` is None where it has no end."""

    stages: tuple[Stage, ...]
    num_samples: int | None

    def places(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """positions: [n] integers -> (source, draw): [n] int64 each."""
        positions = np.asarray(positions, np.int64)
        if not len(positions):
            return positions, positions
        first, last = self._stage_at(int(positions.min())), self._stage_at(int(positions.max()))
        if first == last:
            return _places(self.stages[first], positions)
        stages = self.stages[first : last + 1]
        stage_of = np.searchsorted([stage.start for stage in stages], positions, side="right") - 1
        source, draw = np.empty_like(positions), np.empty_like(positions)
        for stage_index in np.unique(stage_of).tolist():
            at = stage_of == stage_index
            source[at], draw[at] = _places(stages[stage_index], positions[at])
        return source, draw

    def counts(self, position: int) -> list[int]:
        """How often each source has been drawn before `position`, in O(log sources) for each."""
        return self.stages[self._stage_at(position)].counts(position).tolist()

    def extended(self, position: int, weights: Weights, later: Sequence[tuple[int, Weights]] = ()) -> Schedule:
        """The same up to a position; from there other weights, and those of `later` at theirs. Of an endless epoch."""
        kept = self.stages[: bisect.bisect_left(self.stages, position, key=_start)]
        stages = list(kept)
        for start, changed in ((position, weights), *later):
            base = stages[-1].counts(start) if stages else np.zeros(len(weights), np.int64)
            stages.append(Stage(start=start, weights=changed, base=base))
        return Schedule(stages=tuple(stages), num_samples=None)

    def _stage_at(self, position: int) -> int:
        return max(0, bisect.bisect_right(self.stages, position, key=_start) - 1)


def make_schedule(
    sizes: Sequence[int],
    weights: Sequence[int],
    *,
    policy: str,
    max_repeats: Sequence[int],
    changes: Sequence[tuple[int, Sequence[int]]] = (),
    drawn: Mapping[int, Sequence[int]] = MappingProxyType({}),
) -> Schedule:
    """The stages of one epoch. `changes`: (position, weights from there on), in the order of positions.

    `drawn`: how often each source has been drawn before a position, where that is known already.
    """
    stages: list[Stage] = []
    start, base, weights = 0, np.zeros(len(sizes), np.int64), tuple(weights)
    times = np.array(max_repeats if policy == "max_repeats" else [1] * len(sizes), np.int64)
    quotas = np.array(sizes, np.int64) * times
    pending = list(reversed(changes))
    while True:
        while pending and pending[-1][0] <= start:
            weights = tuple(pending.pop()[1])
        left = (quotas - base).tolist()
        active = tuple(0 if policy == "max_repeats" and not rest else w for w, rest in zip(weights, left, strict=True))
        wanted = [rest > 0 or policy == "repeat" for w, rest in zip(active, left, strict=True) if w]
        if not any(wanted):
            return Schedule(stages=tuple(stages), num_samples=start)
        stage = Stage(start=start, weights=active, base=base)
        stages.append(stage)
        end = _end(stage, left, policy)
        if pending and (end is None or pending[-1][0] < end):
            end = pending[-1][0]
        elif end is None or policy == "stop_first":
            return Schedule(stages=tuple(stages), num_samples=end)
        start, base = end, np.array(drawn[end], np.int64) if end in drawn else stage.counts(end)


def declared(
    given: Sequence[WeightsFrom],
    names: Sequence[str],
    weights: Weights,
    tokens_per_sample: Sequence[Fraction | None],
) -> list[tuple[int, Weights]]:
    """(position, weights from there on) of a schedule, behind `weights` at 0. Raises UserError."""
    found: list[tuple[int, Weights]] = []
    position, before, tokens = 0, weights, Fraction()
    for item in given:
        if set(item.weights) != set(names):
            raise UserError(f"weights of a schedule are for {', '.join(item.weights)}: expected {', '.join(names)}")
        if (item.samples is None) == (item.tokens is None):
            raise UserError("a WeightsFrom needs either samples or tokens")
        after = integer_weights([item.weights[name] for name in names])
        meanwhile = _mixed(before, after, Fraction(1, 2)) if item.ramp else _mixed(before, before, Fraction(0))
        if item.samples is not None:
            at = whole("samples of a WeightsFrom", item.samples)
        else:
            at = position - int(
                (tokens - whole("tokens of a WeightsFrom", item.tokens)) // _mean(meanwhile, tokens_per_sample)
            )
        if at < position or (at == position and found):
            raise UserError(f"a schedule of weights goes forward: {at} samples are not behind {position}")
        found += [*(_ramp(before, after, position, at) if item.ramp else []), (at, after)]
        if item.tokens is not None or all(tokens_per_sample):
            tokens += (at - position) * _mean(meanwhile, tokens_per_sample)
        position, before = at, after
    return found


def _ramp(before: Weights, after: Weights, start: int, end: int) -> list[tuple[int, Weights]]:
    """Equal steps, each with the shares that the middle of its stretch has."""
    number = min(_RAMP_STEPS, end - start)
    return [
        (
            start + (end - start) * step // number,
            integer_weights(_mixed(before, after, Fraction(2 * step + 1, 2 * number))),
        )
        for step in range(number)
    ]


def _mixed(before: Weights, after: Weights, part: Fraction) -> list[Fraction]:
    """The shares of the sources, `part` of the way from one to the other."""
    shares = [[Fraction(weight, sum(weights)) for weight in weights] for weights in (before, after)]
    return [a * (1 - part) + b * part for a, b in zip(*shares, strict=True)]


def _mean(shares: Sequence[Fraction], tokens_per_sample: Sequence[Fraction | None]) -> Fraction:
    """Tokens of a sample."""
    known = [mean for mean in tokens_per_sample if mean]
    if len(known) < len(shares):
        raise UserError("a source has no tokens, or none that are known: give the schedule in samples")
    return sum((share * mean for share, mean in zip(shares, known, strict=True)), Fraction())


def _end(stage: Stage, left: Sequence[int], policy: str) -> int | None:
    """Where the stage ends by the policy: behind the last draw of the first (or last) source to be used up."""
    if policy == "repeat":
        return None
    interleave = stage.interleave
    sources = [source for source, w in enumerate(stage.weights) if w and left[source] > 0]
    ends = (stage.start + interleave.position(source, left[source] - 1) + 1 for source in sources)
    return max(ends) if policy == "stop_all" else min(ends)


def _places(stage: Stage, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    source, local = stage.interleave.places(positions - stage.start)
    return source, local + stage.base[source]


def _start(stage: Stage) -> int:
    return stage.start


@lru_cache(maxsize=256)
def _interleave(weights: Weights) -> Interleave:
    return Interleave(weights)
