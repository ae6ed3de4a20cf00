"""Data that is not in memory, in block order: one command, one table.

    python tests/benchmarks/cold.py [--gib 2] [--rounds 3] [--folder DIR]

1.5 KB samples. Before every measurement the kernel is told to forget the files, which costs no rights. `sequential` is
the limit: `read` of the ids from one end to the other, 8 MiB at a time. The others are an epoch of a TokenLoader, its
bytes of ids per second; one that reads other bytes as well, or waits between two reads, is below the limit.

Every round measures all ways, each time another one first, and the last column is the median of the rounds' own ratios:
what else the machine does changes more from one minute to the next than the ways differ. In a virtual machine, memory
that was not in use for some seconds must be given by the host again, page by page, which is slower than a fast disk and
slows all ways down. `--touch GIB` uses as much memory before every measurement: then the disk is the limit.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent.parent
NUM_PARTS, LENGTH = 16, 768
WAYS = ("sequential", "blocks", "blocks, 2 threads", "order of the dataset", "shuffled")
_SHUFFLED_SECONDS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=2, help="of ids")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--touch", type=float, default=0, metavar="GIB", help="memory to use before each measurement")
    parser.add_argument("--folder", type=Path, help="where to make it; kept")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(measure(options.folder, options.way, int(options.touch * 2**30)))
        return
    folder = options.folder or Path(tempfile.mkdtemp(prefix="hpcdata-cold-"))
    try:
        make(folder, int(options.gib * 2**30) // (2 * LENGTH))
        rates: dict[str, list[float]] = {way: [] for way in WAYS}
        for first in range(options.rounds):
            for at in range(len(WAYS)):
                way = WAYS[(first + at) % len(WAYS)]
                rates[way].append(in_process(folder, way, options.touch))
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    medians = {way: statistics.median(found) for way, found in rates.items()}
    print(f"{options.gib} GiB of ids, median of {options.rounds} rounds (load {os.getloadavg()[0]:.1f})\n")
    print("| cold | MB/s (lowest-highest) | samples/s | of sequential |\n|---|---|---|---|")
    for way, rate in medians.items():
        print(
            f"| {way} | {rate / 1e6:.0f} ({min(rates[way]) / 1e6:.0f}-{max(rates[way]) / 1e6:.0f}) | "
            f"{rate / LENGTH / 2:,.0f} | {_ratio(rates[way], rates['sequential']):.2f} |"
        )


def _ratio(rates: list[float], limits: list[float]) -> float:
    return statistics.median(rate / limit for rate, limit in zip(rates, limits, strict=True))


def make(folder: Path, num_samples: int) -> None:
    if not (folder / "manifest.json").exists():
        from loader import make_dataset

        lengths = np.full(num_samples, LENGTH)
        ids = np.random.default_rng(0).integers(0, 2**16, LENGTH * num_samples, np.uint16)
        make_dataset(folder, ids, lengths, NUM_PARTS)
        os.sync()


def in_process(folder: Path, way: str, touch_gib: float) -> float:
    for file in folder.rglob("*.memmap"):
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    command = [sys.executable, __file__, "--folder", str(folder), "--way", way, "--touch", str(touch_gib)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)


def measure(folder: Path, way: str, num_touched: int) -> float:
    """Bytes of ids a second."""
    if way == "sequential":
        _touch(num_touched)
        return _read(sorted(folder.rglob("ids.memmap")))
    import torch

    from hpcdata import BackgroundLoader, Text, TokenLoader

    torch.set_num_threads(1)  # and is imported before the clock starts

    order = {"order of the dataset": "sequential", "shuffled": "shuffled"}.get(way, "blocks")
    layout = Text(max_length=LENGTH, ids="uint16", keys=("input_ids",))
    loader = TokenLoader(folder, global_batch_size=256, layout=layout, order=order, num_epochs=1)
    batches = iter(BackgroundLoader(loader, num_threads=2) if "threads" in way else loader)
    _touch(num_touched)
    num_bytes, start = 0, time.perf_counter()
    for batch in batches:
        num_bytes += 2 * LENGTH * len(batch["input_ids"])
        if way == "shuffled" and time.perf_counter() - start > _SHUFFLED_SECONDS:
            break
    return num_bytes / (time.perf_counter() - start)


def _touch(num_bytes: int) -> None:
    """Gives it back at once; what is read next is put there."""
    if num_bytes:
        np.ones(num_bytes, np.uint8)


def _read(files: list[Path]) -> float:
    buffer = bytearray(2**23)
    num_bytes, start = 0, time.perf_counter()
    for path in files:
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while count := file.readinto(buffer):
                num_bytes += count
    return num_bytes / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
