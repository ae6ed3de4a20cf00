"""A dataset and a preprocessor as small as they can be: what an example becomes follows from its number and its rng."""

from __future__ import annotations

import errno
import threading
from typing import Any

import numpy as np

from hpcdata.multimodal.loading.collation import MMCollator
from hpcdata.multimodal.values import Measure, Room
from hpcdata.samples import BadSample, Reason


class Toys:
    """Examples of random lengths and numbers of pictures. `bad`: items that are rejected, and when."""

    def __init__(self, size: int, *, seed: int = 0, bad: dict[int, str] | None = None, longest: int = 40) -> None:
        rng = np.random.default_rng(seed)
        self.lengths = rng.integers(3, longest, size).tolist()
        self.crops = rng.integers(0, 5, size).tolist()
        self.bad = bad or {}
        self.faults = 0
        """Reads that fail before one succeeds."""
        self.got: list[int] = []

    def __len__(self) -> int:
        return len(self.lengths)

    def get(self, item: int, rng: np.random.RandomState) -> dict[str, Any]:
        if self.faults:
            self.faults -= 1
            raise OSError(errno.EIO, "Input/output error", f"/data/{item}")
        self.got.append(item)
        kind = self.bad.get(item)
        if kind == "read":
            raise BadSample(Reason.BAD_EXAMPLE, "no such field")
        return {"number": item, "draw": int(rng.randint(1000)), "kind": kind}


class Plain:
    """No measure is asked for where it is not needed."""

    def __init__(self, toys: Toys, *, salt: int = 0) -> None:
        self.toys, self.salt, self.threads = toys, salt, set[int]()

    def settings(self) -> dict[str, Any]:
        return {"salt": self.salt}

    def build_collator(self, **options: Any) -> MMCollator:
        return MMCollator(**options, empty_pictures={"images": np.zeros((0, 2, 2), np.float32)})

    def measure(self, example: dict[str, Any], rng: np.random.RandomState) -> Measure:
        length = self._length(example)
        return Measure(sizes=(), num_tokens=((length,),), num_learned=((1,),), num_kept=(0,), num_shared=0)

    def room(self, measure: Measure) -> Room:
        length = measure.num_tokens[0][0]
        if length > 1000:
            raise BadSample(Reason.TOO_LONG, "too long")
        return Room(num_tokens=length, num_crops=length % 4, num_pooled=0)

    def __call__(self, example: dict[str, Any], rng: np.random.RandomState) -> dict[str, Any]:
        self.threads.add(threading.get_ident())
        if example["kind"] == "decode":
            raise BadSample(Reason.TRUNCATED, "half a picture")
        length = self._length(example)
        if length > 1000:
            raise BadSample(Reason.TOO_LONG, "too long")
        number = example["number"]
        images = np.full((length % 4, 2, 2), number + self.salt, np.float32) + rng.randint(2**20)
        return {
            "input_ids": np.full(length, number),
            "labels": np.full(length, number),
            "loss_masks": np.ones(length, np.float32),
            "position_ids": np.arange(length),
            "images": images,
            "metadata": {"number": number, "draw": example["draw"]},
        }

    def _length(self, example: dict[str, Any]) -> int:
        return 2000 if example["kind"] == "long" else self.toys.lengths[example["number"]]
