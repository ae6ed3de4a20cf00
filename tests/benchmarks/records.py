"""What exporting records costs: python tests/benchmarks/records.py [--pictures 20000] [--bytes 20000] [--folder FOLDER]

Writes tars of pairs (random bytes named .jpg, and captions), then times whole processes in turns: `copy.format=hf`
inline with its export, against the usual way with `datasets` (from_generator over the tars, map, save_to_disk); and the
exports of tars that are copied already, whose names are unique (hard links) or come again (rewritten), against `cp -r`.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from processes import timed

NUM_TARS = 8
ROOT = Path(__file__).parent.parent.parent
THEIRS = """
import sys, tarfile, glob
import datasets
def pairs(paths):
    for path in paths:
        with tarfile.open(path) as tar:
            data = None
            for member in tar:
                content = tar.extractfile(member).read()
                if member.name.endswith(".jpg"):
                    data, name = content, member.name
                else:
                    yield {"key": name, "image": {"bytes": data, "path": name}, "text": content.decode()}
features = datasets.Features({"key": datasets.Value("string"), "image": datasets.Image(decode=False),
                              "text": datasets.Value("string")})
made = datasets.Dataset.from_generator(pairs, features=features, gen_kwargs={"paths": sorted(glob.glob(sys.argv[1]))},
                                       cache_dir=sys.argv[2] + ".cache")
made = made.map(lambda row: {"text": row["text"].strip()})
made.save_to_disk(sys.argv[2])
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        for name in ("unique", "again"):
            write_tars(folder / name, options.pictures, options.bytes, is_unique=name == "unique")
            run(*in_turn(copying(folder / name, folder / f"{name} copied"), combining(folder / f"{name} copied")))
        rows, hf = folder / "rows", folder / "hf"
        two, hf2 = folder / "rows2", folder / "hf2"
        as_rows, by_two = ["copy.format=hf", "loader.batch_size=256"], ["cluster=local", "cluster.array=0-1"]
        ways = {
            "copy.format=hf, combine, export": in_turn(
                [*copying(folder / "unique", rows), *as_rows], combining(rows), export(rows, hf, "hf")
            ),
            "the same by two tasks": in_turn(
                [*copying(folder / "unique", two), *as_rows, *by_two], combining(two), export(two, hf2, "hf")
            ),
            "datasets: from_generator, map, save_to_disk": [
                *(sys.executable, "-c", THEIRS, f"{folder}/unique/*.tar", folder / "theirs")
            ],
            "export, webdataset, links": export(folder / "unique copied", folder / "a", "webdataset"),
            "export, energon, links": export(folder / "unique copied", folder / "b", "energon"),
            "export, energon, all but one tar renamed": export(folder / "again copied", folder / "c", "energon"),
            "cp -r of the tars": ["cp", "-r", folder / "unique", folder / "d"],
            "cp -r of the tars, and fsync": in_turn(
                ["cp", "-r", str(folder / "unique"), str(folder / "e")],
                ["sync", *(str(folder / "e" / f"{number:03d}.tar") for number in range(NUM_TARS))],
            ),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        rss: dict[str, float] = {}
        for _ in range(options.rounds):
            for name in ("rows", "hf", "rows2", "hf2", "theirs", "theirs.cache", "a", "b", "c", "d", "e"):
                shutil.rmtree(folder / name, ignore_errors=True)
            for name, line in ways.items():
                took, rss[name] = timed([str(word) for word in line], {"HF_HOME": str(folder / "hub")})
                seconds[name].append(took)
    report(options, seconds, rss)
    return 0


def write_tars(folder: Path, pictures: int, size: int, *, is_unique: bool, num_tars: int = NUM_TARS) -> None:
    folder.mkdir()
    rng = random.Random(0)
    for number in range(num_tars):
        with tarfile.open(folder / f"{number:03d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for item in range(pictures // num_tars):
                name = f"{number * is_unique:03d}{item:06d}"
                for ending, data in (("jpg", rng.randbytes(size)), ("txt", b"a caption of this picture")):
                    info = tarfile.TarInfo(f"{name}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def copying(source: Path, out: Path) -> list[str]:
    settings = [
        "stage=copy",
        "copy.decode=false",
        "text.tokenizer=none",
        "image.tokenizer=none",
        "data.shard_size=5000",
    ]
    return [
        *(sys.executable, "-m", "hpcdata", "launch"),
        f"data.raw_data_dir='{source}/*.tar'",
        f"data.token_output_dir='{out}'",
        *settings,
    ]


def combining(run: Path) -> list[str]:
    return [sys.executable, "-m", "hpcdata", "combine", str(run)]


def in_turn(*lines: list[str]) -> list[str]:
    return ["sh", "-c", " && ".join(map(shlex.join, lines))]


def export(dataset: Path, out: Path, name: str) -> list[str]:
    return [*(sys.executable, "-m", "hpcdata", "export"), str(dataset), str(out), "--format", name]


def run(*line: str) -> None:
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)


def report(options: argparse.Namespace, seconds: dict[str, list[float]], rss: dict[str, float]) -> None:
    gigabytes = options.pictures * options.bytes / 1e9
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{options.pictures} pairs, {gigabytes:.2f} GB; {machine}")
    for name, took in seconds.items():
        median = statistics.median(took)
        print(f"{name:46} {median:7.2f} s  {gigabytes * 1000 / median:8.0f} MB/s  {rss[name]:6.0f} MB")


if __name__ == "__main__":
    sys.exit(main())
