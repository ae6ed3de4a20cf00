"""Parquet -> pictures and JSON, beside the way of the script that users come from. One command, one table.

    python tests/benchmarks/convert.py [--pictures 4000] [--group 100] [--folder DIR] [--no-original]
    python tests/benchmarks/convert.py --pictures 14000 --group 14000 --no-original     one row group of 2 GB

The script's way: `load_dataset("parquet")`, every picture decoded and encoded again (JPEG, quality 75), all records in
memory, and `json.dump` at the end; also without `datasets`, straight from Parquet. Reading alone: the same rows through
the same reader, and nothing done with them: what Parquet itself takes. Each runs in a process of its own, and what is
said is of all of it; memory is its peak.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFilter

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests.llava_tables import SCHEMA, row

SIDES = ((640, 480), (480, 640), (512, 512))
KINDS = 40
"""Different pictures; each row has bytes of its own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=4000)
    parser.add_argument("--group", type=int, default=100, help="rows of a row group")
    parser.add_argument("--folder", help="where to work (a temporary folder)")
    parser.add_argument("--no-original", action="store_true", help="leave the way of the script out")
    parser.add_argument("--only", choices=("make", "script", "plain", "read"), help="for what this starts")
    parser.add_argument("paths", nargs="*", help="for them as well")
    options = parser.parse_args()
    if options.only:
        {"make": make, "script": script, "plain": plain, "read": read}[options.only](*options.paths)
        return
    folder = Path(tempfile.mkdtemp(prefix="convert-", dir=options.folder))
    try:
        compare(folder, options)
    finally:
        shutil.rmtree(folder)


def compare(folder: Path, options: argparse.Namespace) -> None:
    source = folder / "train-00000-of-00001.parquet"
    own = [sys.executable, __file__, "--only"]
    subprocess.run([*own, "make", str(source), str(options.pictures), str(options.group)], check=True)
    size = source.stat().st_size
    stored = pq.ParquetFile(source).metadata.row_group(0).total_byte_size
    print(f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, ", end="")
    print(f"Pillow {version('pillow')}, pyarrow {version('pyarrow')}")
    print(f"{options.pictures} JPEGs in {size / 2**20:.0f} MiB, row groups of {stored / 2**20:.0f} MiB\n")
    print("| | s | pictures/s | CPU s | peak MB |\n|---|---:|---:|---:|---:|")
    command = [sys.executable, "-m", "hpcdata.convert", "llava-parquet", str(source)]
    lines = {
        "hpcdata convert, one process with two threads": [*command, str(folder / "out")],
        "hpcdata convert, decode=false": [*command, str(folder / "unseen"), "convert.decode=false"],
        "reading alone": [*own, "read", str(source)],
    }
    if not options.no_original:
        lines["the script's way"] = [*own, "script", str(source), str(folder / "script")]
        lines["the script's way without datasets"] = [*own, "plain", str(source), str(folder / "plain")]
    for name, line in lines.items():
        seconds, cpu_s, peak_mb = measured(line)
        rate = options.pictures / seconds
        print(f"| {name} | {seconds:.1f} | {rate:.0f} | {cpu_s:.1f} | {peak_mb:.0f} |", flush=True)


def measured(line: list[str]) -> tuple[float, float, float]:
    """(seconds, seconds of CPU, peak of its memory in MB)."""
    begin = time.perf_counter()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(said.decode())
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def make(path: str, pictures: str, rows_of_group: str) -> None:
    number, group = int(pictures), int(rows_of_group)
    kinds = [_photograph(seed) for seed in range(KINDS)]
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for start in range(0, number, group):
            rows = range(start, min(start + group, number))
            made = [row(f"{index:09d}", kinds[index % KINDS] + index.to_bytes(8, "big")) for index in rows]
            writer.write_table(pa.Table.from_pylist(made, SCHEMA), row_group_size=group)


def _photograph(seed: int) -> bytes:
    """Smooth shapes and some noise: about 120 KB."""
    rng, (width, height) = np.random.default_rng(seed), SIDES[seed % len(SIDES)]
    small = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2)))
    noisy = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(noisy).save(out, "JPEG", quality=90)
    return out.getvalue()


def script(source: str, out: str) -> None:
    import datasets

    text = datasets.Value("string")
    turns = [{"from": text, "value": text}]
    features = {"id": text, "image": datasets.Image(), "conversations": turns, "data_source": text}
    found = datasets.load_dataset(
        "parquet", data_files=source, split="train", cache_dir=f"{out}.cache", features=datasets.Features(features)
    )
    _rewrite(found, Path(out))


def plain(source: str, out: str) -> None:
    items = (item for batch in pq.ParquetFile(source).iter_batches() for item in batch.to_pylist())
    pictures = (item | {"image": Image.open(io.BytesIO(item["image"]["bytes"]))} for item in items)
    _rewrite(pictures, Path(out))


def _rewrite(items: Iterable[dict[str, Any]], folder: Path) -> None:
    (folder / "image").mkdir(parents=True)
    records = []
    for item in items:
        name = f"{item['id']}.jpg"
        item["image"].convert("RGB").save(folder / "image" / name)
        records.append({"id": item["id"], "image": name, "conversations": item["conversations"]})
    with open(folder / "data.json", "w") as file:
        json.dump(records, file, indent=4)


def read(source: str) -> None:
    from hpcdata.sources import InputFile, Options, scan
    from hpcdata.sources import read as rows_of
    from hpcdata.sources.base import RECORDS

    file = InputFile(path=source, label="x", format=RECORDS, base="/", roots=("/",))
    options = Options(needs_image=False, needs_text=False, keeps_members=True, notes_ids=True)
    found = scan(file, every=4096, options=options)
    for _ in rows_of(file, found, first=0, count=found.num_samples, options=options):
        pass


if __name__ == "__main__":
    main()
