"""What batches cost that are as wide as their longest sample on all ranks: one command, one table.

    python tests/benchmarks/widths.py [--samples 400000] [--seconds 1] [--rounds 5] [--folder DIR]

A text of 64 to 192 ids a sample, shuffled, 256 rows on each rank, one thread. A rank looks up the lengths of all ranks'
samples, so the more ranks, the less it has left for its own. Samples are those of one rank, of one second of CPU time,
so that a machine that is busy says nearly the same. All take turns, round by round; the figure is the median.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

ROWS = 256
WORLD_SIZES = (1, 2, 8, 64)
PADS = ("max_len", "to_64", "batch_max")

sys.path.insert(0, str(Path(__file__).parent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=400_000)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to make it; kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="hpcdata-widths-"))
    try:
        found = measure(folder / "data", options)
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{options.samples:,} samples, {os.cpu_count()} cores (load {os.getloadavg()[1]:.1f})")
    print("| ranks | " + " | ".join(f"pad={pad}, samples/s" for pad in PADS) + " |")
    print("|---:|" + "---:|" * len(PADS))
    for world_size in WORLD_SIZES:
        print(f"| {world_size} | " + " | ".join(f"{found[world_size, pad]:,.0f}" for pad in PADS) + " |")


def measure(folder: Path, options: argparse.Namespace) -> dict[tuple[int, str], float]:
    from parts import make_dataset

    from hpcdata import TokenLoader
    from hpcdata.loading.layouts.named import Text

    make_dataset(folder, 1, options.samples, is_joined=False)
    loaders = {
        (world_size, pad): iter(
            TokenLoader(
                folder,
                global_batch_size=ROWS * world_size,
                layout=Text(max_length=192, keys=("input_ids",), pad=pad),
                rank=0,
                world_size=world_size,
            )
        )
        for world_size, pad in itertools.product(WORLD_SIZES, PADS)
    }
    rates: dict[tuple[int, str], list[float]] = {place: [] for place in loaders}
    for loader in loaders.values():
        for _ in range(20):
            next(loader)
    for _ in range(options.rounds):
        for place, loader in loaders.items():
            began, steps = time.process_time(), 0
            while (taken := time.process_time() - began) < options.seconds:
                next(loader)
                steps += 1
            rates[place].append(steps * ROWS / taken)
    return {place: statistics.median(found) for place, found in rates.items()}


if __name__ == "__main__":
    main()
