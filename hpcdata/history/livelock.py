"""Livelock: shards that are taken up again and again and never get ahead, as the ledgers tell it.

An attempt makes its first batch safe as soon as that is done, so whoever lives for its start and one batch gets ahead.
A shard is stuck when its last attempts all died before that: when `STUCK_AFTER` of them began at the same sample, or
already when two did and the first of these was followed in less time than a batch takes.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

STUCK_AFTER = 3


@dataclass(kw_only=True)
class History:
    """What all ledgers say of one shard: (time, sample) of its claims, times of the checkpoints that got ahead."""

    claims: list[tuple[float, int]] = field(default_factory=list)
    advances: list[float] = field(default_factory=list)

    def is_stuck(self, batch_s: float | None) -> bool:
        since = max(self.advances, default=float("-inf"))
        ordered = sorted(claim for claim in self.claims if claim[0] > since)
        last = [time for time, sample in ordered if sample == ordered[-1][1]]
        if len(last) >= STUCK_AFTER:
            return True
        return batch_s is not None and any(after - before < batch_s for before, after in itertools.pairwise(last))


def batch_seconds(done: Sequence[tuple[float, float, int]], batch_size: int) -> float | None:
    """The median time of a batch, from the (start, end, samples) of what checkpoints and commits made safe."""
    found = [(end - start) * batch_size / samples for start, end, samples in done if samples >= batch_size]
    return statistics.median(found) if found else None
