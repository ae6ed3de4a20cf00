"""The values that travel between the parts of the raw path."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from hpcdata.samples import Reason

REASONS = tuple(Reason)
"""What columns of reasons count in: 1 + the place of a reason here; 0 is none."""
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Slot:
    """The place of a picture in the text of a turn."""

    picture: int
    """Which picture of the example, from 0."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one side says: text, and where pictures stand in it. Text is text: no letters in it mean a picture or a
    control token.
    """

    role: Role
    parts: tuple[str | Slot, ...]
    weight: float = 1.0
    """What the loss of its tokens is multiplied by; of a turn that is not learned nothing counts."""


Branch = tuple[Turn, ...]
"""One conversation about the pictures of an example. Several of them share the pictures before them."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What is known of an example before a picture of it is decoded."""

    sizes: tuple[tuple[int, int], ...]
    """(height, width) of each picture, upright."""
    num_tokens: tuple[tuple[int, ...], ...]
    """Of each branch, ids of each of its turns as they are written, without pictures and without `num_shared`."""
    num_learned: tuple[tuple[int, ...], ...]
    """Of each of these turns, how many ids carry loss: the last ones of the turn."""
    num_kept: tuple[int, ...]
    """Of each branch, its turns up to the last one with a picture in it, which are never left out."""
    num_shared: int
    """Ids before all branches that are no picture: the one that begins a text, and text before shared pictures."""
    is_drawn: bool = False
    """Randomness was drawn for its texts: with another draw they may have other lengths."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measures:
    """The measures of some examples as columns: ragged by offsets, which begin with 0 and end with the whole."""

    first_picture: np.ndarray
    """[num_examples + 1] int64."""
    sizes: np.ndarray
    """[num_pictures, 2] int32: (height, width), upright."""
    first_branch: np.ndarray
    """[num_examples + 1] int64."""
    first_turn: np.ndarray
    """[num_branches + 1] int64."""
    num_kept: np.ndarray
    """[num_branches] int32."""
    num_tokens: np.ndarray
    """[num_turns] int32."""
    num_learned: np.ndarray
    """[num_turns] int32."""
    num_shared: np.ndarray
    """[num_examples] int32."""
    is_drawn: np.ndarray
    """[num_examples] bool."""
    written_by: str = ""
    """`written_by` of the preprocessor that measured: lengths of texts are those of others with this digest alone."""

    def __len__(self) -> int:
        return len(self.num_shared)

    def __getitem__(self, row: int) -> Measure:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} measures")
        pictures = slice(*self.first_picture[row : row + 2].tolist())
        begin, end = self.first_branch[row : row + 2].tolist()
        turns = self.first_turn[begin : end + 1].tolist()
        branches = [slice(*pair) for pair in itertools.pairwise(turns)]
        return Measure(
            sizes=tuple((height, width) for height, width in self.sizes[pictures].tolist()),
            num_tokens=tuple(tuple(self.num_tokens[branch].tolist()) for branch in branches),
            num_learned=tuple(tuple(self.num_learned[branch].tolist()) for branch in branches),
            num_kept=tuple(self.num_kept[begin:end].tolist()),
            num_shared=int(self.num_shared[row]),
            is_drawn=bool(self.is_drawn[row]),
        )

    @classmethod
    def of(cls, measures: Sequence[Measure], written_by: str = "") -> Measures:
        branches = [branch for measure in measures for branch in measure.num_tokens]
        learned = [branch for measure in measures for branch in measure.num_learned]
        sizes = [size for measure in measures for size in measure.sizes]
        return cls(
            first_picture=_offsets([len(measure.sizes) for measure in measures]),
            sizes=np.array(sizes, np.int32).reshape(-1, 2),
            first_branch=_offsets([len(measure.num_tokens) for measure in measures]),
            first_turn=_offsets([len(branch) for branch in branches]),
            num_kept=np.array([number for measure in measures for number in measure.num_kept], np.int32),
            num_tokens=np.array([number for branch in branches for number in branch], np.int32),
            num_learned=np.array([number for branch in learned for number in branch], np.int32),
            num_shared=np.array([measure.num_shared for measure in measures], np.int32),
            is_drawn=np.array([measure.is_drawn for measure in measures], bool),
            written_by=written_by,
        )


@dataclass(frozen=True, kw_only=True)
class Room:
    """What an example takes of the budgets of a row."""

    num_tokens: int
    num_crops: int
    num_pooled: int = 0
    """Rows of its `pooled_patches_idx`."""


@dataclass(frozen=True, kw_only=True)
class PictureTokens:
    """Ids that stand for pictures in a sequence; None: a preprocessor that does not need it."""

    patch: int
    start: int | None = None
    end: int | None = None
    col: int | None = None
    """Behind each row of patch tokens."""
    low_res_patch: int | None = None
    low_res_start: int | None = None
    """Of the crop that shows a whole picture, where it has tokens of its own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockPlan:
    """What a picture of some size becomes, before it is decoded."""

    tokens: np.ndarray
    """[num_tokens] int32: the ids that stand for it in a sequence, from its first special token to its last."""
    num_crops: int
    pooled_patches_idx: np.ndarray
    """[num_pooled, patches of a cell] int32: patches that make each patch token, as crop * patches a crop + patch;
    -1: none. One row for each patch token, in the order of `tokens`.
    """
    image_input_idx: np.ndarray
    """[num_crops, cells] int32: where in `tokens` the token of each cell of each crop stands; -1: the cell is not
    used.
    """
    grid_thw: tuple[int, int, int] | None = None
    """Frames, rows and columns of patches, of pictures in a resolution of their own (`QwenPictures`)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureBlock:
    """What a picture becomes."""

    plan: BlockPlan
    pixels: np.ndarray
    """[num_crops, patches, patch values], or [num_crops, channels, height, width]; float32 normalised, or uint8."""
    masks: np.ndarray | None
    """[num_crops, patches] float32: which share of each patch is picture and not padding."""


class PicturePreprocessor(Protocol):
    """Pictures -> crops. Equal settings make equal blocks of equal pictures and equal randomness."""

    @property
    def max_crops(self) -> int:
        """The setting that `max_crops` of the methods makes smaller: of Molmo's, tiles without the global crop."""
        ...

    @property
    def most_crops(self) -> int:
        """The most crops that one picture becomes, a global one counted."""
        ...

    def settings(self) -> dict[str, object]:
        """Plain values: all that changes what comes out. They enter states and plans."""
        ...

    def plan(self, height: int, width: int, *, max_crops: int | None = None) -> BlockPlan:
        """A pure function of the size. `max_crops`: fewer than the setting, for what would be too long."""
        ...

    def rooms(self, sizes: np.ndarray, *, max_crops: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of many sizes at once ([n, 2]: height, width): [n] int64 tokens, crops and pooled patches, as of `plan`."""
        ...

    def crops_as_pixels(self, images: np.ndarray) -> Iterable[np.ndarray]:
        """Crops to look at, [height, width, 3] uint8 each, of `PictureBlock.pixels` of one or several pictures."""
        ...

    def __call__(
        self,
        image: np.ndarray,
        rng: np.random.RandomState | None = None,
        *,
        is_training: bool = False,
        max_crops: int | None = None,
        keeps_places: bool = False,
    ) -> PictureBlock:
        """image: [height, width, 3] uint8. Only while training, and with `rng`, pictures are augmented, where the
        settings say so. keeps_places: texts say where things are in the picture, so nothing in it is moved.
        """
        ...


def _offsets(counts: list[int]) -> np.ndarray:
    """[len(counts) + 1] int64: where each of the rows begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def number_of(reason: Reason) -> int:
    """As it stands in a column of reasons, see REASONS."""
    return 1 + REASONS.index(reason)


def count_reasons(numbers: np.ndarray) -> Counter[str]:
    """Of a column of reasons, by name; those that are none are left out."""
    return Counter(str(REASONS[number - 1]) for number in numbers.tolist() if number)
