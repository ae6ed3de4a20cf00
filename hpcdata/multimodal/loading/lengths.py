"""What examples take of the budgets of a row, found without decoding a picture.

Of a dataset with stored measures (`measures(items)`, see the stage `measure`), many at once; of any other, by reading
headers and writing the text of each example, which draws from its randomness as making it will.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from hpcdata.multimodal.loading.crew import Crew, patiently
from hpcdata.multimodal.values import Measure, Room, number_of
from hpcdata.order.draws import Draws
from hpcdata.order.seeding import NUM_SEEDS
from hpcdata.samples import BadSample, Reason

_logger = logging.getLogger(__name__)
_MOST_KNOWN = 2**17
_AT_A_TIME = 64
"""Examples that a thread measures before another may have its turn."""


class Preprocessor(Protocol):
    """An example -> arrays; see hpcdata.multimodal.preprocessor. Safe in several threads."""

    def __call__(self, example: dict[str, Any], rng: np.random.RandomState) -> dict[str, Any]: ...

    def measure(self, example: dict[str, Any], rng: np.random.RandomState) -> Measure: ...

    def room(self, measure: Measure) -> Room:
        """Raises BadSample as `__call__` would."""
        ...

    def settings(self) -> dict[str, Any]: ...


_Found = tuple[Room | BadSample, bool]
"""The room of an example, or why it is rejected; and whether it has several branches."""


class Rooms(NamedTuple):
    """Of some examples: [n] int64 each."""

    num_tokens: np.ndarray
    """0 of what is rejected, or has no place in a row."""
    num_crops: np.ndarray
    num_pooled: np.ndarray
    is_tree: np.ndarray
    """Whether it has several branches, before any is left out: 0 or 1."""
    reason: np.ndarray
    """Why it is rejected, see `values.REASONS`; 0: it is not."""

    @classmethod
    def of(cls, found: Sequence[_Found]) -> Rooms:
        columns = np.zeros((5, len(found)), np.int64)
        for at, (room, is_tree) in enumerate(found):
            if isinstance(room, Room):
                columns[:4, at] = room.num_tokens, room.num_crops, room.num_pooled, is_tree
            else:
                columns[4, at] = number_of(room.reason)
        return cls(*columns)

    def take(self, at: np.ndarray | slice) -> Rooms:
        return Rooms(*(column[at] for column in self))


class Source(NamedTuple):
    """A dataset of a loader."""

    name: str
    dataset: Any
    first_row: int
    """Of its examples, within those of all."""
    salt: int = 0
    """Added to the seeds of its examples: equal examples of equal datasets have different randomness."""


def seeds_of(draws: Draws, sources: Sequence[Source]) -> list[int]:
    """Of the examples, for numpy.random.RandomState."""
    salts = np.array([source.salt % NUM_SEEDS for source in sources])
    return ((draws.seeds.astype(np.int64) + salts[draws.source]) % NUM_SEEDS).tolist()


class Lengths:
    """The rooms of draws. `more`: columns of each example beside its ids. `most`: columns of a row; what is longer is
    rejected. Safe in several threads.
    """

    def __init__(
        self, sources: Sequence[Source], preprocessor: Preprocessor, *, more: int, crew: Crew, most: int | None = None
    ) -> None:
        self._sources, self._preprocessor, self._more, self._crew = sources, preprocessor, more, crew
        self._most = most
        self._told = set[int]()
        self._known: dict[tuple[int, int], _Found] = {}
        """By source and item, of examples whose lengths do not depend on randomness."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_known": {}}

    def of(self, draws: Draws) -> Rooms:
        columns = np.zeros((5, len(draws.rows)), np.int64)
        for number in np.unique(draws.source).tolist():
            at = np.flatnonzero(draws.source == number)
            columns[:, at] = self._of_source(number, draws.take(at))
        columns[0] += np.where(columns[0] > 0, self._more, 0)
        if self._most is not None and (is_long := columns[0] > self._most).any():
            columns[0, is_long], columns[4, is_long] = 0, number_of(Reason.TOO_LONG)
        return Rooms(*columns)

    def _of_source(self, number: int, draws: Draws) -> np.ndarray:
        """[5, n]: the columns of Rooms."""
        source = self._sources[number]
        items = draws.rows - source.first_row
        columns, is_known = stored_rooms(source.dataset, self._preprocessor, items)
        rest = np.flatnonzero(~is_known)
        if len(rest):
            self._tell_why(number)
            seeds = seeds_of(draws.take(rest), self._sources)
            asked = [(number, *each) for each in zip(items[rest].tolist(), seeds, strict=True)]
            chunks = [asked[start : start + _AT_A_TIME] for start in range(0, len(asked), _AT_A_TIME)]
            found = self._crew.map(lambda chunk: [self._room(*each) for each in chunk], chunks)
            columns[:, rest] = Rooms.of([room for rooms in found for room in rooms])
        return columns

    def _tell_why(self, number: int) -> None:
        """Once, where stored measures are of no use at all."""
        name, dataset = self._sources[number].name, self._sources[number].dataset
        if number in self._told or not hasattr(dataset, "measures"):
            return
        self._told.add(number)
        if dataset.measures(np.zeros(0, np.int64)).written_by != getattr(self._preprocessor, "written_by", None):
            _logger.warning(
                "the stored lengths of %s are of other settings (tokenizer, message_format, style...): its texts are "
                "tokenized once more; measure it with these, see measure.preprocessor",
                name,
            )

    def _room(self, number: int, item: int, seed: int) -> _Found:
        known = self._known.get((number, item))
        if known is not None:
            return known
        try:
            room, is_drawn = room_of(self._sources[number].dataset, self._preprocessor, item, seed)
        except Exception as error:
            error.add_note(f"hpcdata: example {item} of {self._sources[number].name}, when it was measured")
            raise
        if not is_drawn:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[number, item] = room
        return room


def stored_rooms(dataset: Any, preprocessor: Preprocessor, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From the columns of a measured dataset: ([5, n] int64, the columns of Rooms; [n] bool, of which they are known).

    They are not known where texts are drawn anew in each epoch, or are written otherwise by this preprocessor.
    """
    columns, is_known = np.zeros((5, len(items)), np.int64), np.zeros(len(items), bool)
    measures, rooms = getattr(dataset, "measures", None), getattr(preprocessor, "rooms", None)
    if measures is None or rooms is None:
        return columns, is_known
    stored, at = measures(items), np.arange(len(items))
    if stored.is_drawn.any():
        at = np.flatnonzero(~stored.is_drawn)
        stored = measures(items[at])
    found = rooms(stored) if len(at) else None
    if found is not None:
        tokens, crops, pooled, reason = found
        columns[:, at] = tokens, crops, pooled, np.diff(stored.first_branch) > 1, reason
        is_known[at] = True
    return columns, is_known


def room_of(dataset: Any, preprocessor: Preprocessor, item: int, seed: int) -> tuple[_Found, bool]:
    """Of one example with its randomness; and whether randomness was drawn for that."""
    rng = np.random.RandomState(seed)
    before = _position(rng)

    def measured() -> _Found:
        rng.seed(seed)
        measure = preprocessor.measure(dataset.get(item, rng), rng)
        return preprocessor.room(measure), len(measure.num_tokens) > 1

    try:
        found: _Found = patiently(measured)
    except BadSample as error:  # which holds all that its frames hold, and what is found is kept
        found = BadSample(error.reason, error.message), False
    return found, _position(rng) != before


def _position(rng: np.random.RandomState) -> tuple[int, int, int]:
    """Another value once something was drawn."""
    _, key, position, has_gauss, _ = rng.get_state()
    return int(position), int(has_gauss), hash(np.asarray(key)[:8].tobytes())
