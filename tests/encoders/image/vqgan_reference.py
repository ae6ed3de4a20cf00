"""An independent VQGAN for tests: functions over a dictionary of weights, named as the original files do.

Written from the architecture (not from hpcdata's network) so that codes can be compared: 3x3 convolution in; per level
residual blocks of GroupNorm(32, eps 1e-6), swish and 3x3 convolutions; attention; a stride-2 convolution padded right
and below; a middle of block, attention, block; norm, swish, convolution out; a 1x1 convolution; the codebook.
"""

import dataclasses
import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from hpcdata.encoders.image.presets import VqganArchitecture

TINY_LLAMAGEN = VqganArchitecture(
    codebook_size=96,
    embed_dim=4,
    lookup="cosine",
    lowest_attention=True,
    base_channels=32,
    channel_multipliers=(1, 2, 2),
    num_res_blocks=1,
    latent_channels=32,
)
TINY_TAMING = VqganArchitecture(
    codebook_size=64,
    embed_dim=8,
    lookup="euclidean",
    lowest_attention=True,
    base_channels=32,
    channel_multipliers=(1, 1, 2),
    num_res_blocks=2,
    latent_channels=32,
)
TINY_CHAMELEON = VqganArchitecture(
    codebook_size=64,
    embed_dim=8,
    lookup="euclidean",
    lowest_attention=False,
    base_channels=32,
    channel_multipliers=(1, 2),
    num_res_blocks=2,
    latent_channels=32,
)
TINY_SHOW_O = VqganArchitecture(
    codebook_size=2**7,
    embed_dim=7,
    latent_channels=7,
    lookup="signs",
    lowest_attention=False,
    base_channels=32,
    channel_multipliers=(1, 2, 2),
    num_res_blocks=(2, 1, 1),
    decoder_multipliers=(1, 1, 2),
    decoder_res_blocks=(1, 2, 1),
)

TINY_SHOW_O_IN_UNIDISC = dataclasses.replace(TINY_SHOW_O, pixels="unit")
"""UniDisc gives the same network pixels in [0, 1]."""
TINY_LLAMAGEN_WIDE = dataclasses.replace(TINY_TAMING, lookup="cosine")
"""LlamaGen's program with other numbers, as UniDisc trained one: in shapes it is taming's."""


class Names:
    """How the two families call the same weights."""

    def __init__(self, style: str, num_levels: int) -> None:
        self.llamagen = style == "llamagen"
        self.num_levels = num_levels

    def level(self, side: str, level: int) -> str:
        """`level` 0 is the highest resolution in the encoder and in the decoder."""
        if self.llamagen:
            return f"{side}.conv_blocks.{level if side == 'encoder' else self.num_levels - 1 - level}"
        return f"{side}.{'down' if side == 'encoder' else 'up'}.{level}"

    @property
    def block(self) -> str:
        return "res" if self.llamagen else "block"

    def middle(self, side: str) -> tuple[str, str, str]:
        parts = ("0", "1", "2") if self.llamagen else ("block_1", "attn_1", "block_2")
        return tuple(f"{side}.mid.{part}" for part in parts)  # type: ignore[return-value]


def random_weights(arch: VqganArchitecture, style: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """All weights of a network, named as in the original files."""
    rng = torch.Generator().manual_seed(seed)
    names = Names(style, len(arch.channel_multipliers))
    weights: dict[str, torch.Tensor] = {}

    def conv(name: str, fan_in: int, out: int, size: int) -> None:
        scale = 1.0 / math.sqrt(fan_in * size * size)
        weights[f"{name}.weight"] = torch.randn(out, fan_in, size, size, generator=rng) * scale
        weights[f"{name}.bias"] = torch.randn(out, generator=rng) * 0.1

    def norm(name: str, channels: int) -> None:
        weights[f"{name}.weight"] = 1 + 0.2 * torch.randn(channels, generator=rng)
        weights[f"{name}.bias"] = 0.1 * torch.randn(channels, generator=rng)

    def block(name: str, fan_in: int, out: int) -> None:
        norm(f"{name}.norm1", fan_in)
        conv(f"{name}.conv1", fan_in, out, 3)
        norm(f"{name}.norm2", out)
        conv(f"{name}.conv2", out, out, 3)
        if fan_in != out:
            conv(f"{name}.nin_shortcut", fan_in, out, 1)

    def attention(name: str, channels: int) -> None:
        norm(f"{name}.norm", channels)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{name}.{part}", channels, channels, 1)

    def middle(side: str, channels: int) -> None:
        first, second, third = names.middle(side)
        block(first, channels, channels)
        attention(second, channels)
        block(third, channels, channels)

    widths = [arch.base_channels * multiplier for multiplier in arch.channel_multipliers]
    lowest = len(widths) - 1
    channels = arch.base_channels
    conv("encoder.conv_in", 3, channels, 3)
    for level, width in enumerate(widths):
        for index in range(num_blocks(arch, "encoder", level)):
            block(f"{names.level('encoder', level)}.{names.block}.{index}", channels, width)
            channels = width
            if level == lowest and arch.lowest_attention:
                attention(f"{names.level('encoder', level)}.attn.{index}", width)
        if level != lowest:
            conv(f"{names.level('encoder', level)}.downsample.conv", width, width, 3)
    middle("encoder", channels)
    norm("encoder.norm_out", channels)
    conv("encoder.conv_out", channels, arch.latent_channels, 3)

    widths = [arch.base_channels * m for m in arch.decoder_multipliers or arch.channel_multipliers]
    channels = widths[-1]
    conv("decoder.conv_in", arch.latent_channels, channels, 3)
    middle("decoder", channels)
    for level in range(lowest, -1, -1):
        for index in range(num_blocks(arch, "decoder", level)):
            block(f"{names.level('decoder', level)}.{names.block}.{index}", channels, widths[level])
            channels = widths[level]
            if level == lowest and arch.lowest_attention:
                attention(f"{names.level('decoder', level)}.attn.{index}", channels)
        if level:
            conv(f"{names.level('decoder', level)}.upsample.conv", channels, channels, 3)
    norm("decoder.norm_out", channels)
    conv("decoder.conv_out", channels, 3, 3)

    conv("quant_conv", arch.latent_channels, arch.embed_dim, 1)
    conv("post_quant_conv", arch.embed_dim, arch.latent_channels, 1)
    if arch.lookup != "signs":
        weights["quantize.embedding.weight"] = torch.randn(arch.codebook_size, arch.embed_dim, generator=rng)
    return weights


def as_show_o_publishes(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The 1x1 convolutions belong to encoder and decoder, and the file has tables beside the weights."""
    owners = {"quant_conv": "encoder.quant_conv", "post_quant_conv": "decoder.post_quant_conv"}
    renamed = {}
    for name, weight in weights.items():
        owner = owners.get(name.split(".")[0])
        renamed[f"{owner}.{name.split('.')[1]}" if owner else name] = weight
    num_bits = len(weights["quant_conv.bias"])
    return {
        **renamed,
        "quantize.embedding": torch.zeros(2**num_bits, num_bits),
        "quantize.power_vals": torch.zeros(num_bits, dtype=torch.long),
    }


def num_blocks(arch: VqganArchitecture, side: str, level: int) -> int:
    """Residual blocks: one more in a decoder that mirrors its encoder."""
    if side == "decoder" and arch.decoder_res_blocks is not None:
        return arch.decoder_res_blocks[level]
    blocks = arch.num_res_blocks if isinstance(arch.num_res_blocks, int) else arch.num_res_blocks[level]
    return blocks + (side == "decoder")


class Reference:
    def __init__(self, weights: dict[str, torch.Tensor], arch: VqganArchitecture, style: str) -> None:
        self.weights, self.arch = weights, arch
        self.names = Names(style, len(arch.channel_multipliers))

    @torch.inference_mode()
    def encode(self, images: np.ndarray) -> np.ndarray:
        """images: [B, H, W, 3] uint8 -> [B, h, w] codes, distances computed term by term in float64."""
        x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255.0
        x = x * 2 - 1 if self.arch.pixels == "signed" else x
        x = self._conv("encoder.conv_in", x)
        last = len(self.arch.channel_multipliers) - 1
        for level in range(last + 1):
            x = self._level("encoder", level, num_blocks(self.arch, "encoder", level), x)
            if level != last:
                name = f"{self.names.level('encoder', level)}.downsample.conv"
                x = self._conv(name, F.pad(x, (0, 1, 0, 1)), stride=2, padding=0)
        x = self._out("encoder", self._middle("encoder", x))
        z = self._conv("quant_conv", x, padding=0).permute(0, 2, 3, 1).double()
        if self.arch.lookup == "signs":
            return (z > 0).numpy() @ (2 ** np.arange(self.arch.embed_dim)[::-1])
        entries = self._entries().double()
        if self.arch.lookup == "cosine":
            z = z / z.norm(dim=-1, keepdim=True)
        return (z[..., None, :] - entries).square().sum(-1).argmin(-1).numpy()

    @torch.inference_mode()
    def decode(self, codes: np.ndarray) -> np.ndarray:
        """codes: [B, h, w] -> [B, H, W, 3] float in [0, 255], neither clipped nor rounded."""
        x = self._latents(codes).permute(0, 3, 1, 2)
        x = self._conv("decoder.conv_in", self._conv("post_quant_conv", x, padding=0))
        x = self._middle("decoder", x)
        for level in range(len(self.arch.channel_multipliers) - 1, -1, -1):
            x = self._level("decoder", level, num_blocks(self.arch, "decoder", level), x)
            if level:
                x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
                x = self._conv(f"{self.names.level('decoder', level)}.upsample.conv", x)
        x = self._out("decoder", x)
        x = (x + 1) / 2 if self.arch.pixels == "signed" else x
        return (x * 255).permute(0, 2, 3, 1).numpy()

    def _latents(self, codes: np.ndarray) -> torch.Tensor:
        if self.arch.lookup != "signs":
            return self._entries()[torch.from_numpy(codes).long()]
        digits = [[1.0 if bit == "1" else -1.0 for bit in f"{code:0{self.arch.embed_dim}b}"] for code in codes.ravel()]
        return torch.tensor(digits).view(*codes.shape, self.arch.embed_dim)

    def _entries(self) -> torch.Tensor:
        entries = self.weights["quantize.embedding.weight"]
        return entries / entries.norm(dim=-1, keepdim=True) if self.arch.lookup == "cosine" else entries

    def _conv(self, name: str, x: torch.Tensor, stride: int = 1, padding: int = 1) -> torch.Tensor:
        return F.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], stride, padding)

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.group_norm(x, 32, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 1e-6)

    def _out(self, side: str, x: torch.Tensor) -> torch.Tensor:
        x = self._norm(f"{side}.norm_out", x)
        return self._conv(f"{side}.conv_out", x * torch.sigmoid(x))

    def _block(self, name: str, x: torch.Tensor) -> torch.Tensor:
        y = x
        for index in (1, 2):
            y = self._norm(f"{name}.norm{index}", y)
            y = self._conv(f"{name}.conv{index}", y * torch.sigmoid(y))
        shortcut = f"{name}.nin_shortcut"
        return (self._conv(shortcut, x, padding=0) if f"{shortcut}.weight" in self.weights else x) + y

    def _attention(self, name: str, x: torch.Tensor) -> torch.Tensor:
        y = self._norm(f"{name}.norm", x)
        q, k, v = (self._conv(f"{name}.{part}", y, padding=0).flatten(2) for part in "qkv")
        weights = torch.einsum("bci,bcj->bij", q, k).div(math.sqrt(x.shape[1])).softmax(-1)
        return x + self._conv(f"{name}.proj_out", torch.einsum("bij,bcj->bci", weights, v).view(x.shape), padding=0)

    def _middle(self, side: str, x: torch.Tensor) -> torch.Tensor:
        first, second, third = self.names.middle(side)
        return self._block(third, self._attention(second, self._block(first, x)))

    def _level(self, side: str, level: int, num_blocks: int, x: torch.Tensor) -> torch.Tensor:
        name = self.names.level(side, level)
        for index in range(num_blocks):
            x = self._block(f"{name}.{self.names.block}.{index}", x)
            if f"{name}.attn.{index}.q.weight" in self.weights:
                x = self._attention(f"{name}.attn.{index}", x)
        return x
