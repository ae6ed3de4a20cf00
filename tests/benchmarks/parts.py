"""What the number of parts costs a loader in steady state: one command, one table.

    python tests/benchmarks/parts.py [--parts 1 100 2000 10000 ...] [--samples 1000000] [--seconds 3] [--rounds 5]
                                     [--folder DIR]

The same samples (64 to 192 ids, 16 bits) in more and more parts, shuffled, batches of 256, in one process with one
thread. Each row is timed in a process of its own after every part has been asked for once: what `open()` costs then,
it costs for ever. `joined` is how combine writes many parts; `separate` is how it did, and how few parts are. Opens are
files that were opened while it was timed, a sample. Samples of one second of CPU time, that of the kernel too, so that
a machine that is busy says nearly the same; all take turns, round by round, and the figure is the median.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

MEASURE = """
import json, sys, time
import numpy as np, torch
from hpcdata import TokenDataset, TokenLoader
from hpcdata.dataset import parts
from hpcdata.loading.layouts.named import Text

torch.set_num_threads(1)
opens, real = 0, parts.map_file
def counted(*args, **kwargs):
    global opens
    opens += 1
    return real(*args, **kwargs)
parts.map_file = counted
began = time.perf_counter()
dataset = TokenDataset(sys.argv[1])
layout = Text(max_length=192, keys=("input_ids",))
loader = iter(TokenLoader(dataset, global_batch_size=256, layout=layout, seed=1))
next(loader)
first = time.perf_counter() - began
for start in range(0, len(dataset), 4096):
    dataset.spans(np.arange(start, min(start + 4096, len(dataset))))
for _ in range(200):
    next(loader)
opens, steps, began = 0, 0, time.process_time()
while (taken := time.process_time() - began) < float(sys.argv[2]):
    next(loader)
    steps += 1
print(json.dumps({"rate": steps * 256 / taken, "opens": opens / (steps * 256), "first_ms": first * 1e3}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 100, 2000, 4500, 10_000])
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to make it; kept")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="hpcdata-parts-"))
    made = {(parts, name): folder / f"{parts}-{name}" for parts in options.parts for name in ("separate", "joined")}
    found: dict[tuple[int, str], list[dict[str, float]]] = {place: [] for place in made}
    try:
        for (num_parts, name), path in made.items():
            make_dataset(path, num_parts, options.samples, is_joined=name == "joined")
        for _ in range(options.rounds):
            for place, path in made.items():
                found[place].append(measure(path, options.seconds))
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{options.samples:,} samples, {os.cpu_count()} cores (load {os.getloadavg()[1]:.1f})")
    print("| parts | columns | samples/s | of the first row | opens a sample | first batch, ms |")
    print("|---:|---|---:|---:|---:|---:|")
    reference = None
    for (num_parts, name), rounds in found.items():
        median = {key: statistics.median(of_round[key] for of_round in rounds) for key in rounds[0]}
        reference = reference or median["rate"]
        print(
            f"| {num_parts:,} | {name} | {median['rate']:,.0f} | {median['rate'] / reference:.2f} "
            f"| {median['opens']:.3f} | {median['first_ms']:.0f} |"
        )


def measure(folder: Path, seconds: float) -> dict[str, float]:
    command = [sys.executable, "-c", MEASURE, str(folder), str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)


def make_dataset(folder: Path, num_parts: int, num_samples: int, *, is_joined: bool) -> None:
    """Every sample is one text."""
    import numpy as np

    sys.path.insert(0, str(ROOT))
    from hpcdata.base import sealed
    from hpcdata.dataset import joined
    from hpcdata.dataset.manifest import parse_manifest
    from hpcdata.shards.columns import columns

    if (folder / "manifest.json").exists():
        return
    rng, parts = np.random.default_rng(0), []
    edges = np.linspace(0, num_samples, num_parts + 1).astype(int).tolist()
    for part, (first, stop) in enumerate(itertools.pairwise(edges)):
        lengths = rng.integers(64, 193, stop - first)
        ends = np.cumsum(lengths)
        values = {
            "tokens/ids": rng.integers(0, 32000, int(ends[-1])),
            "spans/length": lengths,
            "spans/kind": np.zeros(len(lengths)),
            "spans/grid": np.zeros((len(lengths), 2)),
            "spans/flags": np.full(len(lengths), 8),
            "samples/index": np.arange(first, stop),
            "samples/first_token": ends - lengths,
            "samples/first_span": np.arange(stop - first),
            "samples/num_spans": np.ones(len(lengths)),
            "samples/first_key": np.arange(stop - first),
            "keys/bytes": np.full(len(lengths), 65),
        }
        for column in columns("uint16"):
            path = folder / f"parts/{part:06d}" / column.path
            path.parent.mkdir(parents=True, exist_ok=True)
            values[f"{column.table}/{column.name}"].astype(column.dtype).tofile(path)
        rows = {"samples": stop - first, "spans": stop - first, "tokens": int(ends[-1]), "key_bytes": stop - first}
        parts.append({"path": f"parts/{part:06d}", "shard": part, "content_digest": f"{part:064x}", **rows})
    manifest = {
        "format": "hpcdata-dataset-1",
        "fingerprint": "benchmark",
        "id_dtype": "uint16",
        "parts": parts,
        "counts": {"inputs": num_samples, "written": num_samples, "rejected": {}},
        "content_digest": "benchmark",
    }
    data = sealed.to_json(manifest)
    if is_joined:
        data = joined.join(folder, parse_manifest(data, folder)).to_json()
    (folder / "manifest.json").write_bytes(data)


if __name__ == "__main__":
    main()
