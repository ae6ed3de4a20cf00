"""The VQGAN family: one convolutional network for taming, LDM, aMUSEd, LlamaGen, Janus, Chameleon and Show-o weights.

Written out here rather than taken from a model library, because codes must equal those of the original programs for
years: libraries leave out the L2-normalised lookup of LlamaGen or the decoder of Chameleon, and rename weights.
Weights are named as in taming-transformers (`weight_names.py` renames the others). The preset says whether pixels lie
in [-1, 1] or in [0, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from hpcdata.encoders.image.checkpoints import load_weights
from hpcdata.encoders.image.presets import VqganArchitecture
from hpcdata.encoders.image.quantized import Codebook, Network, QuantizedTokenizer, Signs


def load(
    path: str,
    preset: str,
    architecture: VqganArchitecture,
    *,
    precision: str,
    device: str,
    batch_size: int | None = None,
) -> QuantizedTokenizer:
    """The tokenizer with the weights of a checkpoint file. Raises UserError if they are not those of the network."""
    with torch.device("meta"):
        network = Vqgan(architecture)
    load_weights(network, path, preset)
    return QuantizedTokenizer(network, preset=preset, precision=precision, device=device, batch_size=batch_size)


class Vqgan(Network):
    """encoder -> quant_conv -> quantize, and back: post_quant_conv -> decoder. `decoder` may be set to None."""

    def __init__(self, architecture: VqganArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        latent_channels, embed_dim = architecture.latent_channels, architecture.embed_dim
        self.encoder = Encoder(architecture)
        self.quant_conv = nn.Conv2d(latent_channels, embed_dim, 1)
        self.quantize = (
            Signs(embed_dim, first_is_highest=True)
            if architecture.lookup == "signs"
            else Codebook(architecture.codebook_size, embed_dim, is_cosine=architecture.lookup == "cosine")
        )
        self.post_quant_conv: nn.Module | None = nn.Conv2d(embed_dim, latent_channels, 1)
        self.decoder: nn.Module | None = Decoder(architecture)

    def encode(self, pixels: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(pixels))

    def decode(self, latents: Tensor) -> Tensor:
        assert self.decoder is not None
        assert self.post_quant_conv is not None
        return self.decoder(self.post_quant_conv(latents))

    def drop_decoder(self) -> None:
        self.decoder = self.post_quant_conv = None


class Encoder(nn.Module):
    def __init__(self, architecture: VqganArchitecture) -> None:
        super().__init__()
        levels = architecture.encoder_levels
        channels = architecture.base_channels
        self.conv_in = nn.Conv2d(3, channels, 3, padding=1)
        self.down = nn.ModuleList()
        for width, num_blocks in levels:
            is_lowest = len(self.down) == len(levels) - 1
            with_attention = is_lowest and architecture.lowest_attention
            level = Level(channels, width, num_blocks, with_attention=with_attention)
            level.downsample = None if is_lowest else Downsample(width)
            self.down.append(level)
            channels = width
        self.mid = Middle(channels, with_attention=architecture.middle_attention)
        self.norm_out = _norm(channels)
        self.conv_out = nn.Conv2d(channels, architecture.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(_swish(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """`up[0]` is the highest resolution, and so runs last."""

    def __init__(self, architecture: VqganArchitecture) -> None:
        super().__init__()
        numbers = architecture.decoder_levels
        channels = numbers[-1][0]
        self.conv_in = nn.Conv2d(architecture.latent_channels, channels, 3, padding=1)
        self.mid = Middle(channels, with_attention=architecture.middle_attention)
        levels = []
        for index, (width, num_blocks) in reversed(list(enumerate(numbers))):
            with_attention = index == len(numbers) - 1 and architecture.lowest_attention
            level = Level(channels, width, num_blocks, with_attention=with_attention)
            level.upsample = Upsample(width) if index else None
            levels.append(level)
            channels = width
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = _norm(channels)
        self.conv_out = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(_swish(self.norm_out(x)))


class Level(nn.Module):
    """The residual blocks of one resolution, and the step to the next."""

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int, *, with_attention: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            ResidualBlock(out_channels if index else in_channels, out_channels) for index in range(num_blocks)
        )
        self.attn = nn.ModuleList(Attention(out_channels) for _ in range(num_blocks if with_attention else 0))
        self.downsample: nn.Module | None = None
        self.upsample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[index](x)
        step = self.downsample or self.upsample
        return x if step is None else step(x)


class Middle(nn.Module):
    def __init__(self, channels: int, *, with_attention: bool) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.attn_1 = Attention(channels) if with_attention else nn.Identity()
        self.block_2 = ResidualBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class ResidualBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = _norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = _norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.nin_shortcut is None else self.nin_shortcut(x)
        x = self.conv1(_swish(self.norm1(x)))
        return self.conv2(_swish(self.norm2(x))).add_(residual)


class Attention(nn.Module):
    """One head over all positions, scaled by the number of channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        queries, keys, values = (part(normed).flatten(2) for part in (self.q, self.k, self.v))
        weights = torch.bmm(queries.transpose(1, 2), keys).mul_(x.shape[1] ** -0.5).softmax(dim=2)
        mixed = torch.bmm(values, weights.transpose(1, 2)).view(x.shape)
        return self.proj_out(mixed) + x


class Downsample(nn.Module):
    """Halves the side; pads right and below only, as the weights were trained."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


def _swish(x: Tensor) -> Tensor:
    return F.silu(x, inplace=True)
