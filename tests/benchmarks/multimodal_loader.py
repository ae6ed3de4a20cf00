"""The whole raw path beside a torch DataLoader and Megatron-Energon. One command, one table.

    python tests/benchmarks/multimodal_loader.py [--rounds 5] [--energon ENVIRONMENT/bin/python]

Pictures and conversations -> batches for Molmo (CLIP 336, 12 tiles, patches and pooled indices), two threads
here, two worker processes there (`multimodal_loader_peers.py`), each in a process of its own, in turns; the same
pictures, whose tokens and pixels are compared before. Sides run one after the other: on a busy machine CPU seconds say
more than wall time.
Memory is in `multimodal_memory.py`, packing and very many examples in `multimodal_scale.py`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import hpcdata.embedded
from hpcdata.multimodal import MolmoPreprocessorConfig, MultimodalLoader, get_dataset
from tests import corpora
from tests.benchmarks import multimodal_loader_peers as peers
from tests.benchmarks.multimodal import jpeg

SIZES = ((480, 640), (480, 640), (640, 480), (1080, 1920), (480, 640), (800, 600), (480, 640), (3000, 4000))
COLUMNS, ROWS, CROPS = 4096, 4, 44
_HERE = str(Path(__file__))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--energon", default="", help="the Python of an environment that has megatron-energon")
    parser.add_argument("--serve", choices=["exact", "fast"], help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.serve:
        _serve(options.serve, options.data)
    print(f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, ", end="")
    print(f"torch {version('torch')}, Pillow {version('pillow')}, NumPy {version('numpy')}\n")
    loader(options)


def loader(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        _write(data, number=400)
        _require_equal(data)
        sides = {
            "originals, torch DataLoader": [sys.executable, peers.__file__, "dataloader", folder],
            "hpcdata, exact": [sys.executable, _HERE, "--serve", "exact", "--data", folder],
            "hpcdata, fast": [sys.executable, _HERE, "--serve", "fast", "--data", folder],
        }
        if options.energon:
            sides["originals, Megatron-Energon"] = [options.energon, peers.__file__, "energon", folder]
        found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, command in sides.items():
                told = subprocess.run(command, check=True, capture_output=True, text=True, env=_one_thread()).stdout
                found[name].append(json.loads(told.splitlines()[-1]))
        print("| loader | examples/s | ms of CPU an example | times, by wall | times, by CPU |")
        print("|---|---:|---:|---:|---:|")
        base = found["originals, torch DataLoader"]
        for name, runs in found.items():
            figures = [1 / _median(run["wall_s"] for run in runs), 1000 * _median(run["cpu_s"] for run in runs)]
            figures += [
                _median(b[kind] / r[kind] for b, r in zip(base, runs, strict=True)) for kind in ("wall_s", "cpu_s")
            ]
            print(f"| {name} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |", flush=True)


def _median(values: Any) -> float:
    return statistics.median(list(values))


def _one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _preprocessor(pixels: str) -> Any:
    config = MolmoPreprocessorConfig(
        tokenizer="embedded", max_crops=peers.MAX_CROPS, output="patches", image_masks=True, pixels=pixels
    )
    return config.build_preprocessor()


def _serve(pixels: str, data: Path) -> None:
    made = MultimodalLoader(
        get_dataset(data / "examples.jsonl"),
        _preprocessor(pixels),
        global_batch_size=ROWS,
        packing=COLUMNS,
        max_crops=CROPS,
        consumer="molmo",
        rank=0,
        world_size=1,
        num_threads=2,
    )

    def numbers() -> Iterator[int]:
        before = 0
        for _ in made:
            yield made.num_samples - before
            before = made.num_samples

    peers.measured(numbers(), 20)


def _write(data: Path, number: int) -> None:
    """Of eight pictures one is large, one middling, and four of the next forty are of the corpora, where they are."""
    words = hpcdata.embedded.TOKENIZER
    ids = {"bos": 0, "eos": 1, "start": 4096, "end": 4097, "patch": 4098, "col": 4099}
    (data / "tokens.json").write_text(json.dumps({"ids": ids, "tokenizer": str(hpcdata.embedded.path(words))}))
    drawn = {size: jpeg(*size) for size in set(SIZES)}
    real = [
        pair for corpus in ("openclipart", "tuxpaint") if corpora.available(corpus) for pair in corpora.pairs(corpus)
    ]
    rng = np.random.default_rng(0)
    chosen = [real[at] for at in rng.permutation(len(real))[: number // 4]]
    pictures = [
        (drawn[size], "A picture of shapes without a name, in colors that nobody chose.")
        for size in islice(cycle(SIZES), number - len(chosen))
    ]
    pictures += [(pair.image.read_bytes(), pair.caption) for pair in chosen if _is_small(pair.image)]
    (data / "energon").mkdir()
    with (data / "examples.jsonl").open("w") as file, tarfile.open(data / "energon" / "examples.tar", "w") as tar:
        for at, (picture, caption) in enumerate(pictures):
            turns = _turns(caption, int(rng.integers(1, 6)))
            (data / f"{at}.jpg").write_bytes(picture)
            file.write(json.dumps({"image": f"{at}.jpg", "conversations": turns}) + "\n")
            for name, content in ((f"{at:06d}.jpg", picture), (f"{at:06d}.json", json.dumps(turns).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def _is_small(path: Path) -> bool:
    with Image.open(path) as image:
        return image.width * image.height < 2**24


def _turns(caption: str, number: int) -> list[dict[str, str]]:
    turns = []
    for turn in range(number):
        question = "What does this picture show? Say it in one or two sentences."
        turns.append({"from": "human", "value": question if turn else f"<image>\n{question}"})
        turns.append({"from": "gpt", "value": caption})
    return turns


def _require_equal(data: Path) -> None:
    """Both sides make the same tokens, weights, indices, and pixels to the rounding of float32."""
    dataset, ours, theirs = get_dataset(data / "examples.jsonl"), _preprocessor("exact"), peers.Originals(data)
    lines = (data / "examples.jsonl").read_text().splitlines()
    for item in (*range(16), *range(len(lines) - 16, len(lines))):
        record, rng = json.loads(lines[item]), np.random.RandomState(0)
        expected = theirs((data / record["image"]).read_bytes(), record["conversations"])
        made = ours(dataset.get(item, rng), rng)
        for name, values in expected.items():
            if values.dtype != np.float32:
                np.testing.assert_array_equal(values, made[name], err_msg=name)
            else:
                np.testing.assert_allclose(values, made[name], atol=2e-5, err_msg=name)


if __name__ == "__main__":
    main()
