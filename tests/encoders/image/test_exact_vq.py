"""The embedded tokenizer: exact codes, and pictures like the originals. pytest tests/encoders/image/test_exact_vq.py"""

import tarfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from hpcdata import embedded
from hpcdata.base.errors import UserError
from hpcdata.encoders.image import exact_vq
from hpcdata.encoders.image.exact_vq import LATENT_CHANNELS
from hpcdata.media import pixels
from tests.selection import examples

WEIGHTS = str(embedded.path(embedded.IMAGE_TOKENIZER))


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer():
    return exact_vq.load(WEIGHTS, device="cpu")


def pictures(num: int, height: int = 32, width: int = 48, seed: int = 0) -> torch.Tensor:
    """Noise, flat colors, waves and white."""
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


def quickstart_pictures(side: int, num: int) -> torch.Tensor:
    with tarfile.open(embedded.path(embedded.QUICKSTART)) as tar:
        names = [name for name in tar.getnames() if name.endswith(".png")][:num]
        files = [tar.extractfile(name).read() for name in names]
    squares = [pixels.load_square(file, resolution=side, max_pixels=89_478_485) for file in files]
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)


def integer_codes(weights: dict[str, torch.Tensor], images: torch.Tensor) -> np.ndarray:
    """The encoder in integers of 64 bits: weights in steps of 2^-10, sums rounded half to even."""
    steps = {name: (tensor.double() * 2**10).round().long().numpy() for name, tensor in weights.items()}

    def conv(name: str, x: np.ndarray, stride: int = 1) -> np.ndarray:
        weight, bias = steps[f"encoder.{name}.weight"], steps[f"encoder.{name}.bias"]
        size = weight.shape[-1]
        x = np.pad(x, ((0, 0), (0, 0), *[(1, 1) if size == 3 else (0, 0)] * 2))
        windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]
        return np.einsum("bchwij,ocij->bohw", windows, weight) + bias[:, None, None]

    def halve_even(x: np.ndarray, bits: int) -> np.ndarray:
        floor, rest = x >> bits, x & (1 << bits) - 1
        half = 1 << bits - 1
        return floor + ((rest > half) | ((rest == half) & (floor & 1 == 1)))

    def activate(x: np.ndarray) -> np.ndarray:
        return halve_even(x, 10).clip(0, 255)

    def block(name: str, x: np.ndarray) -> np.ndarray:
        return activate(conv(f"{name}.conv_2", activate(conv(f"{name}.conv_1", x))) + (x << 10))

    ink = 255 - images.numpy().astype(np.int64)
    x = activate(conv("stem", ink, stride=4))
    for index in range(2):
        x = block(f"fine.{index}", x)
    x = activate(conv("down", x, stride=2))
    for index in range(3):
        x = block(f"coarse.{index}", x)
    latents = halve_even(conv("linear", ink, stride=8) + conv("out", x), 11)
    entries = weights["codebook"].double().numpy().astype(np.int64)
    reach = np.abs(entries).max(0)
    rows = latents.transpose(0, 2, 3, 1).reshape(-1, LATENT_CHANNELS).clip(-reach, reach)
    codes = [((row - entries) ** 2).sum(1).argmin() for row in rows]
    return np.array(codes).reshape(latents.shape[0], *latents.shape[2:])


def test_interface(tokenizer):
    codes = tokenizer.encode(pictures(3, 24, 16))
    assert (tokenizer.codebook_size, tokenizer.downsample) == (4096, 8)
    assert (codes.shape, codes.dtype) == ((3, 3, 2), torch.int32)
    back = tokenizer.decode(codes.to(torch.int16))
    assert (back.shape, back.dtype) == ((3, 3, 24, 16), torch.uint8)


def test_codes_equal_those_of_integer_arithmetic(tokenizer):
    images = torch.cat([pictures(4, 32, 32), quickstart_pictures(32, 4)])
    codes = tokenizer.encode(images)
    assert len(codes.unique()) > 20
    np.testing.assert_array_equal(codes.numpy(), integer_codes(load_file(WEIGHTS), images))


def test_every_extreme_stays_exact():
    """Weights at the limit of what is allowed, on pictures that add up to most: still the codes of integers."""
    weights = load_file(WEIGHTS)
    row = torch.zeros(128, 128, 3, 3, dtype=torch.float16)
    row[:, :27, 1, 1] = 2 - 2**-9
    weights["encoder.coarse.0.conv_1.weight"] = row
    images = torch.cat([torch.zeros(1, 3, 32, 32, dtype=torch.uint8), pictures(3, 32, 32, seed=1)])
    network = exact_vq.ExactVq()
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    exact_vq._require_exact(network, "made")
    codes = exact_vq.ExactVqTokenizer(network, "cpu").encode(images)
    np.testing.assert_array_equal(codes.numpy(), integer_codes(weights, images))


def test_white_is_code_zero_and_comes_back_white(tokenizer):
    white = torch.full((1, 3, 40, 40), 255, dtype=torch.uint8)
    codes = tokenizer.encode(white)
    assert codes.unique().tolist() == [0]
    assert tokenizer.decode(codes)[:, :, 8:-8, 8:-8].min() >= 252


@settings(max_examples=examples(10), deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(5)))
def test_codes_do_not_depend_on_batch_or_order(tokenizer, seed, order):
    images = pictures(5, seed=seed)
    together = tokenizer.encode(images)
    assert torch.equal(torch.cat([tokenizer.encode(image[None]) for image in images]), together)
    assert torch.equal(tokenizer.encode(images[list(order)]), together[list(order)])


@pytest.mark.parametrize(("name", "value"), [("CHUNK_PIXELS", 1), ("LOOKUP_ROWS", 7)])
def test_codes_do_not_depend_on_chunks(tokenizer, monkeypatch, name, value):
    images = pictures(3, seed=5)
    expected = tokenizer.encode(images)
    monkeypatch.setattr(exact_vq, name, value)
    assert torch.equal(tokenizer.encode(images), expected)


def test_codes_do_not_depend_on_threads_autocast_or_double_precision(tokenizer):
    images = torch.cat([pictures(6, 64, 64, seed=3), quickstart_pictures(64, 6)])
    expected = tokenizer.encode(images)
    torch.set_num_threads(2)
    assert torch.equal(tokenizer.encode(images), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(tokenizer.encode(images), expected)
    double = exact_vq.load(WEIGHTS, device="cpu")
    double._dtype, double._reach = torch.float64, double._reach.double()
    double._network.encoder.double()
    double._network.codebook.data = double._network.codebook.double()
    assert torch.equal(double.encode(images), expected), "what a GPU computes"


@pytest.mark.slow
@pytest.mark.parametrize("side", [64, 256])
def test_decoded_pictures_look_like_the_originals(tokenizer, side):
    images = quickstart_pictures(side, 24)
    decoded = tokenizer.decode(tokenizer.encode(images))
    error = (decoded.double() - images.double()).square().mean().item()
    assert 10 * np.log10(255**2 / error) > (20 if side == 64 else 24)


def test_cell_borders_do_not_show(tokenizer):
    """Differences across the borders of cells are hardly larger than inside; a patch quantizer has 2.7 times."""
    images = quickstart_pictures(256, examples(40))

    def share(pictures: torch.Tensor) -> float:
        steps = pictures.double().diff(dim=3).abs().mean((0, 1, 2))
        return (steps[7::8].mean() / np.mean([steps[offset::8].mean() for offset in range(7)])).item()

    assert share(tokenizer.decode(tokenizer.encode(images))) < 1.6 * share(images)


@pytest.mark.parametrize("codes", [torch.tensor([[[4096]]]), torch.tensor([[[-1]]]), torch.zeros(2, 2).int()])
def test_what_are_no_codes(tokenizer, codes):
    with pytest.raises(ValueError, match="expected codes"):
        tokenizer.decode(codes)


def changed(name: str, change) -> dict[str, torch.Tensor]:
    weights = load_file(WEIGHTS)
    weights[name] = change(weights[name])
    return weights


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"other": torch.zeros(1)}, "codebook has shape None, expected"),
        (changed("codebook", lambda old: old[:16]), r"codebook has shape \[16, 32\], expected \[4096, 32\]"),
        (changed("encoder.stem.weight", lambda old: old + 2**-12), "encoder.stem could round"),
        (changed("encoder.down.weight", lambda old: torch.ones_like(old)), "encoder.down could round"),
        (changed("codebook", lambda old: old + 0.5), "distances to its codebook could round"),
        (changed("codebook", lambda old: torch.full_like(old, 2047)), "distances to its codebook could round"),
    ],
)
def test_other_files_are_refused(tmp_path, weights, message):
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=message):
        exact_vq.load(str(tmp_path / "other.safetensors"), device="cpu")


def test_unreadable_files_are_refused(tmp_path):
    (tmp_path / "junk").write_bytes(b"not a safetensors file")
    for name in ("junk", "missing"):
        with pytest.raises(UserError, match="is not an image tokenizer of hpcdata"):
            exact_vq.load(str(tmp_path / name), device="cpu")
