"""The image tokenizers that are known: each preset's network in numbers, and the file that holds its weights.

Values only, no torch: the login node reads them. The networks: `vqgan`, `open_magvit2_lfq`, `emu3`, `exact_vq`;
`hpcdata/encoders/README.md` is the page for users.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class VqganArchitecture:
    """The convolutional VQGAN that taming-transformers, Chameleon, LlamaGen, LDM, aMUSEd and Show-o share, in numbers.

    The decoder mirrors the encoder with one residual block more a level, unless it has numbers of its own.
    """

    codebook_size: int
    embed_dim: int
    lowest_attention: bool
    """Attention after every residual block of the lowest resolution, and not only in the middle."""
    lookup: Literal["euclidean", "cosine", "signs"] = "euclidean"
    """Nearest entry, by cosine (LlamaGen), or without a codebook: the signs are the bits of the code (MAGVIT-v2)."""
    middle_attention: bool = True
    pixels: Literal["signed", "unit"] = "signed"
    """The network's pixels lie in [-1, 1] or in [0, 1]."""
    base_channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int | tuple[int, ...] = 2
    """Of all levels, or of each, from the highest resolution."""
    decoder_multipliers: tuple[int, ...] | None = None
    decoder_res_blocks: tuple[int, ...] | None = None
    latent_channels: int = 256

    @property
    def downsample(self) -> int:
        return 2 ** (len(self.channel_multipliers) - 1)

    @property
    def encoder_levels(self) -> list[tuple[int, int]]:
        """Channels and residual blocks of each level, from the highest resolution."""
        num_levels = len(self.channel_multipliers)
        blocks = self.num_res_blocks
        counts = (blocks,) * num_levels if isinstance(blocks, int) else blocks
        return [(self.base_channels * by, num) for by, num in zip(self.channel_multipliers, counts, strict=True)]

    @property
    def decoder_levels(self) -> list[tuple[int, int]]:
        """The same of the decoder, from the highest resolution."""
        multipliers = self.decoder_multipliers or self.channel_multipliers
        counts = self.decoder_res_blocks or tuple(num + 1 for _, num in self.encoder_levels)
        return [(self.base_channels * by, num) for by, num in zip(multipliers, counts, strict=True)]


@dataclass(frozen=True, kw_only=True)
class OpenMagvit2Architecture:
    """Open-MAGVIT2: no attention, no codebook; the decoder is steered by statistics of the codes."""

    num_bits: int = 18
    base_channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 4
    lookup: Literal["reversed_signs"] = "reversed_signs"
    """The first channel's sign is the lowest bit of the code."""
    pixels: Literal["signed"] = "signed"

    @property
    def codebook_size(self) -> int:
        return 2**self.num_bits

    @property
    def downsample(self) -> int:
        return 2 ** (len(self.channel_multipliers) - 1)


@dataclass(frozen=True, kw_only=True)
class Emu3Architecture:
    """Emu3's video tokenizer as it treats a picture: four equal frames become one grid of codes."""

    codebook_size: int = 32768
    embed_dim: int = 4
    base_channels: int = 256
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 4)
    num_res_blocks: int = 2
    lookup: Literal["euclidean"] = "euclidean"
    pixels: Literal["signed"] = "signed"

    @property
    def downsample(self) -> int:
        return 2 ** (len(self.channel_multipliers) - 1)


@dataclass(frozen=True, kw_only=True)
class EmbeddedArchitecture:
    """`exact_vq`, whose weights come with hpcdata."""

    codebook_size: int = 4096
    downsample: int = 8


Architecture = VqganArchitecture | OpenMagvit2Architecture | Emu3Architecture | EmbeddedArchitecture


@dataclass(frozen=True, kw_only=True)
class Preset:
    architecture: Architecture
    file: str
    """The file that it needs and where people know it from, for error messages."""


def _llamagen(multipliers: tuple[int, ...]) -> VqganArchitecture:
    return VqganArchitecture(
        codebook_size=16384, embed_dim=8, lookup="cosine", lowest_attention=True, channel_multipliers=multipliers
    )


def _taming(codebook_size: int, *, lowest_attention: bool = True) -> VqganArchitecture:
    return VqganArchitecture(codebook_size=codebook_size, embed_dim=256, lowest_attention=lowest_attention)


def _ldm(codebook_size: int, embed_dim: int, multipliers: tuple[int, ...], *, attention: bool) -> VqganArchitecture:
    return VqganArchitecture(
        codebook_size=codebook_size,
        embed_dim=embed_dim,
        latent_channels=embed_dim,
        lowest_attention=attention,
        channel_multipliers=multipliers,
    )


_F16, _F8 = (1, 1, 2, 2, 4), (1, 2, 2, 4)
_SHOW_O = VqganArchitecture(
    codebook_size=8192,
    embed_dim=13,
    latent_channels=13,
    lookup="signs",
    lowest_attention=False,
    channel_multipliers=(1, 2, 2, 4, 4),
    num_res_blocks=(4, 3, 4, 3, 4),
    decoder_multipliers=(1, 1, 2, 2, 4),
    decoder_res_blocks=(4, 4, 3, 4, 3),
)
_AMUSED = VqganArchitecture(
    codebook_size=8192,
    embed_dim=64,
    latent_channels=64,
    lowest_attention=False,
    middle_attention=False,
    channel_multipliers=(1, 2, 2, 4, 6),
    pixels="unit",
)

EMBEDDED = "embedded"
PRESETS: dict[str, Preset] = {
    "vq16_t2i": Preset(architecture=_llamagen(_F16), file="vq_ds16_t2i.pt of LlamaGen, or a Janus checkpoint"),
    "vq16": Preset(architecture=_llamagen(_F16), file="vq_ds16_c2i.pt of LlamaGen"),
    "vq8": Preset(architecture=_llamagen(_F8), file="vq_ds8_c2i.pt of LlamaGen"),
    "chameleon": Preset(
        architecture=_taming(8192, lowest_attention=False),
        file="vqgan.ckpt from the tokenizer folder of Chameleon, the one that Liquid uses",
    ),
    "vq16_1024": Preset(
        architecture=_taming(1024), file="last.ckpt of vqgan_imagenet_f16_1024 in the taming-transformers model zoo"
    ),
    "vq16_16384": Preset(
        architecture=_taming(16384), file="last.ckpt of vqgan_imagenet_f16_16384 in the taming-transformers model zoo"
    ),
    "llamagen_1024": Preset(
        architecture=dataclasses.replace(_taming(1024), lookup="cosine"),
        file="a VQ-16 of LlamaGen's code with 1024 codes of 256 numbers, what UniDisc calls vq16_1024",
    ),
    "vq16_magvit": Preset(architecture=_SHOW_O, file="the weights of Show-o's tokenizer, showlab/magvitv2"),
    "unidisc_magvit": Preset(
        architecture=dataclasses.replace(_SHOW_O, pixels="unit"),
        file="the weights of Show-o's tokenizer, showlab/magvitv2",
    ),
    "open_magvit2": Preset(architecture=OpenMagvit2Architecture(), file="imagenet_256_L.ckpt of Open-MAGVIT2"),
    "emu3": Preset(
        architecture=Emu3Architecture(),
        file="Emu3's tokenizer in transformers' layout, alone or in a file of Emu3-Chat-hf",
    ),
    "ldm_vq8": Preset(
        architecture=_ldm(16384, 4, _F8, attention=True),
        file="model.ckpt of vq-f8 in the latent-diffusion model zoo, or diffusers' VQModel made of it",
    ),
    "ldm_vq4": Preset(
        architecture=_ldm(8192, 3, (1, 2, 4), attention=False),
        file="model.ckpt of vq-f4 in the latent-diffusion model zoo, or diffusers' VQModel made of it",
    ),
    "amused": Preset(
        architecture=_AMUSED, file="vqvae/diffusion_pytorch_model.safetensors of amused-256 or amused-512"
    ),
}
"""Presets with a weight file of the user's; `embedded` comes with hpcdata."""


BY_LAYOUT = {("vq16_1024", "cosine"): "llamagen_1024"}
"""A name that two systems use for different networks, and what the file's layout states -> the preset that is meant."""
LOOKUPS = {"euclidean": "Euclidean distance", "cosine": "cosine (after L2 normalisation)", "signs": "signs"}
"""In words."""


def preset_names() -> list[str]:
    return [EMBEDDED, *PRESETS]


def architecture_of(preset: str) -> Architecture:
    return EmbeddedArchitecture() if preset == EMBEDDED else PRESETS[preset].architecture
