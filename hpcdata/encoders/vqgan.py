"""The VQGAN family: one convolutional network for LlamaGen, Janus, Chameleon, Liquid and taming-transformers weights.

Written out here rather than taken from a model library, because codes must equal those of the original programs for
years: libraries leave out the L2-normalised lookup of LlamaGen or the decoder of Chameleon, and rename weights.
Weights are named as in taming-transformers (`checkpoints.py` renames the others). A picture is worked on in [-1, 1].
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from hpcdata.encoders.checkpoints import load_vqgan_weights
from hpcdata.encoders.image import VqganArchitecture
from hpcdata.errors import UserError

LOOKUP_ROWS = 4096
"""Latents compared with the codebook at once: 256 MiB of distances at 16,384 codes, whatever the batch."""


def load(
    path: str, preset: str, architecture: VqganArchitecture, *, precision: str, device: str
) -> VqganImageTokenizer:
    """The tokenizer with the weights of a checkpoint file. Raises UserError if they are not those of the network."""
    with torch.device("meta"):
        network = Vqgan(architecture)
    load_vqgan_weights(network, path, preset)
    return VqganImageTokenizer(network, preset=preset, precision=precision, device=device)


class VqganImageTokenizer:
    """An `ImageTokenizer` around a loaded network, in fp32, or in bf16 or fp16 by autocast."""

    def __init__(self, network: Vqgan, *, preset: str, precision: str, device: str) -> None:
        self.preset = preset
        self.precision = precision
        self.device = torch.device(device)
        self.codebook_size = network.architecture.codebook_size
        self.downsample = network.architecture.downsample
        self._memory_format = _memory_format(self.device, precision)
        self._network = network.to(device=self.device, memory_format=self._memory_format)  # type: ignore[call-overload]
        self._network.requires_grad_(False).eval()

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """images: [B, 3, H, W] uint8 RGB -> [B, h, w] int32 on the CPU."""
        _check_images(images, self.downsample)
        pixels = images.to(self.device, non_blocking=True).float().div_(127.5).sub_(1.0)
        with self._autocast():
            latents = self._network.encode(pixels.contiguous(memory_format=self._memory_format))
        codes = self._network.quantize(latents.float())
        if not bool(torch.isfinite(latents).all()):
            raise UserError(
                f"image.tokenizer={self.preset} computed values that are not finite with image.precision="
                f"{self.precision}: use image.precision=fp32 (or bf16), or another checkpoint"
            )
        return codes.to("cpu")

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """codes: [B, h, w] of any integer dtype -> [B, 3, H, W] uint8 RGB on the CPU."""
        if self._network.decoder is None:
            raise UserError(f"the checkpoint of image.tokenizer={self.preset} holds no decoder, it can only encode")
        if codes.ndim != 3 or (codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size):
            raise ValueError(f"expected codes [B, h, w] in [0, {self.codebook_size}), got shape {list(codes.shape)}")
        latents = self._network.quantize.lookup(codes.to(self.device).long())
        with self._autocast():
            pixels = self._network.decode(latents.contiguous(memory_format=self._memory_format))
        return pixels.float().mul(127.5).add_(127.5).round_().clamp_(0, 255).to(torch.uint8).to("cpu").contiguous()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[self.precision])


class Vqgan(nn.Module):
    """encoder -> quant_conv -> quantize, and back: post_quant_conv -> decoder. `decoder` may be set to None."""

    def __init__(self, architecture: VqganArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        latent_channels, embed_dim = architecture.latent_channels, architecture.embed_dim
        self.encoder = Encoder(architecture)
        self.quant_conv = nn.Conv2d(latent_channels, embed_dim, 1)
        self.quantize = Codebook(architecture)
        self.post_quant_conv: nn.Module | None = nn.Conv2d(embed_dim, latent_channels, 1)
        self.decoder: nn.Module | None = Decoder(architecture)

    def encode(self, pixels: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(pixels))

    def decode(self, latents: Tensor) -> Tensor:
        assert self.decoder is not None
        assert self.post_quant_conv is not None
        return self.decoder(self.post_quant_conv(latents))


class Codebook(nn.Module):
    """Nearest codebook entry: Euclidean, or after L2 normalisation of both sides."""

    def __init__(self, architecture: VqganArchitecture) -> None:
        super().__init__()
        self.embedding = nn.Module()  # nn.Embedding on the meta device imports a second's worth of sympy
        self.embedding.weight = nn.Parameter(torch.empty(architecture.codebook_size, architecture.embed_dim))
        self.l2_normalized = architecture.l2_normalized

    def entries(self) -> Tensor:
        weight = self.get_parameter("embedding.weight")
        return F.normalize(weight, p=2, dim=-1) if self.l2_normalized else weight

    def forward(self, latents: Tensor) -> Tensor:
        """latents: [B, D, h, w] float32 -> codes [B, h, w] int32; ties go to the lower code."""
        batch, _, height, width = latents.shape
        rows = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
        if self.l2_normalized:
            rows = F.normalize(rows, p=2, dim=-1)
        entries = self.entries()
        squares = entries.square().sum(dim=1)
        codes = [_nearest(some_rows, entries, squares) for some_rows in rows.split(LOOKUP_ROWS)]
        return torch.cat(codes).view(batch, height, width)

    def lookup(self, codes: Tensor) -> Tensor:
        """codes: [B, h, w] int64 -> latents [B, D, h, w]."""
        return F.embedding(codes, self.entries()).permute(0, 3, 1, 2)


def _nearest(rows: Tensor, entries: Tensor, squares: Tensor) -> Tensor:
    """rows: [N, D], entries: [K, D], squares: [K] -> [N] int32.

    |z|^2 + |e|^2 - 2ze in this order, as the original programs do: the last bits decide between near entries.
    """
    distances = rows.square().sum(dim=1, keepdim=True) + squares
    distances = distances.addmm_(rows, entries.t(), alpha=-2)
    return distances.argmin(dim=1).int()


class Encoder(nn.Module):
    def __init__(self, architecture: VqganArchitecture) -> None:
        super().__init__()
        widths = [architecture.base_channels * multiplier for multiplier in architecture.channel_multipliers]
        channels = architecture.base_channels
        self.conv_in = nn.Conv2d(3, channels, 3, padding=1)
        self.down = nn.ModuleList()
        for width in widths:
            is_lowest = len(self.down) == len(widths) - 1
            with_attention = is_lowest and architecture.lowest_attention
            level = Level(channels, width, architecture.num_res_blocks, with_attention=with_attention)
            level.downsample = None if is_lowest else Downsample(width)
            self.down.append(level)
            channels = width
        self.mid = Middle(channels)
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
        widths = [architecture.base_channels * multiplier for multiplier in architecture.channel_multipliers]
        channels = widths[-1]
        self.conv_in = nn.Conv2d(architecture.latent_channels, channels, 3, padding=1)
        self.mid = Middle(channels)
        levels = []
        for index, width in reversed(list(enumerate(widths))):
            with_attention = index == len(widths) - 1 and architecture.lowest_attention
            level = Level(channels, width, architecture.num_res_blocks + 1, with_attention=with_attention)
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
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.attn_1 = Attention(channels)
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


def _memory_format(device: torch.device, precision: str) -> torch.memory_format:
    """NHWC where convolutions run faster in it: on CPUs, and on the tensor cores of GPUs."""
    channels_first = device.type == "cuda" and precision == "fp32"
    return torch.contiguous_format if channels_first else torch.channels_last


def _check_images(images: Tensor, downsample: int) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        raise ValueError(f"expected images [B, 3, H, W] uint8, got {list(images.shape)} {images.dtype}")
    if not images.shape[0] or any(not side or side % downsample for side in images.shape[2:]):
        raise ValueError(f"expected images with sides in multiples of {downsample}, got {list(images.shape)}")
