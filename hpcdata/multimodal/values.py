"""The values that travel between the parts of the raw path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

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


@dataclass(frozen=True, kw_only=True)
class Room:
    """What an example takes of the budgets of a row."""

    num_tokens: int
    num_crops: int
    num_pooled: int = 0
    """Rows of its `pooled_patches_idx`."""


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

    max_crops: int
    """The most crops that a picture becomes, the global one counted."""

    def settings(self) -> dict[str, object]:
        """Plain values: all that changes what comes out. They enter states and plans."""
        ...

    def plan(self, height: int, width: int, *, max_crops: int | None = None) -> BlockPlan:
        """A pure function of the size. `max_crops`: fewer than the setting, for what would be too long."""
        ...

    def __call__(
        self,
        image: np.ndarray,
        rng: np.random.RandomState | None = None,
        *,
        is_training: bool = False,
        max_crops: int | None = None,
    ) -> PictureBlock:
        """image: [height, width, 3] uint8."""
        ...
