"""What Liquid's data cost: python tests/benchmarks/liquid.py [--rows 40000] [--pictures 6] [--rounds 3] [--folder DIR]

Packing: pairs of 1,024 codes and a caption become Liquid's Hugging Face folder, shuffled, in 4 files.

    hpcdata       `hpcdata export --format liquid` of a dataset, the whole process
    map + save    `datasets` alone: map (texts and lists of codes -> the seven columns), shuffle, save_to_disk; of rows
                  that lie in Arrow already, without starting and loading; with one process and with two
    Liquid's way  load_dataset("json") of files that hold the columns already, shuffle, save_to_disk

Extraction: an array task on pictures of 512 pixels with Chameleon's network (random weights), with the settings of
`+experiments=liquid`, and as it is without them (`white`, ids of texts); and what a picture costs without the network.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from processes import timed

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

NUM_FILES = 4
MAP = """
import json, sys, time, datasets
rows, out, processes = datasets.load_from_disk(sys.argv[1]), sys.argv[2], int(sys.argv[3])
datasets.disable_progress_bars()
def columns(row):
    codes = json.dumps(row["vq_code"])
    return {"data_type": "image_text", "length": len(row["text"]) + 4 * len(row["vq_code"]), "vqcode_512": codes,
            "vqcode_multi768": "no", "width": "no", "height": "no"}
started = time.perf_counter()
made = rows.map(columns, remove_columns=["vq_code"], num_proc=processes if processes > 1 else None,
                load_from_cache_file=False)
made.shuffle(seed=42).save_to_disk(out, num_shards=4, num_proc=processes if processes > 1 else None)
print(time.perf_counter() - started)
"""
PACK = """
import sys, time, datasets
datasets.disable_progress_bars()
started = time.perf_counter()
rows = datasets.load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=sys.argv[2] + ".cache")
rows.shuffle(seed=42).save_to_disk(sys.argv[2], num_shards=4)
print(time.perf_counter() - started)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--pictures", type=int, default=6, help="0: packing alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args(arguments)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        packing(Path(temporary), options.rows, options.rounds)
        if options.pictures:
            preparing(options.rounds)
            extraction(Path(temporary), options.pictures, options.rounds)
    return 0


def packing(folder: Path, num_rows: int, rounds: int) -> None:
    write_rows(folder, num_rows)
    export = [sys.executable, "-m", "hpcdata.export", str(folder / "dataset")]
    ways: dict[str, Callable[[str], float]] = {
        "hpcdata": lambda out: timed([*export, out, "--format=liquid", f"--num-shards={NUM_FILES}"], {})[0],
        "map + save": lambda out: theirs(MAP, str(folder / "arrow"), out, "1"),
        "map + save, 2 processes": lambda out: theirs(MAP, str(folder / "arrow"), out, "2"),
        "Liquid's way": lambda out: theirs(PACK, str(folder / "rows.jsonl"), out),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    of_cpu: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for at, (name, way) in enumerate(ways.items()):
            before = os.times()
            seconds[name].append(way(str(folder / f"out-{number}-{at}")))
            after = os.times()
            used = after.children_user + after.children_system - before.children_user - before.children_system
            of_cpu[name].append(used)
            shutil.rmtree(folder / f"out-{number}-{at}")
    print(f"\npacking {num_rows:,} pairs   rows/s, hpcdata so many times;  CPU us a row, all of each process")
    for name, found in seconds.items():
        ratio = statistics.median(other / ours for other, ours in zip(found, seconds["hpcdata"], strict=True))
        cpu = 1e6 * statistics.median(of_cpu[name]) / num_rows
        print(f"{name:26} {num_rows / statistics.median(found):8,.0f}   {ratio:8.2f}   {cpu:8.0f}")


def theirs(code: str, *arguments: str) -> float:
    told = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return float(told.stdout.split()[-1])


def write_rows(folder: Path, num_rows: int) -> None:
    """The same rows as a dataset of ours, as Arrow, and as JSON lines in Liquid's columns."""
    import datasets

    from tests.loading import made

    rng = np.random.default_rng(0)
    codes = rng.integers(0, 8192, (num_rows, 1024)).astype(np.uint16)
    texts = [
        f"caption {row} of a picture, which has some {row % 97} words to say what is on it" for row in range(num_rows)
    ]
    data = [text.encode() for text in texts]
    part = folder / "dataset/parts/00000-of-00001"
    sizes = np.array([len(item) for item in data])
    count, ones = np.arange(num_rows), np.ones(num_rows, np.int64)
    columns: dict[str, tuple[Any, str]] = {
        "tokens/ids": (codes, "u2"),
        "spans/length": (1024 * ones, "i4"),
        "spans/kind": (ones, "u1"),
        "spans/grid": (np.full((num_rows, 2), 32), "i4"),
        "spans/flags": (8 * ones, "u1"),
        "samples/index": (count, "i8"),
        "samples/first_token": (1024 * count, "i8"),
        "samples/first_span": (count, "i8"),
        "samples/num_spans": (ones, "i4"),
        "samples/first_key": (0 * count, "i8"),
        "samples/first_text": (count, "i8"),
        "samples/num_texts": (ones, "i4"),
        "texts/first_byte": (np.cumsum(sizes) - sizes, "i8"),
        "texts/num_bytes": (sizes, "i8"),
        "texts/place": (0 * count, "i4"),
        "texts/flags": (8 * ones, "u1"),
        "raw/bytes": (np.frombuffer(b"".join(data), "u1"), "u1"),
    }
    for name, (values, dtype) in columns.items():
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        np.asarray(values, f"<{dtype}").tofile(part / f"{name}.memmap")
    counts = {"inputs": num_rows, "written": num_rows, "rejected": {}, "duplicate": 0, "missing": 0}
    counts |= {"truncated_texts": 0, "text_tokens": 0, "image_tokens": 1024 * num_rows, "images": num_rows}
    of_part = {"shard": 0, "content_digest": f"{0:064x}", "samples": num_rows, "spans": num_rows, "key_bytes": 0}
    dataset = made.make_dataset(
        folder / "dataset",
        [],
        counts=counts,
        text=None,
        image={**made.IMAGE, "codebook_size": 8192},
        layout={**made.LAYOUT, "resolution": 512},
        config={"text": {"keep_raw": True}, "data": {"sizes": None}},
    )
    manifest = json.loads((dataset / "manifest.json").read_text())
    manifest["parts"] = [{"path": "parts/00000-of-00001", "tokens": 1024 * num_rows, **of_part}]
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    datasets.disable_progress_bars()
    lists = datasets.Dataset.from_dict({"text": texts, "vq_code": list(codes.astype(np.int32))})
    lists.save_to_disk(str(folder / "arrow"))
    with open(folder / "rows.jsonl", "w") as file:
        for text, row in zip(texts, codes, strict=True):
            values = {"data_type": "image_text", "text": text, "length": len(text) + 4096}
            values |= {"vqcode_512": json.dumps(row.tolist()), "vqcode_multi768": "no", "width": "no", "height": "no"}
            file.write(json.dumps(values) + "\n")


def preparing(rounds: int) -> None:
    """A picture file to the pixels of the network."""
    from hpcdata.media import pixels
    from hpcdata.media.rules import LIQUID, WHITE

    print("\na picture of 1024 x 768 to 512 x 512, one thread   ms")
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (96, 128, 3), np.uint8)).resize((1024, 768), Image.Resampling.BICUBIC)
    for kind in ("JPEG", "PNG"):
        buffer = io.BytesIO()
        noise.save(buffer, kind)
        for name, rule, limit in (("white", WHITE, None), ("liquid", LIQUID, 2.0)):
            found = []
            for _ in range(10 * rounds):
                started = time.perf_counter()
                pixels.load(buffer.getvalue(), sizes=((512, 512),), max_pixels=2**24, rule=rule, max_aspect=limit)
                found.append(time.perf_counter() - started)
            print(f"{kind:6} {name:10} {1000 * statistics.median(found):8.1f}")


def extraction(folder: Path, num_pictures: int, rounds: int) -> None:
    write_pictures(folder / "pictures.tar", num_pictures)
    write_weights(folder / "vqgan.ckpt")
    common = [f"data.raw_data_dir={folder / 'pictures.tar'}", f"image.checkpoint={folder / 'vqgan.ckpt'}"]
    settings = {
        "without": ["+experiments=chameleon", "text.tokenizer=embedded"],
        "liquid": ["+experiments=liquid"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in settings}
    of_cpu: dict[str, list[float]] = {name: [] for name in settings}
    for number in range(rounds):
        for name, chosen in settings.items():
            out = folder / f"run-{name}-{number}"
            timed([sys.executable, "-m", "hpcdata.launch", *chosen, *common, f"data.token_output_dir={out}"], {})
            for held, value in zip((seconds, of_cpu), times_of(out), strict=True):
                held[name].append(value)
    print(f"\nextraction of {num_pictures} pictures, from claim to commit   pictures/s, CPU s a picture")
    for name, found in seconds.items():
        cpu = statistics.median(of_cpu[name]) / num_pictures
        print(f"{name:26} {num_pictures / statistics.median(found):8.3f} {cpu:8.3f}")
    for what, values in (("time", seconds), ("CPU", of_cpu)):
        ratio = statistics.median(a / b for a, b in zip(values["without"], values["liquid"], strict=True))
        print(f"by {what}, liquid is {ratio:.3f} times as fast")


def times_of(run: Path) -> tuple[float, float]:
    """Seconds from the claim of the one shard to its commit, and those of CPU."""
    from hpcdata.history.ledger import read_ledgers

    events = [event for _, found in read_ledgers(run / "ledger") for event in found]
    claim, commit = (next(item for item in events if item["event"] == name) for name in ("claim", "commit"))
    return float(commit["time"] - claim["time"]), float(commit["cpu_s"])


def write_pictures(path: Path, number: int) -> None:
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for at in range(number):
            noise = Image.fromarray(rng.integers(0, 255, (96, 128, 3), np.uint8)).resize((1024, 768))
            buffer = io.BytesIO()
            noise.save(buffer, "JPEG")
            for name, data in ((f"{at:03d}.jpg", buffer.getvalue()), (f"{at:03d}.txt", b"a picture " * 8)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def write_weights(path: Path) -> None:
    import torch

    from hpcdata.encoders.image.presets import PRESETS, VqganArchitecture
    from tests.encoders.image.vqgan_reference import random_weights

    architecture = PRESETS["chameleon"].architecture
    assert isinstance(architecture, VqganArchitecture)
    torch.save({"state_dict": random_weights(architecture, "taming")}, path)


if __name__ == "__main__":
    sys.exit(main())
