"""Indexing and planning: python tests/benchmarks/index.py [--samples 100000] [--lines 10000000] [--folder FOLDER]

1. Tars of `--samples` samples in all, a picture of 20 KB and a text each: `hpcdata.index` and `widsindex create`
   (webdataset 0.2.111, unpacked beside the data if it is not there). The latter adds the md5sum of every tar, so
   `--checksums` is timed, too, and counting alone, which is what they have in common.
2. Memory of planning: JSON lines, `--lines` of them and a tenth of that.

Whole processes are timed in turns; the page cache is warm. FOLDER: where to write, by default a temporary folder.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from processes import timed

ROOT = Path(__file__).parent.parent.parent
NUM_TARS = 8
WIDS = "webdataset==0.2.111"
COUNT = "import glob, sys; from wids import wids; print(sum(map(wids.compute_num_samples, glob.glob(sys.argv[1]))))"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--lines", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        size = write_tars(folder, options.samples)
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder / "wids", WIDS],
            check=True,
        )
        tars, index = f"{folder}/*.tar", [sys.executable, "-m", "hpcdata.index", "-o", f"{folder}/index.json"]
        files = sorted(map(str, folder.glob("*.tar")))
        ways = {
            "hpcdata.index": [*index, tars],
            "hpcdata.index --checksums": [*index, "--checksums", tars],
            "widsindex create": [
                sys.executable,
                "-m",
                "wids.wids_index",
                "create",
                "-o",
                f"{folder}/wids.json",
                *files,
            ],
            "wids, counting alone": [sys.executable, "-c", COUNT, tars],
        }
        environment = {"PYTHONPATH": f"{ROOT}:{folder / 'wids'}"}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, command in ways.items():
                seconds[name].append(timed(command, environment)[0])
        machine = f"{platform.machine()}, {os.cpu_count()} cores"
        print(f"{machine}, {options.samples} samples in {NUM_TARS} tars, {size / 1e9:.2f} GB\n")
        print("| | s | samples a minute | hpcdata.index is |\n|---|---|---|---|")
        best = statistics.median(seconds["hpcdata.index"])
        for name, taken in seconds.items():
            median = statistics.median(taken)
            print(f"| {name} | {median:.2f} | {60 * options.samples / median:,.0f} | {median / best:.1f}x |")
        print("\n| planning | s | MB of RSS |\n|---|---|---|")
        for num_lines in (options.lines // 10, options.lines):
            taken_s, peak = timed(plan_command(folder, num_lines), environment)
            print(f"| {num_lines:,} lines | {taken_s:.1f} | {peak:.0f} |")
    return 0


def write_tars(folder: Path, num_samples: int) -> int:
    """Returns their bytes. Real pictures would only take longer to write: nobody here looks into them."""
    picture = os.urandom(20_000)
    for number in range(NUM_TARS):
        with tarfile.open(folder / f"{number:03}.tar", "w") as tar:
            for sample in range(number, num_samples, NUM_TARS):
                for suffix, data in ((".jpg", picture), (".txt", b"a caption of some length, as they are")):
                    member = tarfile.TarInfo(f"{sample:08}{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return sum(path.stat().st_size for path in folder.glob("*.tar"))


def plan_command(folder: Path, num_lines: int) -> list[str]:
    """Writes so many lines; what plans a run of them and does nothing else."""
    path = folder / f"{num_lines}.jsonl"
    block = b"".join(b'{"text": "line %d"}\n' % number for number in range(10_000))
    with open(path, "wb") as file:
        for _ in range(max(1, num_lines // 10_000)):
            file.write(block)
    code = (
        "import sys; from hpcdata.config.values import from_mapping; from hpcdata.runs.planning import prepare; "
        "data = dict(raw_data_dir=sys.argv[1], token_output_dir=sys.argv[2], source='text'); "
        "prepare(from_mapping(dict(data=data, text=dict(tokenizer='embedded'))))"
    )
    return [sys.executable, "-c", code, str(path), f"{folder}/run-{num_lines}"]


if __name__ == "__main__":
    sys.exit(main())
