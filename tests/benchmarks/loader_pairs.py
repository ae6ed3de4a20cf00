"""Loaders beside each other in one process, one thread each: processor time, a few batches of each in turn.

    python tests/benchmarks/loader_pairs.py DATA SCRATCH fixed_rows,hpcdata,hpcdata_baked [--turns 50]

DATA is a folder that loader.py has made (SCRATCH/data-100000). On a machine where others work, rates by the clock are
those of the scheduler; here each turn of a loader is compared with that of the first one just before it. The figure is
the median of these ratios. Imports what the loaders import, so peers with environments of their own need theirs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import loader_peers
import torch

BATCHES_A_TURN = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("peers", help="names of loader.py; the others are compared with the first")
    parser.add_argument("--turns", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)
    loaders = {}
    for name in options.peers.split(","):
        (options.scratch / name).mkdir(parents=True, exist_ok=True)
        loaders[name] = loader_peers.PEERS[name](options.data, options.scratch / name, 0)
        for _ in range(40):
            next(loaders[name])
    spent: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(options.turns):
        for name, batches in loaders.items():
            batch = next(batches)
            begun, samples = time.thread_time(), 0
            for _ in range(BATCHES_A_TURN):
                batch = next(batches)  # held until the next one is there, as in a training loop
                samples += len(batch)
            spent[name].append((time.thread_time() - begun) / samples)
    first = next(iter(spent.values()))
    print(f"| loader | ns of a processor a sample | times as fast as {next(iter(spent))} |\n|---|---:|---:|")
    for name, seconds in spent.items():
        ratio = statistics.median(theirs / ours for theirs, ours in zip(first, seconds, strict=True))
        print(f"| {name} | {1e9 * statistics.median(seconds):.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
