"""Pictures -> grids of codes: pictures of one size at a time, and now and then a comparison with fp32.

A network takes a batch of one size. Which pictures are encoded together depends on the batch of records alone, and the
codes not even on that (`quantized`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from hpcdata.encoders.image.tokenizer import ImageTokenizer

COMPARE_EVERY = 1024
"""Samples by their plan index, the first one included: fp32 takes four times as long on four in 4096."""


class PictureEncoder:
    """compares: also encodes pictures of every `COMPARE_EVERY`-th sample in fp32."""

    def __init__(self, tokenizer: ImageTokenizer, *, batch_size: int, compares: bool = False) -> None:
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._compares = compares

    def encode(self, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        """pictures: [H, W, 3] uint8 of any sizes -> [h, w] int32 codes of each."""
        return self.start(pictures)()

    def start(self, pictures: Sequence[np.ndarray]) -> Callable[[], list[np.ndarray]]:
        """Begins `encode`, and returns what ends it."""
        places: dict[tuple[int, ...], list[int]] = {}
        for place, picture in enumerate(pictures):
            places.setdefault(picture.shape, []).append(place)
        started: list[tuple[list[int], Callable[[], torch.Tensor]]] = []
        for shape in sorted(places):
            for start in range(0, len(places[shape]), self._batch_size):
                some = places[shape][start : start + self._batch_size]
                started.append((some, self._tokenizer.start(_stack([pictures[place] for place in some]))))

        def finish() -> list[np.ndarray]:
            grids: dict[int, np.ndarray] = {}
            for some, codes in started:
                grids.update(zip(some, codes().numpy(), strict=True))
            return [grids[place] for place in range(len(pictures))]

        return finish

    def compare(self, index: int, pictures: Sequence[np.ndarray], grids: Sequence[np.ndarray]) -> tuple[int, int]:
        """(codes compared with those in fp32, equal ones) of the sample with this plan index."""
        if not self._compares or index % COMPARE_EVERY:
            return 0, 0
        exact = [self._tokenizer.encode_in_fp32(_stack([picture]))[0].numpy() for picture in pictures]
        num_equal = sum(int((grid == other).sum()) for grid, other in zip(grids, exact, strict=True))
        return sum(grid.size for grid in grids), num_equal


def _stack(pictures: Sequence[np.ndarray]) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
