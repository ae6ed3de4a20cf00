"""Memory of the raw path. One command, one table a question.

    python tests/benchmarks/multimodal_memory.py [--only flat]

flat: resident memory while 100,000 examples are read, one after the other, from 100,000 records of JSON lines: three of
four are text, one has a picture of 64 pixels (one crop of 56); packed rows of 2,048, two threads. Every record is
another one; the window's lengths are found from headers, and kept, for up to 131,072 examples.
bound: the most resident memory, less that of the start, with pictures of 3000 x 4000, exact pixels, packed rows of
4,096 columns, four a batch, by `memory_mb` (each in a fresh process).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from hpcdata.multimodal import MolmoPreprocessorConfig, MultimodalLoader, get_dataset
from tests.benchmarks.multimodal import jpeg

NUMBER, EVERY = 100_000, 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["flat", "bound"], help="one part")
    parser.add_argument("--memory-mb", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_mb:
        _bound(options.data, options.memory_mb)
        return
    print(f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores\n")
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "bound":
            flat(Path(folder))
        if options.only != "flat":
            bound(Path(folder))


def flat(folder: Path) -> None:
    for number in range(100):
        (folder / f"{number}.jpg").write_bytes(jpeg(64 + number % 7, 64))
    lines = folder / "small.jsonl"
    rng = np.random.default_rng(0)
    with lines.open("w") as file:
        for number in range(NUMBER):
            said = " ".join(f"word{word}" for word in rng.integers(0, 1000, rng.integers(5, 60)))
            turns = [{"from": "human", "value": f"What is number {number}?"}, {"from": "gpt", "value": said}]
            record: dict[str, object] = {"conversations": turns}
            if number % 4 == 0:
                turns[0]["value"] = "<image>\n" + turns[0]["value"]
                record["image"] = f"{number // 4 % 100}.jpg"
            file.write(json.dumps(record) + "\n")
    config = MolmoPreprocessorConfig(
        tokenizer="embedded", max_crops=1, overlap_margins=(0, 0), base_image_input_size=(56, 56), output="patches"
    )
    dataset = get_dataset(lines)
    loader = MultimodalLoader(
        dataset, config.build_preprocessor(), global_batch_size=16, packing=2048, consumer="molmo", num_epochs=1,
        drop_last=False, rank=0, world_size=1, num_threads=2,
    )  # fmt: skip
    print("| examples | MB resident | ms of CPU an example |\n|---:|---:|---:|")
    wanted, began = EVERY, time.process_time()
    for _ in loader:
        if loader.num_samples >= wanted or loader.num_samples == NUMBER:
            print(f"| {loader.num_samples:,} | {_resident():.0f} | ", end="")
            print(f"{1000 * (time.process_time() - began) / loader.num_samples:.2f} |", flush=True)
            wanted += EVERY


def bound(folder: Path) -> None:
    (folder / "large.jpg").write_bytes(jpeg(3000, 4000))
    said = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Nothing."}]
    (folder / "large.jsonl").write_text((json.dumps({"image": "large.jpg", "conversations": said}) + "\n") * 240)
    print("\n| memory_mb | MB resident, most, beside the start |\n|---:|---:|")
    for number in (64, 512, 1024, 2048):
        command = [sys.executable, __file__, "--memory-mb", str(number), "--data", str(folder / "large.jsonl")]
        subprocess.run(command, check=True)


def _bound(data: Path, memory_mb: int) -> None:
    config = MolmoPreprocessorConfig(tokenizer="embedded", max_crops=12, output="patches")
    loader = MultimodalLoader(
        get_dataset(data), config.build_preprocessor(), global_batch_size=4, packing=4096, max_crops=44,
        consumer="molmo", num_epochs=1, memory_mb=memory_mb, rank=0, world_size=1, num_threads=2,
    )  # fmt: skip
    before = _resident()
    for _ in loader:
        time.sleep(0.5)  # a training that is slower: all that may be ahead is
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(f"| {memory_mb} | {most - before:.0f} |", flush=True)


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
