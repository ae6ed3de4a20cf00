"""Named rules: what different systems make of the same picture file. `image.rule` names one of them in the plan.

| | `white` | `molmo` | `liquid` |
|---|---|---|---|
| alpha, transparent colors | laid on white | dropped | dropped |
| gray of 16 bits | scaled to 8 | clipped to 255 | clipped to 255 |
| gray of floats | white is 1.0 or 255 | clipped to 255 | clipped to 255 |
| orientation | turned | turned, as of the converted picture | not turned |
| color profiles, `gAMA` (unless `data.color=srgb`) | not applied | not applied | not applied |
| kernel | bilinear | bilinear | Lanczos |
| rounding of the long side | down, in integers | down, in integers | down, in floats |
| first pixel of the center crop | rounded half to even | rounded half to even | rounded down |

`white`: the default and the rule of runs that know no other. Resizes and crops as torchvision does.

`molmo`: the three generations of Molmo (allenai/molmo, its robot fork, molmo2). Pillow's plain `convert("RGB")`, then
`ImageOps.exif_transpose`, and a picture that this raises on stays as it is. On purpose, rejects are ours: of what is
truncated (Molmo fills it with gray: `truncated="gray"`), has more pixels than allowed, or is in none of
`formats.FORMATS`. Molmo has no
image codes: for a tokenizer its pictures are resized and cropped as `white`. Its own sizes (the long side fits, the
rest is padded) belong to the raw path.

`liquid`: what Liquid's convert_imagepair_cc512 gives Chameleon's tokenizer at `data.resolution=512`. Plain
`convert("RGB")`: alpha is dropped, and not blended with anything. What tools leave black below full transparency
therefore becomes black, which is why this is also known as "alpha to black"; another hidden color comes to light.
Liquid drops pictures whose sides have a ratio above 2, without a word: here they have pixels, cropped to the center,
or are rejects of `data.max_aspect=2`.
Sizes other than squares are of ours: the same arithmetic, with the factor of the side that is cut least.

Neither original decodes JPEGs as drafts: with `data.jpeg_draft` the pixels of large JPEGs are only near theirs.
A TIFF is turned by Pillow itself when it is decoded, whatever the rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Alpha = Literal["on_white", "dropped"]
"""Of pictures with alpha or a transparent color. `dropped`: Pillow's plain conversion, of every other mode too."""
Turned = Literal["first", "after_conversion", "never"]
"""When the orientation counts. `after_conversion`: as far as Pillow turns a converted picture, see `orientation`."""
Kernel = Literal["bilinear", "bicubic", "lanczos"]
"""Pillow's filters, antialiased."""
Rounding = Literal["integers", "floats"]
"""How the long side of a resized picture and its margins are rounded, see `resizing`."""

Color = Literal["ignore", "srgb"]
"""Whether colors that a file describes otherwise are converted to sRGB, see `profiles`."""

Truncated = Literal["reject", "gray"]
"""What becomes of a JPEG that ends too early. `gray`: what is missing is, as libjpeg fills it. Other formats, and JPEGs
without a pixel, are rejects in any case.
"""


@dataclass(frozen=True, kw_only=True)
class Rule:
    alpha: Alpha
    turned: Turned
    kernel: Kernel
    rounding: Rounding
    color: Color = "ignore"
    """Of every system that is named here."""
    truncated: Truncated = "reject"


WHITE = Rule(alpha="on_white", turned="first", kernel="bilinear", rounding="integers")
MOLMO = Rule(alpha="dropped", turned="after_conversion", kernel="bilinear", rounding="integers")
LIQUID = Rule(alpha="dropped", turned="never", kernel="lanczos", rounding="floats")
RULES: Mapping[str, Rule] = {"white": WHITE, "molmo": MOLMO, "liquid": LIQUID}
