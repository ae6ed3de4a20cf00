"""Opening 10^9 samples in 10^4 parts: one command, one table.

    python tests/benchmarks/opening.py [--runs 5] [--folder DIR]

The parts are sparse files of the right sizes (1.2 KB a sample, 1.2 TB altogether), so that nothing but the number of
parts and samples is real; ids read as zeros. Timed in a fresh process each time, imports done: opening the dataset,
making a shuffled loader, and its first batch of 256. Memory is what that adds (RssAnon). Mapped is page cache, shared
by all processes, of which the kernel maps 64 KiB around every access when it is there. Restoring a state in the middle
of epoch 1,000 and the batch there are timed behind it. In a folder that is kept, a second run is some milliseconds
faster: the kernel has written the access times of the files already.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
NUM_PARTS, SAMPLES, LENGTH = 10_000, 100_000, 600

MEASURE = """
import json, sys, time
import torch
from hpcdata import TokenDataset, TokenLoader
from hpcdata.loading.layouts.named import Text

def used(what):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(what)) / 1024

def make(folder):
    layout = Text(max_length=1024, keys=("input_ids", "attention_mask", "index"))
    return TokenLoader(TokenDataset(folder), global_batch_size=256, layout=layout, seed=int(sys.argv[3]))

torch.set_num_threads(1)
next(iter(make(sys.argv[2])))  # a small dataset: everything is imported
before, cached, start = used("RssAnon"), used("RssFile"), time.perf_counter()
loader = make(sys.argv[1])
opened = time.perf_counter()
batches = iter(loader)
next(batches)
first = time.perf_counter()
grown, mapped = used("RssAnon") - before, used("RssFile") - cached
open_parts = len(loader.dataset.maps._opened)
state = {**loader.state_dict(), "epoch": 1000, "step": 2_000_000}
again = time.perf_counter()
loader.load_state_dict(state)
restored = time.perf_counter()
next(batches)
print(json.dumps({
    "open_ms": (opened - start) * 1e3, "first_ms": (first - start) * 1e3, "memory_mib": grown,
    "mapped_mib": mapped, "open_parts": open_parts,
    "state_bytes": len(json.dumps(state)), "restore_ms": (restored - again) * 1e3,
    "batch_after_restore_ms": (time.perf_counter() - restored) * 1e3,
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to make it; kept")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="hpcdata-opening-"))
    try:
        make_dataset(folder / "billion", NUM_PARTS, SAMPLES)
        make_dataset(folder / "small", 2, 1000)
        found = [measure(folder, seed) for seed in range(options.runs + 1)][1 if options.runs > 1 else 0 :]
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    medians = {name: statistics.median(run[name] for run in found) for name in found[0]}
    print(
        f"{NUM_PARTS * SAMPLES:,} samples in {NUM_PARTS:,} parts, median of {len(found)} runs, {os.cpu_count()} cores"
    )
    print(
        "| | first batch, ms | memory, MiB | page cache mapped, MiB | parts opened | state, bytes "
        "| opening, ms | restore, ms | batch there, ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    names = (
        "first_ms",
        "memory_mib",
        "mapped_mib",
        "open_parts",
        "state_bytes",
        "open_ms",
        "restore_ms",
        "batch_after_restore_ms",
    )
    print("| first batch of 256 | " + " | ".join(f"{medians[name]:.1f}" for name in names) + " |")


def measure(folder: Path, seed: int) -> dict[str, float]:
    command = [sys.executable, "-c", MEASURE, str(folder / "billion"), str(folder / "small"), str(seed)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)


def make_dataset(folder: Path, num_parts: int, samples: int) -> None:
    """Every sample is one text. Offsets and lengths are real in the first part, and links to it in the others."""
    import numpy as np

    sys.path.insert(0, str(ROOT))
    from hpcdata.shards.columns import columns

    if (folder / "manifest.json").exists():
        return
    rows = {"tokens": samples * LENGTH, "spans": samples, "samples": samples, "keys": samples}
    real = {
        "spans/length.memmap": np.full(samples, LENGTH, "<i4"),
        "samples/first_token.memmap": np.arange(samples, dtype="<i8") * LENGTH,
        "samples/first_span.memmap": np.arange(samples, dtype="<i8"),
        "samples/num_spans.memmap": np.ones(samples, "<i4"),
    }
    first = folder / "parts" / "00000"
    for part in range(num_parts):
        own = folder / "parts" / f"{part:05d}"
        for column in columns("uint16"):
            file = own / column.path
            file.parent.mkdir(parents=True, exist_ok=True)
            if column.path in real and part:
                os.link(first / column.path, file)
            elif column.path in real:
                real[column.path].tofile(file)
            else:
                with open(file, "wb") as sparse:
                    sparse.truncate(rows[column.table] * column.row_bytes)
    sizes = {"samples": samples, "spans": samples, "tokens": samples * LENGTH, "key_bytes": samples}
    manifest = {
        "format": "hpcdata-dataset-1",
        "fingerprint": "benchmark",
        "id_dtype": "uint16",
        "parts": [
            {"path": f"parts/{part:05d}", "shard": part, "content_digest": f"{part:064x}", **sizes}
            for part in range(num_parts)
        ],
        "counts": {"inputs": samples * num_parts, "written": samples * num_parts, "rejected": {}},
        "content_digest": "benchmark",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


if __name__ == "__main__":
    main()
