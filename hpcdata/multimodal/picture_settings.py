"""The settings of pictures, by the names that Molmo's documents and its code have.

`base_image_input_size` is the size of a crop; `image_token_length_h` and `_w` are tokens of it, of which follows how
many patches are pooled into one (`pooling_h`, `pooling_w`). `vision` names a backbone: what is not given is as its
pictures are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hpcdata.base.errors import UserError
from hpcdata.multimodal.pictures.augmenting import Augmentation
from hpcdata.multimodal.pictures.molmo import MolmoPictures
from hpcdata.multimodal.values import PictureTokens


class _Backbone(NamedTuple):
    crop_size: int
    resize: str
    normalize: str


BACKBONES = {
    "clip": _Backbone(336, "default", "openai"),
    "siglip": _Backbone(378, "siglip", "siglip"),
    "dino": _Backbone(336, "dino", "imagenet"),
    "metaclip": _Backbone(336, "metaclip", "openai"),
}
_STATISTICS = {"dino": "imagenet"}
"""Other names of statistics."""
_SIDES = ("pooling_h", "pooling_w", "image_token_length_h", "image_token_length_w")


@dataclass(frozen=True, kw_only=True)
class PictureSettings:
    generation: str = "molmo2"
    """`molmo2` (and the robot fork), or `molmo`: pools each crop by itself, and branches end in the input, too."""
    vision: str = "clip"
    """`clip` (336 pixels), `siglip` (378), `dino` or `metaclip` (336): sizes, resizing and normalisation."""
    crop_mode: str | None = None
    """`overlap-and-resize-c2` (a global crop and tiles), `overlap-and-resize` (tiles alone) or `resize` (one crop).
    None: the first; but `resize` where `max_crops` is 1 and no margins are wanted: then both would be the same crop.
    """
    max_crops: int = 6
    """Tiles at most, beside the global crop."""
    max_images: int | None = None
    """More pictures than these are a reject; None: any number."""
    base_image_input_size: Sequence[int] | None = None
    """(height, width) of a crop in pixels."""
    image_patch_size: int = 14
    overlap_margins: Sequence[int] = (4, 4)
    """Patches that neighboring tiles share, at the beginning and at the end of each."""
    tiling: str = "every_side"
    """`v1`: pictures with a side below the margins get few tiles, as in the first Molmo and the fork, for old runs."""
    pooling_h: int | None = None
    """Patches of a column that become one token. None: as `image_token_length_h` says, or 2."""
    pooling_w: int | None = None
    image_token_length_h: int | None = None
    """Rows of tokens of a crop: as many as patches are no pooling."""
    image_token_length_w: int | None = None
    use_col_tokens: bool = True
    use_low_res_token_global_crops: bool = False
    use_single_crop_col_tokens: bool | None = None
    use_single_crop_start_token: bool = False
    image_masks: bool | None = None
    """Whether `image_masks` are made. None: where resizing pads."""
    legacy_image_mask: bool = False
    """Masks of tiles shifted by one crop, as the first Molmo has them."""
    resize: str | None = None
    normalize: str | None = None
    pad_value: float = 0.0
    pixels: str = "exact"
    """`exact`: float32, normalised as the originals do; `fast`: uint8, to be normalised on the device."""
    use_random_crops: bool = False
    """In training a part of each picture, by the example's own randomness; see `pictures.augmenting`."""
    use_horizontal_flip: bool = False
    use_color_jitter: bool = False
    use_resize_variations: bool = False
    """Another kernel for each picture; `resize="torch-rng"` says the same."""
    output: str = "images"
    """`images`: crops [channels, height, width]; `patches`: [patches, patch values] with indices of pooled patches."""

    def __post_init__(self) -> None:
        check("vision", self.vision, tuple(BACKBONES))
        check("output", self.output, ("images", "patches"))
        check("generation", self.generation, ("molmo2", "molmo"))
        for name in ("max_crops", "image_patch_size", *(side for side in _SIDES if getattr(self, side) is not None)):
            check_count(name, getattr(self, name))
        self.pictures(PictureTokens(patch=0, start=0, end=0, col=0, low_res_patch=0, low_res_start=0))

    def pictures(self, tokens: PictureTokens) -> MolmoPictures:
        """Raises UserError for settings that do not go together."""
        backbone = BACKBONES[self.vision]
        size = _pair("base_image_input_size", self.base_image_input_size or (backbone.crop_size,) * 2)
        if size[0] != size[1]:
            raise UserError(f"base_image_input_size={size}: crops are squares")
        margins = _pair("overlap_margins", self.overlap_margins)
        resize = "default" if self.resize == "torch-rng" else self.resize or backbone.resize
        masks = resize in ("default", "torch-bilinear") if self.image_masks is None else self.image_masks
        is_one_crop = self.max_crops == 1 and margins == (0, 0)
        given: dict[str, Any] = {
            "crop_mode": self.crop_mode or ("resize" if is_one_crop else "overlap-and-resize-c2"),
            "normalize": _STATISTICS.get(self.normalize or backbone.normalize, self.normalize or backbone.normalize),
            "resize": resize,
            "pixels": self.pixels,
            "tiling": self.tiling,
        }
        try:
            return MolmoPictures(
                tokens=tokens,
                max_crops=self.max_crops,
                crop_size=size[0],
                patch_size=self.image_patch_size,
                pooling=(self._pooling("h", size[0]), self._pooling("w", size[1])),
                overlap_margins=margins,
                pad_value=self.pad_value,
                form="crops" if self.output == "images" else "patches",
                use_col_tokens=self.use_col_tokens,
                use_low_res_token_global_crops=self.use_low_res_token_global_crops,
                use_single_crop_col_tokens=self.use_single_crop_col_tokens,
                use_single_crop_start_token=self.use_single_crop_start_token,
                pool_over="crop" if self.generation == "molmo" else "picture",
                image_masks=masks,
                legacy_image_mask=self.legacy_image_mask,
                augmentation=Augmentation(
                    random_crops=self.use_random_crops,
                    horizontal_flip=self.use_horizontal_flip,
                    color_jitter=self.use_color_jitter,
                    resize_variations=self.use_resize_variations or self.resize == "torch-rng",
                ),
                **given,
            )
        except ValueError as error:
            raise UserError(f"settings of pictures: {error}") from None

    def _pooling(self, side: str, size: int) -> int:
        """Patches that become one token, along one side of a crop."""
        patches = size // self.image_patch_size
        given, tokens = getattr(self, f"pooling_{side}"), getattr(self, f"image_token_length_{side}")
        if tokens is None:
            return given or 2
        pooling = -(-patches // tokens)
        if -(-patches // pooling) != tokens or given not in (None, pooling):
            raise UserError(
                f"image_token_length_{side}={tokens}, pooling_{side}={given}: a crop of {size} pixels has {patches} "
                f"patches of {self.image_patch_size}; pooling by p of them makes ceil({patches} / p) tokens"
            )
        return pooling


def _pair(name: str, value: Sequence[int] | int) -> tuple[int, int]:
    given = (value, value) if isinstance(value, int) else tuple(value)
    if len(given) != 2 or not all(isinstance(side, int) for side in given):
        raise UserError(f"{name}={value}: expected two whole numbers")
    return given


def check(name: str, value: object, known: Sequence[object]) -> None:
    """Raises UserError."""
    if value not in known:
        raise UserError(f"{name}={value}: expected one of {', '.join(map(str, known))}")


def check_count(name: str, value: object) -> None:
    """Raises UserError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{name}={value!r}: expected a whole number from 1 on")
