"""Exports of datasets of tokens, beside `cp` of the same bytes and beside `datasets.map` and `save_to_disk`.

    python tests/benchmarks/exports.py [--rows 400000] [--mean 1000] [--rounds 3] [--folder DIR]

Rows are texts of 1 to some thousands of uint16 ids, all in the page cache. Each figure is of this process, with all
that it imports loaded before, and both are durable when they end: `cp` is followed by fsync, as each piece of an export
is. In turns; the table has medians, and ratios within a round: MB/s, and CPU seconds of a GB, which other processes of
the machine disturb less.

    megatron    stage=export from plan to tokens.bin and tokens.idx, with eod, and its sha256     cp of tokens.bin
    hf          the same to an Arrow folder of int32                                  map(ids + eod), save_to_disk
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from hpcdata.cluster.passing.through import run_through
from hpcdata.config.compose import compose
from hpcdata.shards.columns import columns
from tests.loading import made


@dataclass(frozen=True, kw_only=True)
class Figure:
    mb_per_s: float
    cpu_s_per_gb: float


EOS, SHARE = 2, 8
"""datasets gets so small a part of the rows: it would take minutes."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--mean", type=int, default=1000, help="ids of a row")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="on the disk to be measured")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        folder = Path(scratch)
        whole, part = (
            write_dataset(folder / name, rows, options.mean)
            for name, rows in (("whole", options.rows), ("part", max(1, options.rows // SHARE)))
        )
        table = write_table(part, folder / "table")
        results = [measure_round(folder, whole, part, table) for _ in range(options.rounds)]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}; {options.rows:,} rows of {options.mean} ids")
    for name, other in (("megatron", "cp"), ("megatron, shuffled", "cp"), ("hf", "datasets")):
        print(f"{name:20} {other:10} {_figures(results, name, other)}")
    return 0


def _figures(results: Sequence[Mapping[str, Figure]], name: str, other: str) -> str:
    """MB/s of both and their ratio, CPU seconds of a GB of both."""
    pairs = [(result[name], result[other]) for result in results]
    ratio = statistics.median(ours.mb_per_s / theirs.mb_per_s for ours, theirs in pairs)
    speeds, costs = (
        [statistics.median(getattr(pair[side], field) for pair in pairs) for side in (0, 1)]
        for field in ("mb_per_s", "cpu_s_per_gb")
    )
    return f"{speeds[0]:6.0f} {speeds[1]:6.0f} MB/s {ratio:6.2f}   {costs[0]:6.2f} {costs[1]:6.2f} CPU s/GB"


def write_dataset(folder: Path, num_rows: int, mean: int) -> Path:
    """One part of texts, by numpy."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.exponential(mean, num_rows).astype(np.int64) + 1, 8 * mean)
    values = {
        "tokens/ids": rng.integers(0, 32000, int(lengths.sum()), np.uint16),
        "spans/length": lengths,
        "spans/kind": np.zeros(num_rows),
        "spans/grid": np.zeros((num_rows, 2)),
        "spans/flags": np.full(num_rows, 8),
        "samples/index": np.arange(num_rows),
        "samples/first_token": np.cumsum(lengths) - lengths,
        "samples/first_span": np.arange(num_rows),
        "samples/num_spans": np.ones(num_rows),
        "samples/first_key": np.arange(num_rows) * 8,
        "keys/bytes": np.frombuffer(b"".join(b"%08d" % row for row in range(num_rows)), np.uint8),
    }
    path = folder / "parts/00000-of-00001"
    for column in columns("uint16"):
        (path / column.path).parent.mkdir(parents=True, exist_ok=True)
        values[column.path.removesuffix(".memmap")].astype(column.dtype).tofile(path / column.path)
    entry = {"path": "parts/00000-of-00001", "shard": 0, "content_digest": "0" * 64, "samples": num_rows}
    entry |= {"spans": num_rows, "tokens": int(lengths.sum()), "key_bytes": 8 * num_rows}
    body = json.loads((made.make_dataset(folder / "like", [made.pairs(1)]) / "manifest.json").read_text())
    body |= {"image": None, "parts": [entry], "counts": body["counts"] | {"inputs": num_rows + 2, "written": num_rows}}
    (folder / "manifest.json").write_text(json.dumps(body))
    return folder


def write_table(part: Path, out: Path) -> Path:
    """The same ids as a folder of datasets, as somebody has them who has tokenized with it."""
    run(part, out, "hf", "export.eod=none")
    return out


def run(source: Path, out: Path, name: str, *overrides: str) -> None:
    line = ["stage=export", f"data.raw_data_dir={source}", f"data.token_output_dir={out}.run"]
    run_through(compose([*line, f"export.out={out}", f"export.format={name}", *overrides]))


def measure_round(folder: Path, whole: Path, part: Path, table: Path) -> dict[str, Figure]:
    out: dict[str, Figure] = {}
    for name, seed in (("megatron", "null"), ("megatron, shuffled", "1")):
        target, order = folder / f"megatron-{seed}", f"export.shuffle_seed={seed}"
        out[name] = rate(target, partial(run, whole, target, "megatron", order))
        if seed == "null":
            copied = target / "tokens.bin"
            copied.read_bytes()  # it was written past the page cache
            out["cp"] = rate(folder / "copy", partial(copy, copied, folder / "copy"))
        shutil.rmtree(target)
    os.unlink(folder / "copy")
    out["hf"] = rate(folder / "hf", partial(run, part, folder / "hf", "hf", "export.eod=eos"))
    out["datasets"] = rate(folder / "theirs", partial(by_datasets, table, folder / "theirs"))
    for name in ("hf", "theirs"):
        shutil.rmtree(folder / name)
    return out


def rate(target: Path, make: Callable[[], Any]) -> Figure:
    os.sync()  # what was removed before, too: each begins on a disk that has nothing left to do
    started, used = time.perf_counter(), _cpu_s()
    make()
    seconds, used = time.perf_counter() - started, _cpu_s() - used
    paths = [path for path in target.rglob("*") if path.is_file()] if target.is_dir() else [target]
    size = sum(path.stat().st_size for path in paths)
    return Figure(mb_per_s=size / 1e6 / seconds, cpu_s_per_gb=used * 1e9 / size)


def _cpu_s() -> float:
    """Of this process and its children, in their code and in the kernel."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--reflink=never", str(source), str(target)], check=True)
    with open(target, "rb") as file:
        os.fsync(file.fileno())


def by_datasets(table: Path, target: Path) -> None:
    import datasets

    datasets.disable_caching()
    datasets.disable_progress_bars()
    data = datasets.load_from_disk(str(table))
    made_of = data.map(lambda rows: {"input_ids": [[*ids, EOS] for ids in rows["input_ids"]]}, batched=True)
    made_of.save_to_disk(str(target))
    os.sync()


if __name__ == "__main__":
    sys.exit(main())
