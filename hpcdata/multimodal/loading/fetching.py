"""Examples made ahead by threads: while a training works on a batch, the pictures of the next ones are decoded.

Threads are enough: decoding, resizing and copying leave Python to others. What is ahead is bounded by memory, but the
next batch is always in work. What the machine does to a read (an error with a number, memory that is not there) is
tried again, and then raised; what is wrong with an example is its own result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from hpcdata.multimodal.loading.crew import Crew, patiently
from hpcdata.multimodal.loading.lengths import Preprocessor, Source
from hpcdata.multimodal.timing import Times
from hpcdata.samples import BadSample, Reason


class Failed(NamedTuple):
    """An example that is no part of its batch."""

    source: str
    item: int
    error: BadSample


class Fetching:
    """Makes examples in the threads of a crew."""

    def __init__(
        self,
        sources: Sequence[Source],
        preprocessor: Preprocessor,
        crew: Crew,
        times: Times,
        *,
        most: int | None = None,
    ) -> None:
        """most: ids of an example; a longer one is a reject, as it is for `Lengths`."""
        self._sources, self._preprocessor, self._crew, self._times = sources, preprocessor, crew, times
        self._most = most
        self._num_made, self._num_bytes = 0, 0

    @property
    def bytes_each(self) -> int:
        """Of an example, on average so far; 0 when none was made."""
        return self._num_bytes // max(1, self._num_made)

    def begin(self, source: int, row: int, seed: int) -> Future[dict[str, Any] | Failed]:
        return self._crew.pool.submit(self.make, source, row, seed)

    def make(self, source: int, row: int, seed: int) -> dict[str, Any] | Failed:
        """One example, by its randomness."""
        found = self._sources[source]
        item = row - found.first_row
        try:
            made = patiently(lambda: self._make(found, item, seed))
        except BadSample as error:
            return Failed(found.name, item, error)
        except Exception as error:
            error.add_note(f"hpcdata: example {item} of {found.name}")
            raise
        self._num_made += 1
        self._num_bytes += _size_of(made)
        return made

    def _make(self, source: Source, item: int, seed: int) -> dict[str, Any]:
        rng = np.random.RandomState(seed)
        with self._times.phase("read"):
            example = source.dataset.get(item, rng)
        with self._times.phase("prepare"):
            made = self._preprocessor(example, rng)
        if self._most is not None and len(made["input_ids"]) > self._most:
            message = f"{len(made['input_ids'])} ids, a row has room for {self._most}: see `truncation`"
            raise BadSample(Reason.TOO_LONG, message)
        return made


def _size_of(example: Mapping[str, Any]) -> int:
    return sum(int(getattr(value, "nbytes", 0)) for value in example.values())
