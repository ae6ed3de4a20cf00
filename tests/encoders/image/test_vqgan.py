"""Codes and pictures of the VQGAN network against an independent implementation.

pytest tests/encoders/image/test_vqgan.py
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from hpcdata.base.errors import UserError
from hpcdata.encoders.image import quantized, vqgan
from hpcdata.encoders.image.presets import PRESETS
from hpcdata.encoders.image.quantized import Codebook, QuantizedTokenizer
from tests.encoders.image import vqgan_reference as reference

CASES = {
    "llamagen": (reference.TINY_LLAMAGEN, "llamagen", "model"),
    "taming": (reference.TINY_TAMING, "taming", "state_dict"),
    "chameleon": (reference.TINY_CHAMELEON, "taming", "state_dict"),
    "show-o": (reference.TINY_SHOW_O, "taming", "state_dict"),
    "show-o in unidisc": (reference.TINY_SHOW_O_IN_UNIDISC, "taming", "state_dict"),
    "llamagen with taming's shapes": (reference.TINY_LLAMAGEN_WIDE, "llamagen", "model"),
}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=CASES)
def stored(request, tmp_path_factory):
    """(file of weights, architecture, the reference with these weights)"""
    arch, style, container = CASES[request.param]
    weights = reference.random_weights(arch, style)
    path = tmp_path_factory.mktemp("stored") / "weights.pt"
    published = reference.as_show_o_publishes(weights) if "show-o" in request.param else weights
    torch.save({container: published}, path)
    return path, arch, reference.Reference(weights, arch, style)


@pytest.fixture
def case(stored):
    path, arch, ref = stored
    return vqgan.load(str(path), "tiny", arch, precision="fp32", device="cpu"), ref


def pictures(num: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """[num, height, width, 3] uint8: smooth waves plus noise, so that codes differ across a picture."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(range(height), range(width), indexing="ij")
    waves = [np.sin(x / rng.uniform(2, 9) + y / rng.uniform(2, 9)) for _ in range(num * 3)]
    stack = np.stack(waves).reshape(num, 3, height, width).transpose(0, 2, 3, 1)
    return (127 + 90 * stack + rng.normal(0, 20, stack.shape)).clip(0, 255).astype(np.uint8)


def encode(tokenizer: QuantizedTokenizer, images: np.ndarray) -> np.ndarray:
    codes = tokenizer.encode(torch.from_numpy(images).permute(0, 3, 1, 2))
    assert codes.dtype == torch.int32
    return codes.numpy()


def test_codes_equal_the_reference(case):
    tokenizer, ref = case
    images = pictures(3, 48, 32)
    codes = encode(tokenizer, images)
    assert codes.shape == (3, 48 // tokenizer.downsample, 32 // tokenizer.downsample)
    assert len(np.unique(codes)) > 10
    np.testing.assert_array_equal(codes, ref.encode(images))


def test_decoded_pictures_equal_the_reference(case):
    tokenizer, ref = case
    codes = np.random.default_rng(1).integers(0, tokenizer.codebook_size, (2, 5, 3))
    decoded = tokenizer.decode(torch.from_numpy(codes))
    assert decoded.dtype == torch.uint8
    expected = ref.decode(codes).clip(0, 255)
    assert expected.std() > 10
    difference = np.abs(decoded.permute(0, 2, 3, 1).numpy() - expected)
    assert difference.max() < 0.51  # rounding, and a little float noise


def test_codes_of_a_picture_do_not_depend_on_the_batch_it_is_in(case):
    tokenizer, _ = case
    images = pictures(5, 32, 32)
    together = encode(tokenizer, images)
    alone = np.concatenate([encode(tokenizer, images[index : index + 1]) for index in range(5)])
    np.testing.assert_array_equal(together, alone)


def test_a_gpu_computes_batches_of_one_size(case, monkeypatch):
    """Kernels are chosen by the size of a batch: the last one is filled up, whoever was rejected from it."""
    tokenizer, _ = case
    images = pictures(6, 32, 32)
    alone = encode(tokenizer, images)
    sizes = []
    network_encode = tokenizer._network.encode
    monkeypatch.setattr(tokenizer, "_at_once", 4)  # as on a GPU
    monkeypatch.setattr(tokenizer._network, "encode", lambda x: sizes.append(len(x)) or network_encode(x))
    np.testing.assert_array_equal(encode(tokenizer, images), alone)
    np.testing.assert_array_equal(encode(tokenizer, images[2:3]), alone[2:3])
    assert sizes == [4, 4, 4]


def test_a_cpu_computes_one_picture_at_a_time(case, monkeypatch):
    tokenizer, _ = case
    sizes = []
    network_encode = tokenizer._network.encode
    monkeypatch.setattr(tokenizer._network, "encode", lambda x: sizes.append(len(x)) or network_encode(x))
    encode(tokenizer, pictures(3, 32, 32))
    assert sizes == [1, 1, 1]


def test_a_compiled_network_encodes_and_fp32_does_not_use_it(case, monkeypatch):
    tokenizer, _ = case
    images = pictures(3, 32, 32)
    expected = encode(tokenizer, images)
    calls = []

    def compiled(function, **options):  # as torch.compile, which takes a minute and needs a C++ compiler
        return lambda x: calls.append((tuple(x.shape), options)) or function(x)

    monkeypatch.setattr(torch, "compile", compiled)
    tokenizer.compile()
    np.testing.assert_array_equal(encode(tokenizer, images), expected)
    assert calls == [((1, 3, 32, 32), {"dynamic": False})] * 3
    tokenizer.encode_in_fp32(torch.from_numpy(images).permute(0, 3, 1, 2))
    assert len(calls) == 3


def test_lookup_in_pieces_is_the_lookup_at_once(case, monkeypatch):
    tokenizer, _ = case
    images = pictures(3, 32, 32)
    at_once = encode(tokenizer, images)
    monkeypatch.setattr(quantized, "LOOKUP_ROWS", 7)
    np.testing.assert_array_equal(encode(tokenizer, images), at_once)


def test_code_zero_is_valid(tmp_path):
    """A picture whose every code is 0 comes back as zeros and decodes (UPSTREAM defect 6)."""
    arch = reference.TINY_TAMING
    weights = reference.random_weights(arch, "taming")
    weights["quantize.embedding.weight"][1:] = 1e3
    torch.save({"state_dict": weights}, tmp_path / "zero.ckpt")
    tokenizer = vqgan.load(str(tmp_path / "zero.ckpt"), "tiny", arch, precision="fp32", device="cpu")
    codes = encode(tokenizer, pictures(1, 32, 32))
    assert not codes.any()
    assert tokenizer.decode(torch.from_numpy(codes)).shape == (1, 3, 32, 32)


def test_ties_go_to_the_lower_code():
    codebook = Codebook(4, 2)
    codebook.embedding.weight.data = torch.tensor([[9.0, 9.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    latents = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).T.reshape(1, 2, 1, 2)
    assert codebook(latents).tolist() == [[[1, 3]]]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_agrees_mostly(tmp_path, precision):
    arch = reference.TINY_LLAMAGEN
    weights = reference.random_weights(arch, "llamagen")
    torch.save({"model": weights}, tmp_path / "weights.pt")
    load = {
        name: vqgan.load(str(tmp_path / "weights.pt"), "tiny", arch, precision=name, device="cpu")
        for name in ("fp32", precision)
    }
    images = pictures(2, 48, 48)
    agreement = (encode(load["fp32"], images) == encode(load[precision], images)).mean()
    assert 0.5 < agreement < 1  # not 1: the switch really does something
    stack = torch.from_numpy(images).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(load[precision].encode_in_fp32(stack).numpy(), encode(load["fp32"], images))


def test_weights_that_give_no_numbers_are_refused(tmp_path):
    weights = reference.random_weights(reference.TINY_TAMING, "taming")
    weights["encoder.conv_out.bias"][3] = float("nan")
    torch.save({"state_dict": weights}, tmp_path / "nan.ckpt")
    tokenizer = vqgan.load(str(tmp_path / "nan.ckpt"), "tiny", reference.TINY_TAMING, precision="fp32", device="cpu")
    with pytest.raises(UserError, match=r"not finite.*fp32"):
        encode(tokenizer, pictures(1, 32, 32))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 30, 32, dtype=torch.uint8), "multiples of 4"),
        (torch.zeros(1, 3, 32, 32), "uint8"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), r"\[B, 3, H, W\]"),
    ],
)
def test_wrong_images_are_refused(tmp_path, images, message):
    torch.save({"state_dict": reference.random_weights(reference.TINY_TAMING, "taming")}, tmp_path / "w.pt")
    tokenizer = vqgan.load(str(tmp_path / "w.pt"), "tiny", reference.TINY_TAMING, precision="fp32", device="cpu")
    with pytest.raises(ValueError, match=message):
        tokenizer.encode(images)


@pytest.mark.parametrize("codes", [[[[64]]], [[[-1]]], [[0]]])
def test_wrong_codes_are_refused(tmp_path, codes):
    torch.save({"state_dict": reference.random_weights(reference.TINY_TAMING, "taming")}, tmp_path / "w.pt")
    tokenizer = vqgan.load(str(tmp_path / "w.pt"), "tiny", reference.TINY_TAMING, precision="fp32", device="cpu")
    with pytest.raises(ValueError, match="expected codes"):
        tokenizer.decode(torch.tensor(codes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "style"),
    [
        ("vq16_t2i", "llamagen"),
        ("chameleon", "taming"),
        ("vq16_1024", "taming"),
        ("llamagen_1024", "llamagen"),
    ],
)
def test_real_sizes(tmp_path: Path, preset: str, style: str):
    """The networks of the presets, whole: 70 M weights, random, in the layout of the original files."""
    arch = PRESETS[preset].architecture
    weights = reference.random_weights(arch, style)
    path = tmp_path / "weights.pt"
    torch.save({"model" if style == "llamagen" else "state_dict": weights}, path)
    tokenizer = vqgan.load(str(path), preset, arch, precision="fp32", device="cpu")
    ref = reference.Reference(weights, arch, style)
    images = pictures(1, 96, 64)
    codes = encode(tokenizer, images)
    assert codes.shape == (1, 6, 4)
    np.testing.assert_array_equal(codes, ref.encode(images))
    decoded = tokenizer.decode(torch.from_numpy(codes)).permute(0, 2, 3, 1).numpy()
    assert np.abs(decoded - ref.decode(codes).clip(0, 255)).max() < 0.51
