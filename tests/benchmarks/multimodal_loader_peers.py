"""A torch DataLoader and Megatron-Energon that do with an example what the originals do, see shared/MOLMO.md.

    python tests/benchmarks/multimodal_loader_peers.py DATALOADER|ENERGON DATA [--batches 40]

Two worker processes each: Pillow, the steps of `multimodal_peers`, a tokenizer turn by turn, indices by NumPy, and a
batch that is padded to the most an example may have (`to_max`). Prints one line of JSON. Needs torch, NumPy, Pillow and
tokenizers; energon also what `requirements-energon.txt` has.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests.benchmarks import multimodal_peers

CROP, MAX_CROPS, SEQUENCE = 336, 12, 2304
BATCH = 8
_SIDE, _MARGIN, _POOL = 24, 4, 2
_WINDOW = _SIDE - 2 * _MARGIN
_MOST_POOLED = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=["dataloader", "energon"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--batches", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = from_energon if options.peer == "energon" else from_dataloader
    measured((len(batch["input_ids"]) for batch in start(options.data)), options.batches)


def measured(examples: Iterable[int], num_batches: int) -> None:
    """examples: of each batch. Prints wall and CPU seconds an example of all processes, but for those of the start."""
    numbers = iter(examples)
    for _ in range(4):  # what was made ahead while it started
        next(numbers)
    began, used = time.perf_counter(), cpu_seconds()
    number = sum(next(numbers) for _ in range(num_batches))
    wall_s, cpu_s = time.perf_counter() - began, cpu_seconds() - used
    print(json.dumps({"examples": number, "wall_s": wall_s / number, "cpu_s": cpu_s / number}), flush=True)
    os._exit(0)


def cpu_seconds() -> float:
    """Of this process and those below it."""
    parents, ticks = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(folder.name)], ticks[int(folder.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    mine = {os.getpid()}
    for _ in range(8):
        mine |= {pid for pid, parent in parents.items() if parent in mine}
    return sum(ticks[pid] for pid in mine) / os.sysconf("SC_CLK_TCK")


class Originals:
    """One example at a time: what their preprocessor does."""

    def __init__(self, data: Path) -> None:
        told = json.loads((data / "tokens.json").read_text())
        self._ids: dict[str, int] = told["ids"]
        self._path: str = told["tokenizer"]
        self._tokenizer: Tokenizer | None = None

    def __call__(self, picture: bytes, turns: list[dict[str, str]]) -> dict[str, np.ndarray]:
        image = multimodal_peers.load(picture)
        grid = _tiling(image.shape[0], image.shape[1])
        images, masks = multimodal_peers.patches(image, grid, CROP, "clip")
        block, pooled = self._block(grid)
        ids, learned = [[self._ids["bos"]]], [np.zeros(1)]
        for number, turn in enumerate(turns):
            space = " " if number else ""
            if turn["from"] == "gpt":
                parts = [np.array([*self._encode(" " + turn["value"]), self._ids["eos"]])]
            else:
                before, _, text = turn["value"].rpartition("<image>")
                assert not before
                parts = [np.array(self._encode(f"{space}User: "))]
                if "<image>" in turn["value"]:
                    parts += [block, np.array(self._encode(f"{text} Assistant:"))]
                else:
                    parts = [np.array(self._encode(f"{space}User: {text} Assistant:"))]
            for part in parts:
                ids.append(part)
                learned.append(np.full(len(part), turn["from"] == "gpt"))
        row, weights = np.concatenate(ids).astype(np.int64), np.concatenate(learned).astype(np.float32)
        return {
            "input_ids": row[:-1],
            "labels": row[1:],
            "loss_masks": weights[1:],
            "position_ids": np.arange(len(row) - 1),
            "images": images,
            "image_masks": masks,
            "pooled_patches_idx": pooled,
        }

    def _encode(self, text: str) -> list[int]:
        if self._tokenizer is None:  # in the worker that uses it
            self._tokenizer = Tokenizer.from_file(self._path)
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _block(self, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        whole = _pooled(np.arange(_SIDE**2).reshape(_SIDE, _SIDE))
        stitched = np.full((grid[0] * _WINDOW + 2 * _MARGIN, grid[1] * _WINDOW + 2 * _MARGIN), -1)
        for row in range(grid[0]):
            for column in range(grid[1]):
                crop = 1 + row * grid[1] + column
                patches = np.arange(_SIDE**2).reshape(_SIDE, _SIDE) + crop * _SIDE**2
                top, left = _MARGIN * (row > 0), _MARGIN * (column > 0)
                bottom, right = _SIDE - _MARGIN * (row < grid[0] - 1), _SIDE - _MARGIN * (column < grid[1] - 1)
                y, x = row * _WINDOW, column * _WINDOW
                stitched[y + top : y + bottom, x + left : x + right] = patches[top:bottom, left:right]
        parts = []
        cells = [whole, _pooled(stitched)]
        for high, wide in (cell.shape[:2] for cell in cells):
            rows = np.full((high, wide + 1), self._ids["patch"])
            rows[:, -1] = self._ids["col"]
            parts += [[self._ids["start"]], rows.reshape(-1), [self._ids["end"]]]
        return np.concatenate(parts), np.concatenate([cell.reshape(-1, _POOL**2) for cell in cells])


def _tiling(height: int, width: int) -> tuple[int, int]:
    """select_tiling: of all grids the one that scales least up, or where all scale down, the one that keeps most."""
    grids = [(a, b) for a in range(1, MAX_CROPS + 1) for b in range(1, MAX_CROPS + 1) if a * b <= MAX_CROPS]
    grids.sort(key=lambda grid: (grid[0] * grid[1], grid[0]))
    window, margin = _WINDOW * 14, 2 * _MARGIN * 14
    sizes = np.array(grids, np.float32) * np.float32(window)
    scale = np.min(sizes / np.array([height - margin, width - margin], np.float32), axis=-1)
    best = int(np.argmax(scale)) if np.all(scale < 1) else int(np.argmin(np.where(scale < 1, np.float32(1e10), scale)))
    return grids[best]


def _pooled(patches: np.ndarray) -> np.ndarray:
    high, wide = (side // _POOL for side in patches.shape)
    return patches.reshape(high, _POOL, wide, _POOL).transpose(0, 2, 1, 3).reshape(high, wide, -1)


def collated(examples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Padded to the most, with -1, one array a key."""
    lengths = {"images": 1 + MAX_CROPS, "image_masks": 1 + MAX_CROPS, "pooled_patches_idx": _MOST_POOLED}
    batch = {}
    for name in examples[0]:
        most = lengths.get(name, SEQUENCE)
        first = examples[0][name]
        padded = np.full((len(examples), most, *first.shape[1:]), -1, first.dtype)
        for place, example in zip(padded, examples, strict=True):
            place[: len(example[name])] = example[name]
        batch[name] = torch.from_numpy(padded)
    return batch


class _Files(torch.utils.data.Dataset[dict[str, np.ndarray]]):
    def __init__(self, data: Path) -> None:
        self._folder, self._make = data, Originals(data)
        self._records = [json.loads(line) for line in (data / "examples.jsonl").read_text().splitlines()]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, item: int) -> dict[str, np.ndarray]:
        record = self._records[item]
        return self._make((self._folder / record["image"]).read_bytes(), record["conversations"])


def _alone(_: int) -> None:
    torch.set_num_threads(1)


def from_dataloader(data: Path) -> Iterator[dict[str, Any]]:
    loader = torch.utils.data.DataLoader(
        _Files(data),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=2,
        collate_fn=collated,
        persistent_workers=True,
        worker_init_fn=_alone,
    )
    while True:
        yield from loader


def from_energon(data: Path) -> Iterator[dict[str, Any]]:
    from megatron import energon
    from megatron.energon.edataclass import edataclass

    make = Originals(data)

    @edataclass
    class Raw(energon.Sample):  # type: ignore[misc]
        picture: bytes
        turns: bytes

    @energon.stateless
    def cook(sample: Any) -> Any:
        return Raw(
            **energon.task_encoder.cooking.basic_sample_keys(sample), picture=sample["jpg"], turns=sample["json"]
        )

    class Encoder(energon.DefaultTaskEncoder):  # type: ignore[misc]
        decoder = None
        cookers = (energon.Cooker(cook),)

        @energon.stateless
        def encode_sample(self, sample: Any) -> Any:
            torch.set_num_threads(1)
            return make(sample.picture, json.loads(sample.turns))

        @energon.stateless
        def batch(self, samples: list[Any]) -> Any:
            return collated(samples)

    folder = data / "energon"
    if not (folder / ".nv-meta").is_dir():
        tars = [path.name for path in folder.glob("*.tar")]
        energon.BaseWebdatasetFactory.prepare_dataset(folder, tars, split_parts_ratio=[("train", 1.0)], workers=1)
        told = "__module__: megatron.energon\n__class__: CrudeWebdataset\n"
        (folder / ".nv-meta" / "dataset.yaml").write_text(told)
    dataset = energon.get_train_dataset(
        folder,
        worker_config=energon.WorkerConfig(rank=0, world_size=1, num_workers=2),
        batch_size=BATCH,
        shuffle_buffer_size=100,
        max_samples_per_sequence=None,
        task_encoder=Encoder(),
    )
    yield from energon.get_loader(dataset)


if __name__ == "__main__":
    main()
