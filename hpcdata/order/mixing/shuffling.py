"""The shuffled rows of many sources in one go: each has an order of its own in each of its epochs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hpcdata.native.compiled import Kernels
from hpcdata.order.permutation import bits_for, round_keys

FEW = 8
"""So many sources are faster one by one."""
_MAX_KEYS = 4096
_MAX_TABLE = 2**16
_NOT_USED = -1


class ShuffledSources:
    """Does what ShuffledOrder.rows does for one."""

    def __init__(self, sizes: Sequence[int], seed_of: Callable[[int, int], int]) -> None:
        """`seed_of`: (source, epoch of the mixture) -> seed of its order."""
        self._sizes = np.array(sizes, np.int64)
        self._bits = np.array([bits_for(size) for size in sizes], np.int64)
        self._seed_of = seed_of
        self._keys: dict[tuple[int, int, int], np.ndarray] = {}

    def rows(
        self, compiled: Kernels, epoch: int, source: np.ndarray, times: np.ndarray, within: np.ndarray
    ) -> np.ndarray:
        """Rows in their sources, of positions `within` their `times`-th epochs: [n] int64 each."""
        number, first = len(self._sizes), int(times.min(initial=0))
        code = (times - first) * number + source
        size = int(code.max(initial=-1)) + 1
        if size <= max(_MAX_TABLE, len(code)):
            found = np.flatnonzero(np.bincount(code, minlength=size))
            table = np.full(size, _NOT_USED)
            table[found] = np.arange(len(found))
            which = table[code]
        else:
            found, which = np.unique(code, return_inverse=True)
        sources = found % number
        keys = [
            self._keys_of(epoch, *of) for of in zip(sources.tolist(), (found // number + first).tolist(), strict=True)
        ]
        permutations = self._sizes[sources], self._bits[sources], np.array(keys, np.uint64).reshape(len(keys), -1)
        return compiled.permute_each(within, which, *permutations)

    def _keys_of(self, epoch: int, source: int, times: int) -> np.ndarray:
        place = epoch, source, times
        found = self._keys.get(place)
        if found is None:
            if len(self._keys) >= _MAX_KEYS:
                self._keys = {}  # in one step: other threads may be here
            found = self._keys[place] = np.array(round_keys(self._seed_of(source, epoch), times))
        return found
