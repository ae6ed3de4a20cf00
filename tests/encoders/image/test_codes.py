"""Pictures of any sizes to codes, and the comparison with fp32. pytest tests/encoders/image/test_codes.py"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.manifest import read_manifest
from hpcdata.encoders.image.codes import COMPARE_EVERY, PictureEncoder
from hpcdata.report.status import read_status
from hpcdata.report.summary import describe
from hpcdata.shards.shard import read_summary
from tests.smallruns import small_run


class Halving:
    """A tokenizer whose codes are every second red value; fp32 differs where that is 7."""

    codebook_size, downsample = 256, 2

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return self.start(images)()

    def start(self, images: torch.Tensor) -> Callable[[], torch.Tensor]:
        self.shapes.append(tuple(images.shape))
        return lambda: images[:, 0, ::2, ::2].int()

    def encode_in_fp32(self, images: torch.Tensor) -> torch.Tensor:
        codes = images[:, 0, ::2, ::2].int()
        return torch.where(codes == 7, 8, codes)

    def compile(self) -> None:
        raise NotImplementedError

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


def picture(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_pictures_of_several_sizes_keep_their_order():
    tokenizer = Halving()
    sizes = [(4, 4), (2, 8), (4, 4), (8, 2), (2, 8), (4, 4)]
    pictures = [picture(*size, value) for value, size in enumerate(sizes)]
    grids = PictureEncoder(tokenizer, batch_size=2).encode(pictures)
    for value, (grid, (height, width)) in enumerate(zip(grids, sizes, strict=True)):
        np.testing.assert_array_equal(grid, np.full((height // 2, width // 2), value))
    assert tokenizer.shapes == [(2, 3, 2, 8), (2, 3, 4, 4), (1, 3, 4, 4), (1, 3, 8, 2)]
    assert PictureEncoder(tokenizer, batch_size=2).encode([]) == []


@pytest.mark.parametrize(
    ("index", "compares", "expected"),
    [(0, True, (8, 4)), (COMPARE_EVERY, True, (8, 4)), (1, True, (0, 0)), (0, False, (0, 0))],
)
def test_some_samples_are_compared_with_fp32(index, compares, expected):
    encoder = PictureEncoder(Halving(), batch_size=2, compares=compares)
    pictures = [picture(4, 4, 7), picture(4, 4, 9)]
    assert encoder.compare(index, pictures, encoder.encode(pictures)) == expected


@pytest.mark.parametrize(("precision", "num_compared"), [pytest.param("bf16", 16, marks=pytest.mark.slow), ("fp32", 0)])
def test_the_agreement_is_in_shards_manifest_and_status(tmp_path: Path, precision, num_compared):
    small_run(tmp_path / "run", f"image.precision={precision}")
    shards = sorted((tmp_path / "run/shards").iterdir())
    assert [read_summary(shard).counts.compared_codes for shard in shards] == [num_compared, 0, 0, 0]
    combine(tmp_path / "run", CombineOptions())
    counts = read_manifest(tmp_path / "run").counts
    assert (counts.compared_codes, counts.equal_codes) == (num_compared, num_compared)
    shown = describe(read_status(tmp_path / "run"), tmp_path / "run")
    assert ("100.00 % of 16 compared with fp32 are equal" in shown) == bool(num_compared)
