"""What the number of sources of a mixture costs its loader: one command, one table.

    python tests/benchmarks/mixtures.py [--sources 2 20 100] [--samples 400000] [--seconds 0.5] [--rounds 7]
                                        [--folder DIR]

The same number of texts of 64 to 192 ids in 2, 20 and 100 datasets of unequal weights, shuffled, batches of 256 rows
and of one, one thread. `not turned`: without what shows every rank every source (hpcdata.order.steps.RowSteps).
`order`: the rows of the batches alone, without reading them. Samples of one second of CPU time, so that a machine that
is busy says nearly the same; all take turns, round by round, and the figure is the median.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

BATCHES = (256, 1)

sys.path.insert(0, str(Path(__file__).parent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, nargs="+", default=[2, 20, 100])
    parser.add_argument("--samples", type=int, default=400_000)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where to make them; kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="hpcdata-mixtures-"))
    try:
        found = measure(folder, options)
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{options.samples:,} samples, {os.cpu_count()} cores (load {os.getloadavg()[1]:.1f})")
    print("| rows of a batch | sources | loader, samples/s | of the first | not turned | order alone | not turned |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for size in BATCHES:
        first = found["loader", size, options.sources[0], True]
        for number in options.sources:
            of_loader = found["loader", size, number, True]
            rest = [found["loader", size, number, False], *(found["order", size, number, turned] for turned in (1, 0))]
            figures = " | ".join(f"{rate:,.0f}" for rate in rest)
            print(f"| {size} | {number} | {of_loader:,.0f} | {of_loader / first:.2f} | {figures} |")


def measure(folder: Path, options: argparse.Namespace) -> dict[tuple[str, int, int, bool], float]:
    loops: dict[tuple[str, int, int, bool], Iterator[int]] = {}
    for number in options.sources:
        mixture = make_mixture(folder / str(number), number, options.samples)
        for size in BATCHES:
            for turned in (True, False):
                loops["loader", size, number, turned] = delivered(make_loader(mixture, size, turned=turned))
                loops["order", size, number, turned] = ordered(make_loader(mixture, size, turned=turned))
    rates: dict[tuple[str, int, int, bool], list[float]] = {place: [] for place in loops}
    for loop in loops.values():
        run(loop, options.seconds / 4)
    for _ in range(options.rounds):
        for place, loop in loops.items():
            rates[place].append(run(loop, options.seconds))
    return {place: statistics.median(found) for place, found in rates.items()}


def run(loop: Iterator[int], seconds: float) -> float:
    began, num_samples = time.process_time(), 0
    while (taken := time.process_time() - began) < seconds:
        num_samples += next(loop)
    return num_samples / taken


def delivered(loader: Any) -> Iterator[int]:
    for batch in loader:
        yield len(batch["input_ids"])


def ordered(loader: Any) -> Iterator[int]:
    from hpcdata.order.steps import Share

    steps, step = loader._steps, 0
    while True:
        positions, edges = steps.ahead(0, step, Share())
        yield len(steps.stream.draws(0, positions).rows)
        step += len(edges) - 1


def make_mixture(folder: Path, number: int, num_samples: int) -> Any:
    from parts import make_dataset

    from hpcdata import Mixture, Source

    sources = []
    for at, share in enumerate(np.linspace(0.5, 1.5, number) / number):
        make_dataset(folder / str(at), 1, int(share * num_samples), is_joined=False)
        sources.append(Source(dataset=folder / str(at), name=str(at), weight=1 + at % 5))
    return Mixture(sources)


def make_loader(mixture: Any, size: int, *, turned: bool) -> Any:
    from hpcdata import TokenLoader
    from hpcdata.loading.layouts.named import Text

    layout = Text(max_length=192, keys=("input_ids",))
    loader = TokenLoader(mixture, global_batch_size=size, layout=layout, rank=0, world_size=1)
    state = loader.state_dict()
    if not turned:
        del state["settings"]["order_of_steps"]
    loader.load_state_dict(state)
    return loader


if __name__ == "__main__":
    main()
