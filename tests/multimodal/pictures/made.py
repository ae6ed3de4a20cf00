"""Pictures and settings of the originals' vectors (vectors/images.json.gz, from allenai/molmo, its fork and molmo2)."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hpcdata.multimodal.pictures.molmo import MolmoPictures
from hpcdata.multimodal.values import PictureTokens

TOKENS = PictureTokens(start=257, end=258, patch=259, col=260, low_res_patch=262, low_res_start=266)
_VECTORS = Path(__file__).parent.parent / "vectors" / "images.json.gz"


@functools.cache
def vectors() -> dict[str, list[dict[str, Any]]]:
    """By `v1`, `fork`, `two`: [{config, cases}]."""
    return json.loads(gzip.decompress(_VECTORS.read_bytes()))


def configs() -> Iterator[tuple[str, dict[str, Any]]]:
    for generation, entries in vectors().items():
        for index, entry in enumerate(entries):
            config = entry["config"]
            yield f"{generation}-{index}-{config['name']}-{config['crop_mode']}-{config['max_crops']}", entry


def preprocessor(name: str, config: dict[str, Any], **changes: Any) -> MolmoPictures:
    """As the original of this vector was set. name: from `configs`."""
    is_v1, is_low_res = name.startswith("v1"), config["name"].endswith("lowres")
    settings: dict[str, Any] = {
        "tokens": TOKENS,
        "crop_mode": config["crop_mode"],
        "max_crops": config["max_crops"],
        "crop_size": config["crop_size"],
        "pooling": tuple(config["pooling"]),
        "normalize": "imagenet" if config["normalize"] == "dino" else config["normalize"],
        "resize": config["resize"],
        "tiling": "every_side" if name.startswith("two") else "v1",
        "pool_over": "crop" if is_v1 else "picture",
        "use_low_res_token_global_crops": is_low_res,
        "use_single_crop_start_token": is_low_res,
        "use_single_crop_col_tokens": False if is_low_res else None,
        "image_masks": not name.startswith("two"),
        "legacy_image_mask": is_v1,
    }
    return MolmoPictures(**settings | changes)


def picture(height: int, width: int) -> np.ndarray:
    """The vectors' picture of this size: [height, width, 3] uint8."""
    x, y = np.arange(width), np.arange(height)[:, None]
    made = np.empty((height, width, 3), np.uint8)
    made[..., 0] = x * 255 // max(width - 1, 1)
    made[..., 1] = y * 255 // max(height - 1, 1)
    made[..., 2] = (7 * x + 13 * y) % 256
    return made


def photograph(height: int, width: int, *, noise: float = 4.0, seed: int = 0) -> np.ndarray:
    """Smooth shapes with some noise: [height, width, 3] uint8."""
    rng = np.random.default_rng(seed)
    waves = sum(
        np.sin(rng.uniform(0, 9) * np.arange(height)[:, None, None] / height + rng.uniform(0, 6, 3))
        * np.cos(rng.uniform(0, 9) * np.arange(width)[:, None] / width + rng.uniform(0, 6, 3))
        for _ in range(6)
    )
    return np.clip(128 + 40 * waves + rng.normal(0, noise, (height, width, 3)), 0, 255).astype(np.uint8)


def digest(values: np.ndarray, dtype: type) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, dtype).tobytes()).hexdigest()
