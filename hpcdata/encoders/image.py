"""Image tokenizers: the one interface, the presets that exist, their identity in the plan, and how one is built.

A preset names a network and the codebook that goes with it; the weights are a file that the user has. `identify`
runs on the login node (no torch, under a second): it checks the preset and hashes the file, and what it returns enters
the plan. `build` runs in an array task and refuses a file with another hash. The preset decides the network, never
what stands in the file.

The preset `embedded` is `hpcdata.encoders.patch_vq`: a module that imports torch only inside its functions and has
`CODEBOOK_SIZE: int`, `DOWNSAMPLE: int`, `weights_path() -> str` and
`load(path: str, *, precision: str, device: str) -> ImageTokenizer`.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hpcdata.config import ImageConfig
from hpcdata.errors import UserError
from hpcdata.identities import ImageIdentity

if TYPE_CHECKING:
    import torch

CHECKPOINT_VARIABLE = "HPCDATA_IMAGE_CHECKPOINT"


class ImageTokenizer(Protocol):
    """A frozen network that turns pictures into codes and back. One object serves one thread at a time."""

    @property
    def codebook_size(self) -> int:
        """Codes lie in [0, codebook_size); 0 is a valid code."""

    @property
    def downsample(self) -> int:
        """Pixels of the side of one code: h = H / downsample."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] uint8 RGB, H and W multiples of `downsample` -> [B, h, w] int32 on the CPU."""

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """codes: [B, h, w] of any integer dtype -> [B, 3, H, W] uint8 RGB on the CPU."""


@dataclass(frozen=True, kw_only=True)
class VqganArchitecture:
    """The convolutional VQGAN that taming-transformers, Chameleon and LlamaGen share, in numbers."""

    codebook_size: int
    embed_dim: int
    l2_normalized: bool
    """Codes are looked up by cosine (LlamaGen) instead of Euclidean distance."""
    lowest_attention: bool
    """Attention after every residual block of the lowest resolution, and not only in the middle."""
    base_channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    latent_channels: int = 256

    @property
    def downsample(self) -> int:
        return 2 ** (len(self.channel_multipliers) - 1)


@dataclass(frozen=True, kw_only=True)
class Preset:
    architecture: VqganArchitecture
    file: str
    """The file that it needs and where people know it from, for error messages."""


def _llamagen() -> VqganArchitecture:
    return VqganArchitecture(codebook_size=16384, embed_dim=8, l2_normalized=True, lowest_attention=True)


def _taming(codebook_size: int, *, lowest_attention: bool = True) -> VqganArchitecture:
    return VqganArchitecture(
        codebook_size=codebook_size, embed_dim=256, l2_normalized=False, lowest_attention=lowest_attention
    )


EMBEDDED = "embedded"
PRESETS: dict[str, Preset] = {
    "vq16_t2i": Preset(architecture=_llamagen(), file="vq_ds16_t2i.pt of LlamaGen, or a Janus checkpoint"),
    "vq16": Preset(architecture=_llamagen(), file="vq_ds16_c2i.pt of LlamaGen"),
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
}
"""Presets with a weight file of the user's; `embedded` comes with hpcdata."""


def identify(config: ImageConfig) -> ImageIdentity:
    """The identity of the configured tokenizer. Needs no torch. Raises UserError: unknown preset, no such file."""
    preset = config.tokenizer
    if preset is None:
        raise UserError("image.tokenizer is not set: choose one of " + ", ".join(preset_names()))
    path = checkpoint_path(preset, config.checkpoint)
    codebook_size, downsample = _sizes(preset)
    return ImageIdentity(
        preset=preset,
        codebook_size=codebook_size,
        downsample=downsample,
        sha256=_sha256(path),
        precision=config.precision,
    )


def preset_names() -> list[str]:
    return [EMBEDDED, *PRESETS]


def checkpoint_path(preset: str, checkpoint: str | None) -> str:
    """The weight file of a preset: `checkpoint`, else $HPCDATA_IMAGE_CHECKPOINT. Raises UserError."""
    if preset not in preset_names():
        close = difflib.get_close_matches(preset, preset_names(), n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"unknown image.tokenizer={preset}: {hint}known presets: {', '.join(preset_names())}")
    if preset == EMBEDDED:
        from hpcdata.encoders import patch_vq

        return patch_vq.weights_path()
    path = checkpoint or os.environ.get(CHECKPOINT_VARIABLE)
    needs = f"image.tokenizer={preset} needs a weight file ({PRESETS[preset].file})"
    if not path:
        raise UserError(f"{needs}: pass image.checkpoint=FILE or set {CHECKPOINT_VARIABLE}=FILE")
    if not Path(path).is_file():
        raise UserError(f"{needs}: {path} is not a file, check image.checkpoint or {CHECKPOINT_VARIABLE}")
    return path


def grid_side(identity: ImageIdentity, resolution: int) -> int:
    """Codes along one side of a square picture of `resolution` pixels. Raises UserError if they do not fit."""
    side, rest = divmod(resolution, identity.downsample)
    if side < 1 or rest:
        raise UserError(
            f"data.resolution={resolution} is not a multiple of {identity.downsample}, "
            f"the pixels of one code of image.tokenizer={identity.preset}"
        )
    return side


def build(identity: ImageIdentity, checkpoint: str | None, device: str, cpu_threads: int) -> ImageTokenizer:
    """The tokenizer that made or will make the codes of a plan, ready to run.

    device: `auto`, `cpu`, `cuda` or `cuda:N`. Sets torch's global switches to reproducible arithmetic.
    Raises UserError when the file is not the one of the identity, or does not hold the preset's network.
    """
    path = checkpoint_path(identity.preset, checkpoint)
    found = _sha256(path)
    if found != identity.sha256:
        raise UserError(
            f"{path} has sha256 {found[:16]}..., the plan was made with {identity.sha256[:16]}...: "
            f"restore the file, or use a new output directory"
        )
    device = resolve_device(device)
    set_reproducible(cpu_threads)
    if identity.preset == EMBEDDED:
        from hpcdata.encoders import patch_vq

        return patch_vq.load(path, precision=identity.precision, device=device)
    from hpcdata.encoders import vqgan

    architecture = PRESETS[identity.preset].architecture
    return vqgan.load(path, identity.preset, architecture, precision=identity.precision, device=device)


def resolve_device(device: str) -> str:
    """`auto` becomes `cuda` where torch sees a GPU, else `cpu`. Raises UserError for a GPU that is not there."""
    import torch

    available = torch.cuda.device_count()
    if device == "auto":
        return "cuda" if available else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise UserError(f"image.device={device}: expected auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(number or 0) >= available:
        raise UserError(f"image.device={device}: torch sees {available} GPUs here, use image.device=auto or cpu")
    return device


def set_reproducible(cpu_threads: int) -> None:
    """Makes the arithmetic of this process repeatable: no TF32, no timing-based choice of kernels, fixed threads.

    Two runs on equal devices then give equal codes; without it they depend on what cuDNN found fastest that day.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.set_num_threads(cpu_threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    with contextlib.suppress(AttributeError):
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _sizes(preset: str) -> tuple[int, int]:
    if preset == EMBEDDED:
        from hpcdata.encoders import patch_vq

        return patch_vq.CODEBOOK_SIZE, patch_vq.DOWNSAMPLE
    architecture = PRESETS[preset].architecture
    return architecture.codebook_size, architecture.downsample


def _sha256(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
