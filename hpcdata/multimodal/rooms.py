"""What an example takes, from its measure: tokens, crops, pooled patches; and what of it is left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpcdata.media.formats import require_pixels
from hpcdata.multimodal.texts.limits import Cut, Limits, decide, num_tokens
from hpcdata.multimodal.texts.words import Words
from hpcdata.multimodal.values import Measure, Measures, PicturePreprocessor, Room, number_of
from hpcdata.samples import BadSample, Reason

_LARGE = 2000
"""Pixels of a side that fills a crop."""
_MOST_LENGTHS = 1 << 16
"""Lengths of pictures that are kept, by size."""


class Rooms:
    """Of the examples of one preprocessor, see there for the settings. Safe in several threads."""

    def __init__(
        self,
        pictures: PicturePreprocessor,
        words: Words,
        limits: Limits,
        *,
        is_open: bool,
        max_images: int | None,
        names_pictures: bool,
        max_pixels: int,
    ) -> None:
        self._pictures, self._words, self._limits, self._is_open = pictures, words, limits, is_open
        self._max_images, self._names_pictures, self._max_pixels = max_images, names_pictures, max_pixels
        self._lengths: dict[tuple[int, int, int], tuple[int, int, int]] = {}
        self._names: dict[int, np.ndarray] = {}

    def cut(self, measure: Measure) -> Cut:
        """What of an example is kept. Raises BadSample and UserError, see `texts.limits`."""
        self.check_number(len(measure.sizes))
        return decide(
            measure,
            self._limits,
            most_crops=self._pictures.max_crops,
            picture_tokens=lambda crops: self._picture_tokens(measure.sizes, crops),
            is_open=self._is_open,
        )

    def check_number(self, num_pictures: int) -> None:
        if self._max_images is not None and num_pictures > self._max_images:
            raise BadSample(Reason.TOO_MANY_IMAGES, f"{num_pictures} pictures, max_images is {self._max_images}")

    def of(self, measure: Measure) -> Room:
        """Raises as `cut` does."""
        cut = self.cut(measure)
        lengths = [self._length(height, width, cut.max_crops) for height, width in measure.sizes]
        return Room(
            num_tokens=num_tokens(
                measure,
                cut.num_turns,
                self._picture_tokens(measure.sizes, cut.max_crops),
                is_open=self._is_open,
                ends_inside=self._limits.ends_inside,
            ),
            num_crops=sum(crops for _, crops, _ in lengths),
            num_pooled=sum(pooled for _, _, pooled in lengths),
        )

    def of_many(
        self, measures: Measures, *, is_order_drawn: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """See `MolmoPreprocessor.rooms`. is_order_drawn: that of branches. All pictures are files."""
        columns, is_plain = self._plain_rooms(measures)
        if is_order_drawn and (~is_plain & (np.diff(measures.first_branch) > 1)).any():
            return None
        for row in np.flatnonzero(~is_plain).tolist():
            columns[:, row] = 0
            try:
                measure = measures[row]
                self.check_number(len(measure.sizes))
                for height, width in measure.sizes:
                    require_pixels(height * width, self._max_pixels)
                room = self.of(measure)
                columns[:3, row] = room.num_tokens, room.num_crops, room.num_pooled
            except BadSample as error:
                columns[3, row] = number_of(error.reason)
        tokens, crops, pooled, reason = columns
        return tokens, crops, pooled, reason

    def _plain_rooms(self, measures: Measures) -> tuple[np.ndarray, np.ndarray]:
        """[4, n] int64 as `rooms` has them, and [n] bool: of which examples, of which nothing is left out."""
        limits = self._limits
        num_pictures, num_branches = np.diff(measures.first_picture), np.diff(measures.first_branch)
        turns = measures.first_turn[measures.first_branch]
        columns = np.zeros((4, len(measures)), np.int64)
        of_pictures = self._lengths_of(measures.sizes)
        columns[:3] = _sums(of_pictures, measures.first_picture)
        names = np.cumsum([0, *map(len, self.names(int(num_pictures.max(initial=0))))])
        if len(names) > 1:
            columns[0] += np.where(num_pictures > 1, names[num_pictures], 0)
        ends = 0 if self._is_open else 1 if limits.ends_inside else num_branches
        columns[0] += measures.num_shared + _sums(measures.num_tokens[None], turns)[0] - ends
        is_plain = self._is_open | (_sums(measures.num_learned[None], turns)[0] > 0)
        is_plain &= _sums(of_pictures[:1] == 0, measures.first_picture)[0] == 0  # 0 tokens: pictures that are refused
        is_large = measures.sizes.prod(axis=1, dtype=np.int64) > self._max_pixels
        is_plain &= _sums(is_large[None], measures.first_picture)[0] == 0
        if self._max_images is not None:
            is_plain &= num_pictures <= self._max_images
        if limits.max_sequence_length is not None:
            is_plain &= columns[0] <= limits.max_sequence_length
        if limits.max_text_tokens is not None:
            is_plain &= num_branches == 1
        return columns, is_plain

    def _lengths_of(self, sizes: np.ndarray) -> np.ndarray:
        """[3, n] int64: tokens, crops and pooled patches of pictures of these sizes ([n, 2])."""
        return np.stack(self._pictures.rooms(sizes)) if len(sizes) else np.zeros((3, 0), np.int64)

    def names(self, number: int) -> list[np.ndarray]:
        """Ids before each of several pictures: its number."""
        if number < 2 or not self._names_pictures:
            return []
        for picture in range(len(self._names), number):
            (self._names[picture],) = self._words.encode([f"Image {picture + 1}"])
        return [self._names[picture] for picture in range(number)]

    def most_pooled(self) -> int:
        """Rows of `pooled_patches_idx` of a picture, at most: of shapes that fill every grid of crops."""
        most = self._pictures.most_crops
        sides = [(rows, columns) for rows in range(1, most + 1) for columns in range(1, most // rows + 1)]
        return int(self._pictures.rooms(np.array(sides) * _LARGE)[2].max())

    def _picture_tokens(self, sizes: Sequence[tuple[int, int]], max_crops: int) -> int:
        names = sum(map(len, self.names(len(sizes))))
        return names + sum(self._length(height, width, max_crops)[0] for height, width in sizes)

    def _length(self, height: int, width: int, max_crops: int) -> tuple[int, int, int]:
        """(tokens, crops, pooled patches) of a picture."""
        key = (height, width, max_crops)
        if (found := self._lengths.get(key)) is None:
            fewer = {} if max_crops == self._pictures.max_crops else {"max_crops": max_crops}
            plan = self._pictures.plan(height, width, **fewer)
            found = (len(plan.tokens), plan.num_crops, len(plan.pooled_patches_idx))
            if len(self._lengths) >= _MOST_LENGTHS:
                self._lengths = {}
            self._lengths[key] = found
        return found


def _sums(columns: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """[k, n] -> [k, m]: sums from each offset ([m + 1]) to the next."""
    totals = np.zeros((len(columns), columns.shape[1] + 1), np.int64)
    np.cumsum(columns, axis=1, out=totals[:, 1:])
    return totals[:, offsets[1:]] - totals[:, offsets[:-1]]
