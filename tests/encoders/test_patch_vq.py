"""The embedded quantizer: exact, and the same whatever the batch. python -m pytest tests/encoders/test_patch_vq.py"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from hpcdata.encoders import patch_vq
from hpcdata.encoders.patch_vq import CODEBOOK_SIZE, DOWNSAMPLE, PatchVQ
from hpcdata.errors import UserError


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def quantizer():
    return patch_vq.load(patch_vq.weights_path(), precision="fp32", device="cpu")


def pictures(num: int, height: int = 32, width: int = 48, seed: int = 0) -> torch.Tensor:
    """Noise, flat colors, waves and white, so that near and exact ties occur."""
    rng = np.random.default_rng(seed)
    images = np.full((num, 3, height, width), 255, np.uint8)
    for image in images:
        kind = rng.integers(4)
        if kind == 0:
            image[:] = rng.integers(0, 256, image.shape)
        elif kind == 1:
            image[:] = rng.integers(0, 256, (3, 1, 1))
        elif kind == 2:
            image[:] = 127 + 120 * np.sin(np.arange(width) / rng.uniform(1, 20))
    return torch.from_numpy(images)


def exact_codes(quantizer: PatchVQ, images: torch.Tensor) -> np.ndarray:
    """By plain integers: the lowest code at the least squared distance."""
    entries = quantizer.decode(torch.arange(CODEBOOK_SIZE).reshape(-1, 1, 1)).numpy().astype(np.int64)
    batch, _, height, width = images.shape
    codes = np.zeros((batch, height // DOWNSAMPLE, width // DOWNSAMPLE), np.int64)
    for b, row, column in np.ndindex(*codes.shape):
        top, left = row * DOWNSAMPLE, column * DOWNSAMPLE
        cell = images[b, :, top : top + DOWNSAMPLE, left : left + DOWNSAMPLE].numpy().astype(np.int64)
        codes[b, row, column] = ((entries - cell) ** 2).sum(axis=(1, 2, 3)).argmin()
    return codes


def test_interface(quantizer):
    codes = quantizer.encode(pictures(3, 24, 16))
    assert (quantizer.codebook_size, quantizer.downsample) == (4096, 8)
    assert (codes.shape, codes.dtype) == ((3, 3, 2), torch.int32)
    back = quantizer.decode(codes.to(torch.int16))
    assert (back.shape, back.dtype) == ((3, 3, 24, 16), torch.uint8)


def test_codes_are_the_nearest_entries(quantizer):
    images = pictures(4)
    assert quantizer.encode(images).numpy().tolist() == exact_codes(quantizer, images).tolist()


def test_white_is_code_zero_and_comes_back_white(quantizer):
    white = torch.full((1, 3, 16, 16), 255, dtype=torch.uint8)
    codes = quantizer.encode(white)
    assert codes.unique().tolist() == [0]
    assert torch.equal(quantizer.decode(codes), white)


def test_every_code_survives_decoding_and_encoding(quantizer):
    codes = torch.arange(CODEBOOK_SIZE, dtype=torch.int32).reshape(4, 32, 32)
    assert torch.equal(quantizer.encode(quantizer.decode(codes)), codes)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(5)))
def test_codes_do_not_depend_on_batch_or_order(quantizer, seed, order):
    images = pictures(5, seed=seed)
    together = quantizer.encode(images)
    assert torch.equal(torch.cat([quantizer.encode(image[None]) for image in images]), together)
    assert torch.equal(quantizer.encode(images[list(order)]), together[list(order)])


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_codes_do_not_depend_on_chunks(quantizer, monkeypatch, chunk):
    images = pictures(3, seed=5)
    expected = quantizer.encode(images)
    monkeypatch.setattr(patch_vq, "_CHUNK", chunk)
    assert torch.equal(quantizer.encode(images), expected)


def test_codes_do_not_depend_on_threads_or_autocast(quantizer):
    images = pictures(6, seed=3)
    expected = quantizer.encode(images)
    torch.set_num_threads(2)
    assert torch.equal(quantizer.encode(images), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quantizer.encode(images), expected)


def test_extreme_values_stay_exact():
    """Black and white entries that differ in one step of one pixel are told apart at the far ends of the range."""
    patches = torch.zeros(CODEBOOK_SIZE, 8, 8, 3, dtype=torch.uint8)
    patches[0] = 255
    patches[1:4] = 255
    patches[2, 0, 0, 0] = 254
    patches[3, 7, 7, 2] = 253
    patches[4:, 0, 0, 0] = torch.arange(CODEBOOK_SIZE - 4) % 2
    quantizer = PatchVQ(patches)
    assert quantizer.nearest(patches[:6].reshape(6, -1)).tolist() == [0, 0, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"other": torch.zeros(1)}, "expected `patches` of shape"),
        ({"patches": torch.zeros(4096, 8, 8, 3)}, "dtype uint8"),
        ({"patches": torch.zeros(16, 8, 8, 3, dtype=torch.uint8)}, "expected `patches` of shape"),
        ({"patches": torch.zeros(4096, 8, 8, 3, dtype=torch.uint8)}, "code 0 to be white"),
    ],
)
def test_other_files_are_refused(tmp_path, tensors, message):
    save_file(tensors, tmp_path / "codebook.safetensors")
    with pytest.raises(UserError, match=message):
        PatchVQ.load(str(tmp_path / "codebook.safetensors"))


def test_unreadable_files_are_refused(tmp_path):
    (tmp_path / "junk").write_bytes(b"not a safetensors file")
    for name in ("junk", "missing"):
        with pytest.raises(UserError, match="is not a codebook"):
            PatchVQ.load(str(tmp_path / name))
