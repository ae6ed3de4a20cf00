"""What examples take of the budgets of a row, found without decoding a picture.

Of a dataset with stored measures (`measures(items)`, see the stage `measure`), many at once; of any other, by reading
headers and writing the text of each example, which draws from its randomness as making it will.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple, Protocol

import numpy as np

from hpcdata.multimodal.values import Measure, Room
from hpcdata.order.draws import Draws
from hpcdata.samples import BadSample


class Preprocessor(Protocol):
    """An example -> arrays; see hpcdata.multimodal.preprocessor."""

    def __call__(self, example: dict[str, Any], rng: np.random.RandomState) -> dict[str, Any]: ...

    def measure(self, example: dict[str, Any], rng: np.random.RandomState) -> Measure: ...

    def room(self, measure: Measure) -> Room:
        """Raises BadSample as `__call__` would."""
        ...

    def settings(self) -> dict[str, Any]: ...


class Rooms(NamedTuple):
    """Of some examples: [n] int64 each. One that is rejected has no tokens."""

    num_tokens: np.ndarray
    num_crops: np.ndarray
    num_pooled: np.ndarray

    @classmethod
    def of(cls, rooms: Sequence[Room | BadSample]) -> Rooms:
        columns = np.zeros((3, len(rooms)), np.int64)
        for at, room in enumerate(rooms):
            if isinstance(room, Room):
                columns[:, at] = room.num_tokens, room.num_crops, room.num_pooled
        return cls(*columns)

    def take(self, at: np.ndarray | slice) -> Rooms:
        return Rooms(*(column[at] for column in self))


class Source(NamedTuple):
    """A dataset of a loader."""

    name: str
    dataset: Any
    first_row: int
    """Of its examples, within those of all."""


class Lengths:
    """The rooms of draws. `more`: columns of each example beside its ids."""

    def __init__(self, sources: Sequence[Source], preprocessor: Preprocessor, *, more: int, executor: Executor) -> None:
        self._sources, self._preprocessor, self._more, self._executor = sources, preprocessor, more, executor

    def of(self, draws: Draws) -> Rooms:
        columns = np.zeros((3, len(draws.rows)), np.int64)
        for number in np.unique(draws.source).tolist():
            at = np.flatnonzero(draws.source == number)
            columns[:, at] = self._of_source(self._sources[number], draws.take(at))
        columns[0] += np.where(columns[0] > 0, self._more, 0)
        return Rooms(*columns)

    def _of_source(self, source: Source, draws: Draws) -> Rooms:
        items = draws.rows - source.first_row
        if hasattr(source.dataset, "measures") and hasattr(self._preprocessor, "rooms"):
            stored = source.dataset.measures(items)
            if (rooms := self._preprocessor.rooms(stored, draws.seeds)) is not None:
                return Rooms(*rooms)
        asked = list(zip(items.tolist(), draws.seeds.tolist(), strict=True))
        chunks = [asked[start : start + 64] for start in range(0, len(asked), 64)]
        found: Iterable[list[Room | BadSample]] = self._executor.map(self._rooms_of(source), chunks)
        return Rooms.of([room for chunk in found for room in chunk])

    def _rooms_of(self, source: Source) -> Callable[[list[tuple[int, int]]], list[Room | BadSample]]:
        def measured(asked: list[tuple[int, int]]) -> list[Room | BadSample]:
            return [room_of(source.dataset, self._preprocessor, item, seed) for item, seed in asked]

        return measured


def room_of(dataset: Any, preprocessor: Preprocessor, item: int, seed: int) -> Room | BadSample:
    """Of one example with its randomness, or why it will be rejected."""
    rng = np.random.RandomState(seed)
    try:
        return preprocessor.room(preprocessor.measure(dataset.get(item, rng), rng))
    except BadSample as error:
        return error
