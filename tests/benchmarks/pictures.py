"""Opening JPEGs whole, as the raw path does: Pillow against simplejpeg, the same bytes. One command, one table.

    python tests/benchmarks/pictures.py [--rounds 15] [--files GLOB ...]

Pictures: one like a photograph made here (smooth shapes, some noise) at three sizes, quality 90, 4:2:0; or `--files`.
Milliseconds are the least of the rounds, in turns, of one thread, until the array [H, W, 3] is there. The last columns
are the decoders alone, without the array: they tell why a tokenizer's pictures, which Pillow resizes, are left to it.
"""

from __future__ import annotations

import argparse
import glob
import io
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from hpcdata.media import jpeg
from hpcdata.media.opening import open_image

SIZES = ((512, 512), (1024, 1024), (4000, 3000))
MAX_PIXELS = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--files", nargs="*", default=[], help="JPEG files or globs")
    options = parser.parse_args()
    decoder = jpeg.the_decoder()
    if decoder is None:
        sys.exit("simplejpeg is not used here: pip install 'hpcdata[fast]'")
    print(f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, ", end="")
    print(f"Pillow {version('pillow')}, simplejpeg {version('simplejpeg')}, ms\n")
    print("| JPEG | Pillow | simplejpeg | ratio | decoder alone: Pillow | simplejpeg | ratio |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, data in _pictures(options.files):
        whole = _compared(partial(_whole, data, None), partial(_whole, data, decoder), options.rounds)
        alone = _compared(partial(_by_pillow, data), partial(decoder.decode, data, "RGB"), options.rounds)
        print(f"| {name} | {' | '.join(f'{figure:.2f}' for figure in (*whole, *alone))} |")


def _pictures(patterns: list[str]) -> Iterator[tuple[str, bytes]]:
    for path in sorted(path for pattern in patterns for path in glob.glob(pattern, recursive=True)):
        yield Path(path).name, Path(path).read_bytes()
    for width, height in () if patterns else SIZES:
        buffer = io.BytesIO()
        _photograph(width, height).save(buffer, "JPEG", quality=90, subsampling="4:2:0")
        yield f"{width} x {height}", buffer.getvalue()


def _photograph(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(0)
    shapes = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(shapes.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return Image.fromarray(np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8))


def _whole(data: bytes, decoder: jpeg.Decoder | None) -> np.ndarray:
    jpeg._found[:] = [decoder]
    return open_image(data, max_pixels=MAX_PIXELS)


def _by_pillow(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def _compared(slow: Callable[[], object], fast: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """(ms of the one, ms of the other, how many times faster it is). Exits where they differ."""
    times: dict[Callable[[], object], list[float]] = {slow: [], fast: []}
    for _ in range(rounds):
        for read, measured in times.items():
            started = time.perf_counter()
            read()
            measured.append(1000 * (time.perf_counter() - started))
    if not np.array_equal(np.asarray(slow()), np.asarray(fast())):
        sys.exit("the pixels differ")
    least = [min(measured) for measured in times.values()]
    return least[0], least[1], least[0] / least[1]


if __name__ == "__main__":
    main()
