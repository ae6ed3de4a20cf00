"""The raw path beside what the originals do. One command, one table a question.

    python tests/benchmarks/multimodal.py [--only pictures] [--rounds 5]

pictures: decode + crops + patches of JPEGs like photographs (smooth shapes, some noise; quality 90, 4:2:0), in ms of
CPU of one thread, the least of the rounds, in turns. Exact and fast mode against the originals' steps, whose pixels are
compared with those of the exact mode (multimodal_peers.py). CLIP: 336 pixels, 12 tiles; SigLIP: 378 pixels, 8 tiles.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from hpcdata.media.opening import open_image
from hpcdata.media.rules import MOLMO
from hpcdata.multimodal.pictures import tiling
from hpcdata.multimodal.pictures.molmo import MolmoPictures
from hpcdata.multimodal.values import PictureTokens
from tests.benchmarks import multimodal_peers

SIZES = ((480, 640), (1080, 1920), (3000, 4000))
MAX_PIXELS = 2**30
TOKENS = PictureTokens(patch=1, start=2, end=3, col=4)
MODELS: dict[str, dict[str, Any]] = {
    "CLIP": {"crop_size": 336, "max_crops": 12},
    "SigLIP": {"crop_size": 378, "max_crops": 8, "resize": "siglip", "normalize": "siglip"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["pictures"], help="one part")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, ", end="")
    print(f"torch {version('torch')}, Pillow {version('pillow')}, NumPy {version('numpy')}\n")
    pictures(options.rounds)


def pictures(rounds: int) -> None:
    print("| picture | model | crops | originals | exact | times | fast | times |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for height, width in SIZES:
        data = jpeg(height, width)
        for name, settings in MODELS.items():
            exact, fast = (
                MolmoPictures(tokens=TOKENS, image_masks=True, pixels=kind, **settings) for kind in ("exact", "fast")
            )
            kind = "siglip" if name == "SigLIP" else "clip"
            grid = tiling.tiles(height, width, settings["crop_size"] - 112, 112, settings["max_crops"])
            theirs = lambda data=data, grid=grid, crop=settings["crop_size"], kind=kind: multimodal_peers.patches(  # noqa: E731
                multimodal_peers.load(data), grid, crop, kind
            )
            ours = [lambda made=made, data=data: made(_decoded(data)) for made in (exact, fast)]
            _require_equal(theirs()[0], exact(_decoded(data)).pixels, kind)
            original, of_exact, of_fast = _least_ms([theirs, *ours], rounds)
            ratios = (original, of_exact, original / of_exact, of_fast, original / of_fast)
            print(f"| {height} x {width} | {name} | {1 + grid[0] * grid[1]} | ", end="")
            print(" | ".join(f"{figure:.1f}" for figure in ratios) + " |", flush=True)


def _decoded(data: bytes) -> np.ndarray:
    return open_image(data, max_pixels=MAX_PIXELS, rule=MOLMO)


def jpeg(height: int, width: int) -> bytes:
    rng = np.random.default_rng(0)
    shapes = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(shapes.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    buffer = io.BytesIO()
    pixels = np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, subsampling="4:2:0")
    return buffer.getvalue()


def _require_equal(theirs: np.ndarray, ours: np.ndarray, kind: str) -> None:
    tolerance = 1 / 127 if kind == "siglip" else 2e-5
    if (worst := float(np.abs(theirs - ours).max())) > tolerance:
        sys.exit(f"the pixels differ by {worst}")


def _least_ms(tasks: list[Callable[[], object]], rounds: int) -> list[float]:
    least = [float("inf")] * len(tasks)
    for _ in range(rounds):
        for index, task in enumerate(tasks):
            began = time.thread_time()
            task()
            least[index] = min(least[index], 1000 * (time.thread_time() - began))
    return least


if __name__ == "__main__":
    main()
