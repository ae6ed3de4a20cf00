"""Picking: which shard a process works on next, when thousands of processes share 100,000 shards.

A process lists the shards that are free once and walks through them from a place of its own. When it meets
`MISSES` shards in a row that others have taken, it lists again. So the number of listings a process makes grows with
the logarithm of the number of shards, and a claim costs a few file-system calls, whatever the size of the run
(`tests/test_picking.py` counts them). Claims of others are looked at in small samples, and all of them only when
nothing else is left.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from hpcdata.runs.claims import Claims
from hpcdata.runs.inputs.planned import ShardSpec
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan

MISSES = 4
SAMPLE = 16
"""Claims of others that are looked at with each listing: their owner may have died."""
CHECK_S = 2.0
"""Longest look into committed folders before a process is done, see `RunPaths.find_remains`."""


class Picker:
    """Picks shards for one process."""

    def __init__(self, plan: Plan, paths: RunPaths, claims: Claims, attempt: str) -> None:
        self._plan, self._paths, self._claims = plan, paths, claims
        self._random = random.Random(attempt)
        self._remains: set[str] = set()
        """Folders named like committed shards that hold none."""
        self._is_first = True

    def pick(self, closed: set[str], should_stop: Callable[[], bool]) -> Iterator[ShardSpec]:
        """Yields shards that are now ours, until all others are committed, in `closed` or in somebody's hands."""
        while True:
            misses, progressed = 0, False
            for shard in self._list(closed):
                if should_stop():
                    return
                spec = self._try(shard)
                misses = 0 if spec else misses + 1
                if misses == MISSES:
                    break
                if spec:
                    progressed = True
                    yield spec
            if not progressed and misses < MISSES:
                return

    def list_open(self, closed: set[str]) -> list[str]:
        """Names of the shards that are not committed, from one listing.

        When none is left, the committed folders are looked into: some may have lost their shard.json, and count again.
        """
        if self._paths.complete_dataset():
            return []
        listed, _ = self._paths.list_names()
        names = [name for name in self._plan.shard_names if name not in closed]
        is_left = [name for name in names if name not in listed]
        self._remains = set() if is_left else self._paths.find_remains(names, CHECK_S)
        return is_left or sorted(self._remains)

    def _list(self, closed: set[str]) -> Iterator[int]:
        """Open shards, best first: half-done ones, fresh ones, then those that others have claimed.

        Claims that were seen dead count as none. The last group comes only to who got nothing from the others.
        """
        if self._paths.complete_dataset():
            return
        names = self._plan.shard_names
        listed, started = self._paths.list_names()
        listed -= self._remains
        free = [shard for shard, name in enumerate(names) if name not in listed and name not in closed]
        claimed = self._claims.list_names()
        others = [shard for shard in free if names[shard] in claimed]
        looked_at = others if self._is_first else self._random.sample(others, min(SAMPLE, len(others)))
        self._is_first = False
        dead = self._find_dead(looked_at)
        ready = [shard for shard in free if names[shard] not in claimed or shard in dead]
        turn = self._random.randrange(len(ready)) if ready else 0
        ready = ready[turn:] + ready[:turn]
        yield from sorted(ready, key=lambda shard: names[shard] not in started)
        if not ready:
            yield from self._find_dead(others)

    def _find_dead(self, shards: list[int]) -> list[int]:
        names = self._plan.shard_names
        alive = self._claims.find_alive(names[shard] for shard in shards)
        return [shard for shard in shards if names[shard] not in alive]

    def _try(self, shard: int) -> ShardSpec | None:
        spec = self._plan.shard(shard)
        if not self._claims.try_claim(spec.name):
            return None
        if self.is_done(spec.name):  # committed since it was listed
            self._claims.release(spec.name)
            return None
        return spec

    def is_done(self, name: str) -> bool:
        return self._paths.find_shard(name) is not None or self._paths.complete_dataset() is not None
