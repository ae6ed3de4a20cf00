"""Open-MAGVIT2 against functions over its checkpoint. python -m pytest tests/encoders/image/test_open_magvit2_lfq.py"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from hpcdata.base.errors import UserError
from hpcdata.encoders.image import open_magvit2_lfq as open_magvit2
from hpcdata.encoders.image.presets import OpenMagvit2Architecture
from tests.encoders.image.test_vqgan import encode, pictures

TINY = OpenMagvit2Architecture(num_bits=18, base_channels=32, channel_multipliers=(1, 1, 2), num_res_blocks=2)
WIDTHS = (32, 32, 64)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def random_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Named as in the published checkpoints."""
    rng = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}

    def conv(name, fan_in, out, size, bias=True):
        weights[f"{name}.weight"] = torch.randn(out, fan_in, size, size, generator=rng) / math.sqrt(fan_in * size**2)
        if bias:
            weights[f"{name}.bias"] = torch.randn(out, generator=rng) * 0.1

    def norm(name, channels):
        weights[f"{name}.weight"] = 1 + 0.2 * torch.randn(channels, generator=rng)
        weights[f"{name}.bias"] = 0.1 * torch.randn(channels, generator=rng)

    def blocks(name, fan_in, out):
        for index in range(2):
            width = out if index else fan_in
            norm(f"{name}.{index}.norm1", width)
            norm(f"{name}.{index}.norm2", out)
            conv(f"{name}.{index}.conv1", width, out, 3, bias=False)
            conv(f"{name}.{index}.conv2", out, out, 3, bias=False)
            if width != out:
                conv(f"{name}.{index}.nin_shortcut", width, out, 1, bias=False)

    conv("encoder.conv_in", 3, 32, 3, bias=False)
    for level, (fan_in, out) in enumerate(zip((32, 32, 32), WIDTHS, strict=True)):
        blocks(f"encoder.down.{level}.block", fan_in, out)
        if level < 2:
            conv(f"encoder.down.{level}.downsample", out, out, 3)
    blocks("encoder.mid_block", 64, 64)
    norm("encoder.norm_out", 64)
    conv("encoder.conv_out", 64, 18, 1)
    conv("decoder.conv_in", 18, 64, 3)
    blocks("decoder.mid_block", 64, 64)
    for level, (fan_in, out) in enumerate(zip((32, 64, 64), WIDTHS, strict=True)):
        blocks(f"decoder.up.{level}.block", fan_in, out)
        for part in ("gamma", "beta"):
            weights[f"decoder.adaptive.{level}.{part}.weight"] = torch.randn(fan_in, 18, generator=rng) / 4
            weights[f"decoder.adaptive.{level}.{part}.bias"] = torch.randn(fan_in, generator=rng) / 4
        if level:
            conv(f"decoder.up.{level}.upsample.conv1", out, 4 * out, 3)
    norm("decoder.norm_out", 32)
    conv("decoder.conv_out", 32, 3, 3)
    return weights


class Reference:
    def __init__(self, weights):
        self.weights = weights

    def conv(self, name, x, stride=1):
        weight = self.weights[f"{name}.weight"]
        return F.conv2d(x, weight, self.weights.get(f"{name}.bias"), stride, weight.shape[-1] // 2)

    def norm(self, name, x):
        return F.group_norm(x, 32, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 1e-6)

    def blocks(self, name, x):
        for index in range(2):
            block, y = f"{name}.{index}", x
            for part in (1, 2):
                y = self.norm(f"{block}.norm{part}", y)
                y = self.conv(f"{block}.conv{part}", y * y.sigmoid())
            x = y + (self.conv(f"{block}.nin_shortcut", x) if f"{block}.nin_shortcut.weight" in self.weights else x)
        return x

    def out(self, side, x):
        x = self.norm(f"{side}.norm_out", x)
        return self.conv(f"{side}.conv_out", x * x.sigmoid())

    def encode(self, images):
        """[B, H, W, 3] uint8 -> [B, h, w]: the first channel is the lowest bit."""
        x = self.conv("encoder.conv_in", torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1)
        for level in range(3):
            x = self.blocks(f"encoder.down.{level}.block", x)
            x = self.conv(f"encoder.down.{level}.downsample", x, stride=2) if level < 2 else x
        z = self.out("encoder", self.blocks("encoder.mid_block", x))
        return (z > 0).permute(0, 2, 3, 1).numpy() @ (2 ** np.arange(18))

    def decode(self, codes):
        """[B, h, w] -> [B, H, W, 3] float in [0, 255], neither clipped nor rounded."""
        z = torch.from_numpy(codes[:, None] >> np.arange(18)[:, None, None] & 1).float() * 2 - 1
        x = self.blocks("decoder.mid_block", self.conv("decoder.conv_in", z))
        statistics = {"gamma": (z.var(dim=(2, 3)) + 1e-6).sqrt(), "beta": z.mean(dim=(2, 3))}
        for level in (2, 1, 0):
            gamma, beta = (
                F.linear(
                    value, *(self.weights[f"decoder.adaptive.{level}.{part}.{kind}"] for kind in ("weight", "bias"))
                )
                for part, value in statistics.items()
            )
            x = F.group_norm(x, 32, eps=1e-6) * gamma[..., None, None] + beta[..., None, None]
            x = self.blocks(f"decoder.up.{level}.block", x)
            if level:
                wide = self.conv(f"decoder.up.{level}.upsample.conv1", x)
                num, (height, width) = wide.shape[1] // 4, x.shape[2:]
                x = torch.empty(x.shape[0], num, 2 * height, 2 * width)
                for quarter in range(4):
                    part = wide[:, quarter * num : (quarter + 1) * num]
                    x[:, :, quarter // 2 :: 2, quarter % 2 :: 2] = part
        return ((self.out("decoder", x) + 1) * 127.5).permute(0, 2, 3, 1).numpy()


def lightning(weights, averaged):
    """A checkpoint as Lightning writes it, with moving averages under names without dots."""
    averages = {f"model_ema.{name.replace('.', '')}": weight for name, weight in averaged.items()}
    extra = {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(1), "loss.x": torch.ones(1)}
    return {"state_dict": {**weights, **averages, **extra}, "epoch": 3}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "imagenet.ckpt"
    averaged = random_weights()
    torch.save(lightning(random_weights(seed=1), averaged), path)
    return open_magvit2.load(str(path), "tiny", TINY, precision="fp32", device="cpu"), Reference(averaged)


def test_codes_equal_the_reference_of_the_averaged_weights(case):
    tokenizer, reference = case
    images = pictures(3, 48, 32)
    codes = encode(tokenizer, images)
    assert codes.shape == (3, 12, 8)
    assert codes.max() > 2**16, "int32 is needed and used"
    np.testing.assert_array_equal(codes, reference.encode(images))


def test_decoded_pictures_equal_the_reference(case):
    tokenizer, reference = case
    codes = np.random.default_rng(1).integers(0, 2**18, (2, 5, 3))
    decoded = tokenizer.decode(torch.from_numpy(codes)).permute(0, 2, 3, 1).numpy()
    expected = reference.decode(codes).clip(0, 255)
    assert expected.std() > 10
    assert np.abs(decoded - expected).max() < 0.51


def test_codes_of_a_picture_do_not_depend_on_the_batch_it_is_in(case):
    tokenizer, _ = case
    images = pictures(4, 32, 32)
    alone = np.concatenate([encode(tokenizer, images[index : index + 1]) for index in range(4)])
    np.testing.assert_array_equal(encode(tokenizer, images), alone)


def test_weights_without_averages_are_taken_as_they_are(tmp_path):
    weights = random_weights(seed=2)
    torch.save({"state_dict": weights}, tmp_path / "plain.ckpt")
    tokenizer = open_magvit2.load(str(tmp_path / "plain.ckpt"), "tiny", TINY, precision="fp32", device="cpu")
    images = pictures(1, 32, 32)
    np.testing.assert_array_equal(encode(tokenizer, images), Reference(weights).encode(images))


def test_another_network_is_refused(tmp_path):
    weights = {name: weight for name, weight in random_weights().items() if "mid_block" not in name}
    torch.save({"state_dict": weights}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=r"not a checkpoint for image.tokenizer=open_magvit2: 24 weights are missing"):
        open_magvit2.load(str(tmp_path / "other.ckpt"), "open_magvit2", TINY, precision="fp32", device="cpu")
