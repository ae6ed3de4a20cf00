"""Open-MAGVIT2: 18 signs a code (262,144 codes) for 16 x 16 pixels, without a codebook and without attention.

Written out from the published description (Luo et al., "Open-MAGVIT2", 2024), with the names of its checkpoints. It
differs from the VQGAN family: convolutions without biases, strided ones padded on all sides, residual blocks alone in
the middle, upsampling from depth to space, and a decoder whose levels begin with a group norm that mean and deviation
of the codes scale and shift.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from hpcdata.encoders.image.checkpoints import load_weights
from hpcdata.encoders.image.presets import OpenMagvit2Architecture
from hpcdata.encoders.image.quantized import Network, QuantizedTokenizer, Signs

EPSILON = 1e-6


def load(
    path: str,
    preset: str,
    architecture: OpenMagvit2Architecture,
    *,
    precision: str,
    device: str,
    batch_size: int | None = None,
) -> QuantizedTokenizer:
    """The tokenizer with the weights of a checkpoint file. Raises UserError if they are not those of the network."""
    with torch.device("meta"):
        network = OpenMagvit2(architecture)
    load_weights(network, path, preset)
    return QuantizedTokenizer(network, preset=preset, precision=precision, device=device, batch_size=batch_size)


class OpenMagvit2(Network):
    def __init__(self, architecture: OpenMagvit2Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.encoder = Encoder(architecture)
        self.quantize = Signs(architecture.num_bits, first_is_highest=False)
        self.decoder: nn.Module | None = Decoder(architecture)

    def encode(self, pixels: Tensor) -> Tensor:
        return self.encoder(pixels)

    def decode(self, latents: Tensor) -> Tensor:
        assert self.decoder is not None
        return self.decoder(latents)


class Encoder(nn.Module):
    def __init__(self, architecture: OpenMagvit2Architecture) -> None:
        super().__init__()
        channels, num_blocks = architecture.base_channels, architecture.num_res_blocks
        self.conv_in = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.down = nn.ModuleList()
        for multiplier in architecture.channel_multipliers:
            width = architecture.base_channels * multiplier
            level = Level(channels, width, num_blocks)
            if len(self.down) < len(architecture.channel_multipliers) - 1:
                level.downsample = nn.Conv2d(width, width, 3, stride=2, padding=1)
            self.down.append(level)
            channels = width
        self.mid_block = _blocks(channels, channels, num_blocks)
        self.norm_out = _norm(channels)
        self.conv_out = nn.Conv2d(channels, architecture.num_bits, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        for block in self.mid_block:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    """`up[0]` and `adaptive[0]` are of the highest resolution, and so run last."""

    def __init__(self, architecture: OpenMagvit2Architecture) -> None:
        super().__init__()
        num_bits, num_blocks = architecture.num_bits, architecture.num_res_blocks
        widths = [architecture.base_channels * multiplier for multiplier in architecture.channel_multipliers]
        channels = widths[-1]
        self.conv_in = nn.Conv2d(num_bits, channels, 3, padding=1)
        self.mid_block = _blocks(channels, channels, num_blocks)
        levels, norms = [], []
        for index, width in reversed(list(enumerate(widths))):
            norms.append(SteeredNorm(num_bits, channels))
            level = Level(channels, width, num_blocks)
            level.upsample = DepthToSpace(width) if index else None
            levels.append(level)
            channels = width
        self.up = nn.ModuleList(reversed(levels))
        self.adaptive = nn.ModuleList(reversed(norms))
        self.norm_out = _norm(channels)
        self.conv_out = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.conv_in(latents)
        for block in self.mid_block:
            x = block(x)
        for norm, level in zip(reversed(self.adaptive), reversed(self.up), strict=True):
            x = level(norm(x, latents))
        return self.conv_out(F.silu(self.norm_out(x)))


class Level(nn.Module):
    """The residual blocks of one resolution, and the step to the next."""

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int) -> None:
        super().__init__()
        self.block = _blocks(in_channels, out_channels, num_blocks)
        self.downsample: nn.Module | None = None
        self.upsample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        step = self.downsample or self.upsample
        return x if step is None else step(x)


class ResidualBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = _norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = _norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        is_wider = in_channels != out_channels
        self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False) if is_wider else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class SteeredNorm(nn.Module):
    """Group norm, scaled by the deviation and shifted by the mean of every bit over the grid."""

    def __init__(self, num_bits: int, channels: int) -> None:
        super().__init__()
        self.gn = nn.GroupNorm(32, channels, eps=EPSILON, affine=False)
        self.gamma = nn.Linear(num_bits, channels)
        self.beta = nn.Linear(num_bits, channels)

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        scale = self.gamma((latents.flatten(2).var(dim=2) + EPSILON).sqrt())
        shift = self.beta(latents.flatten(2).mean(dim=2))
        return scale[:, :, None, None] * self.gn(x) + shift[:, :, None, None]


class DepthToSpace(nn.Module):
    """Doubles the side: of 4 C channels, each quarter becomes one of the four neighbours (row, then column)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        quarters = self.conv1(x).view(batch, 2, 2, channels, height, width)
        return quarters.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels, 2 * height, 2 * width)


def _blocks(in_channels: int, out_channels: int, num: int) -> nn.ModuleList:
    return nn.ModuleList(ResidualBlock(out_channels if index else in_channels, out_channels) for index in range(num))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=EPSILON)
