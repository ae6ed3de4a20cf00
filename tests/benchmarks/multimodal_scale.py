"""Packing and very many examples of the raw path. One command, one table a question.

    python tests/benchmarks/multimodal_scale.py [--only packing] [--folder DIR]

packing: which share of the columns and of the crops of packed rows is filled, and how long a window takes: of the real
lengths of openclipart and tuxpaint (CLIP 336, 12 tiles; captions as answers), and of a mix like LLaVA's (three quarters
with one picture of 1 to 12 tiles, a tenth with several, the rest text; lengths of texts lognormal). The crops' budget
is what the mix needs in the mean, and a tenth more; samples that are longer than a row are not there. The other one is
the greedy knapsack that Megatron-LM's multimodal example packs with, which has one budget, of tokens: each row takes
the longest sample that still fits, until none does.
opening: 10^8 measured examples in files full of holes, and the windows of an epoch of 10^7 whose measures are real
numbers (1 GB of columns), each in a fresh process.
"""

from __future__ import annotations

import argparse
import bisect
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.multimodal import MolmoPreprocessorConfig, get_dataset
from hpcdata.order.packing import BestFit
from hpcdata.samples import BadSample, Kind
from tests import corpora
from tests.multimodal.datasets.test_measured import very_large
from tests.smallruns import small_run

LENGTHS, WINDOWS = (4096, 8192, 16384), (1024, 4096, 16384)
NUM_MIXED = 65_536
OPEN = """
import sys, time, resource
import numpy as np
from hpcdata.multimodal.datasets.measured import MeasuredDataset
start = time.perf_counter()
dataset = MeasuredDataset(sys.argv[1])
opened = time.perf_counter()
dataset.measures(np.random.default_rng(0).integers(0, len(dataset), 1000))
looked = time.perf_counter()
held = int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
print(f"| {len(dataset):,} | {opened - start:.3f} | {looked - opened:.3f} | {held:.0f} |")
"""
PLAN = """
import sys, time
import numpy as np
from hpcdata.multimodal import MultimodalLoader, get_dataset
from tests.benchmarks.multimodal_scale import preprocessor
dataset, made = get_dataset(sys.argv[1]), preprocessor()
loader = MultimodalLoader(dataset, made, global_batch_size=64, packing=4096, max_crops=44, rank=0, world_size=1)
place = lambda lengths, grids, crops: loader.packing.place(lengths, grids, 1, crops)
times, used, size = [], [], loader.packing.window
for number in range(21):
    asked, cpu = time.perf_counter(), time.process_time()
    window = loader._steps.pack(loader.stream.draws(0, np.arange(number * size, (number + 1) * size)), place)
    times.append(time.perf_counter() - asked)
    used.append(time.process_time() - cpu)
assert window.bins.totals(window.all_rooms.num_tokens).max() <= 4096
held = int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
print(f"| {len(dataset):,} | {len(window.all_draws.rows):,} | {times[0]:.2f} | {sorted(times)[10]:.3f} "
      f"| {sorted(used)[10]:.3f} | {held:.0f} |")
"""


def main() -> None:
    parts: dict[str, Callable[[Path], None]] = {"packing": packing, "opening": opening}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(parts), help="one part")
    parser.add_argument("--folder", type=Path, help="for what is written: 1.2 GB; by default a temporary one")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores\n")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name, part in parts.items():
            if options.only in (None, name):
                part(Path(folder))


def preprocessor() -> Any:
    return MolmoPreprocessorConfig(tokenizer="embedded", max_crops=12, output="patches").build_preprocessor()


def packing(folder: Path) -> None:
    print(
        "| lengths | columns | crops a row | window | columns filled | crops filled | s a window "
        "| knapsack's columns | its crops, most |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name, (tokens, crops) in {"real": _real(folder), "LLaVA-like": _mixed()}.items():
        for length in LENGTHS:
            fits = tokens <= length
            need = length * crops[fits].sum() / tokens[fits].sum()
            for budget in (int(need), int(1.1 * need)):
                for window in WINDOWS:
                    _pack(name, tokens[fits], crops[fits], length, budget, window)


def _pack(name: str, tokens: np.ndarray, crops: np.ndarray, length: int, budget: int, window: int) -> None:
    packed = BestFit(length=length, max_images=budget, window=window)
    kept = crops <= budget
    tokens, crops = tokens[kept], crops[kept]
    rows, began = 0, time.thread_time()
    for start in range(0, len(tokens), window):
        part = slice(start, start + window)
        bins = packed.place(tokens[part], np.zeros(len(tokens[part]), np.int64), 1, crops[part])
        most = (bins.totals(tokens[part]).max(), bins.totals(crops[part]).max())
        if most[0] > length or most[1] > budget or len(bins.sample) != len(tokens[part]):
            sys.exit(f"a row has {most}, more than {length}, {budget}, or a sample is in no row")
        rows += bins.num_bins
    took = (time.thread_time() - began) / (len(tokens) / window)
    theirs = [
        row
        for start in range(0, len(tokens), window)
        for row in _knapsack(tokens[start : start + window], length, start)
    ]
    figures = (tokens.sum() / rows / length, crops.sum() / rows / budget)
    other = tokens.sum() / len(theirs) / length, max(int(crops[row].sum()) for row in theirs)
    print(
        f"| {name} | {length:,} | {budget} | {window:,} | {figures[0]:.4f} | {figures[1]:.4f} | {took:.3f} "
        f"| {other[0]:.4f} | {other[1]} |",
        flush=True,
    )


def _knapsack(tokens: np.ndarray, length: int, first: int) -> Iterator[list[int]]:
    order = (np.argsort(tokens, kind="stable") + first).tolist()
    sizes = np.sort(tokens).tolist()
    while sizes:
        row, left = [], length
        while sizes and (at := bisect.bisect_right(sizes, left)):
            left -= sizes.pop(at - 1)
            row.append(order.pop(at - 1))
        yield row


def _mixed() -> tuple[np.ndarray, np.ndarray]:
    """Tokens and crops of an example: [n] int64 each."""
    rng = np.random.default_rng(0)
    kind = rng.random(NUM_MIXED)
    text = np.clip(rng.lognormal(5.0, 0.9, NUM_MIXED), 16, 3000).astype(np.int64)
    crops = np.where(
        kind < 0.75, rng.integers(2, 14, NUM_MIXED), np.where(kind < 0.85, rng.integers(4, 20, NUM_MIXED), 0)
    )
    return text + 95 * crops, crops


def _real(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    found = [
        pair for corpus in ("openclipart", "tuxpaint") if corpora.available(corpus) for pair in corpora.pairs(corpus)
    ]
    if not found:
        sys.exit("install openclipart-png, openclipart-svg and tuxpaint-stamps-default: see tests/corpora.py")
    path = corpora.write_jsonl(found, folder / "real.jsonl")
    dataset, made = get_dataset(path, outside_images="read"), preprocessor()
    rooms = []
    for item in np.random.default_rng(0).permutation(len(dataset)).tolist():
        rng = np.random.RandomState(item)
        try:
            rooms.append(made.room(made.measure(dataset.get(item, rng), rng)))
        except BadSample:
            continue
    return (np.array([room.num_tokens for room in rooms]), np.array([room.num_crops for room in rooms]))


def opening(folder: Path) -> None:
    lines = folder / "one.jsonl"
    lines.write_text('{"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]}\n')
    run = folder / "run"
    small_run(run, "stage=measure", "image.tokenizer=null", "data.shard_size=2", source=lines)
    combine(run, CombineOptions())
    very_large(run, folder / "hundred", num_rows=10**8, num_files=1000)
    print("\n| examples | s to open | s for measures of 1,000 | MB resident |")
    print("|---:|---:|---:|---:|")
    _run(OPEN, folder / "hundred")
    very_large(run, folder / "ten", num_rows=10**7, num_files=1000)
    _fill(folder / "ten" / "dataset" / "columns", 10**7)
    print("\n| examples | of a window | s for the first | s for each | of CPU | MB resident |")
    print("|---:|---:|---:|---:|---:|---:|")
    _run(PLAN, folder / "ten")


def _run(code: str, run: Path) -> None:
    subprocess.run([sys.executable, "-c", code, str(run)], check=True, cwd=Path(__file__).parent.parent.parent)


def _fill(columns: Path, number: int) -> None:
    """Four rows an example: a picture, three turns."""
    rng, each = np.random.default_rng(0), 10**6
    kind = np.tile(np.array([Kind.IMAGE, Kind.TEXT, Kind.TEXT, Kind.TEXT], np.uint8), each)
    sizes = rng.integers(200, 2000, (each, 4, 2), dtype=np.int32)
    sizes[:, 1:] = np.stack([rng.integers(10, 200, (each, 3)), np.zeros((each, 3))], axis=2)
    sizes[:, 2, 1] = sizes[:, 2, 0] - 3
    first = 4 * np.arange(number, dtype=np.int64) % (4 * 32768)
    filled = {
        "samples/first_span": first,
        "samples/num_spans": np.full(number, 4, np.int32),
        "samples/num_shared": np.ones(number, np.int32),
        "spans/kind": np.tile(kind, number // each),
    }
    for name, values in filled.items():
        values.tofile(columns / f"{name}.memmap")
    with open(columns / "spans/size.memmap", "wb") as file:
        for _ in range(number // each):
            sizes.tofile(file)


if __name__ == "__main__":
    main()
