"""What combining costs: python tests/benchmarks/combine.py [--gigabytes 2] [--shards 64] [--folder FOLDER]

Writes committed shards of 256 x 256 pictures (256 codes and a text each), `--gigabytes` of them in all, and a run of
a quarter of that, then times whole processes in turns: the default combine of both runs (it links, so the bytes do
not matter), `--compact`, and `cp -r` of the shards, each followed by `sync`. The page cache is warm for all, and as
much memory as they need was just in use: a virtual machine takes seconds to get a gigabyte that it had given back.
FOLDER: where to write, by default a temporary folder; there must be room for three times the data.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from processes import timed

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from hpcdata.runs.paths import RunPaths
from hpcdata.shards.tables import EncodedBatch
from hpcdata.shards.takeover import open_shard
from tests import made

BYTES_A_SAMPLE = 640
BATCH = 512


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        shard_size = int(options.gigabytes * 1e9 / BYTES_A_SAMPLE / options.shards) // BATCH * BATCH or BATCH
        size = write_run(folder / "run", options.shards, shard_size)
        write_run(folder / "quarter", options.shards, shard_size // 4 // BATCH * BATCH or BATCH)
        combine = [sys.executable, "-m", "hpcdata.combine"]
        ways = {
            "combine": [*combine, folder / "run", f"--output_dir={folder / 'out'}"],
            "combine, a quarter of the bytes": [*combine, folder / "quarter", f"--output_dir={folder / 'out'}"],
            "combine --compact": [*combine, folder / "run", f"--output_dir={folder / 'out'}", "--compact"],
            "cp -r": ["cp", "-r", folder / "run/shards", folder / "out"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        rss: dict[str, float] = {}
        for _ in range(options.rounds):
            for name, command in ways.items():
                elapsed, peak = timed_with_sync([*map(str, command)], folder / "out", size)
                seconds[name].append(elapsed)
                rss[name] = max(rss.get(name, 0), peak)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {options.shards} shards, {size / 1e9:.2f} GB\n")
    print("| | s | MB of RSS | of cp -r |\n|---|---|---|---|")
    copy_s = statistics.median(seconds["cp -r"])
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(f"| {name} | {median:.2f} | {rss[name]:.0f} | {100 * copy_s / median:.0f} % |")
    return 0


def write_run(folder: Path, num_shards: int, shard_size: int) -> int:
    """Returns the bytes of its shards. The shards of a run all hold the same examples under other indices."""
    plan = made.plan(num_shards * shard_size, shard_size)
    paths = RunPaths(folder)
    paths.shards.mkdir(parents=True)
    paths.plan.write_bytes(plan.to_json())
    examples = [made.example(index, side=16) for index in range(BATCH)]
    for spec in plan.shards():
        writer = open_shard(paths.shards, plan.header(spec), "benchmark")
        assert writer is not None
        for start in range(spec.first, spec.first + spec.count, BATCH):
            numbered = [dataclasses.replace(example, index=start + row) for row, example in enumerate(examples)]
            writer.append(EncodedBatch(examples=numbered))
        writer.commit()
    return sum(path.stat().st_size for path in paths.shards.rglob("*") if path.is_file())


def timed_with_sync(command: Sequence[str], out: Path, num_bytes: int) -> tuple[float, float]:
    """Seconds until its output is on the disk, and the peak of its memory in MB."""
    subprocess.run([sys.executable, "-c", f"b'x' * {num_bytes}"], check=True)
    subprocess.run(["sync"], check=True)
    seconds, peak = timed(command, {"PYTHONPATH": str(ROOT)})
    started = time.perf_counter()
    subprocess.run(["sync"], check=True)
    seconds += time.perf_counter() - started
    shutil.rmtree(out)
    return seconds, peak


if __name__ == "__main__":
    sys.exit(main())
