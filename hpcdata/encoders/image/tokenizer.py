"""Image tokenizers: the one interface, a preset's identity in the plan, and how one is built.

A preset (`presets`) names a network and the codebook that goes with it; the weights are a file that the user has.
`identify` runs on the login node (no torch, under a second): it checks the preset and hashes the file, and what it
returns enters the plan. `build` runs in an array task and refuses a file with another hash. The preset decides the
network, never what stands in the file; where two systems use one name, the file's layout says which preset is meant,
and the plan records that one.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from hpcdata import embedded
from hpcdata.base.errors import UserError
from hpcdata.base.reads import kind_of
from hpcdata.config.schema import ImageConfig
from hpcdata.encoders.image.layouts import require_layout
from hpcdata.encoders.image.presets import (
    EMBEDDED,
    PRESETS,
    Emu3Architecture,
    OpenMagvit2Architecture,
    VqganArchitecture,
    architecture_of,
    preset_names,
)
from hpcdata.runs.identities import ImageIdentity

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

    def start(self, images: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Begins `encode`, and returns what ends it: a GPU computes while the caller does other things."""

    def encode_in_fp32(self, images: torch.Tensor) -> torch.Tensor:
        """The same in fp32 and not compiled, whatever `encode` does."""

    def compile(self) -> None:
        """From here on `encode` may use a compiled network."""

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """codes: [B, h, w] of any integer dtype -> [B, 3, H, W] uint8 RGB on the CPU."""


def identify(config: ImageConfig) -> ImageIdentity:
    """The identity of the configured tokenizer. Needs no torch. Raises UserError: unknown preset, no such file."""
    preset = config.tokenizer
    if preset is None:
        raise UserError("image.tokenizer is not set: choose one of " + ", ".join(preset_names()))
    path = checkpoint_path(preset, config.checkpoint)
    if preset != EMBEDDED:
        preset = require_layout(path, preset)
    architecture = architecture_of(preset)
    return ImageIdentity(
        preset=preset,
        codebook_size=architecture.codebook_size,
        downsample=architecture.downsample,
        sha256=_sha256(path),
        precision=config.precision,
    )


def checkpoint_path(preset: str, checkpoint: str | None) -> str:
    """The weight file of a preset: `checkpoint`, else $HPCDATA_IMAGE_CHECKPOINT. Raises UserError."""
    if preset not in preset_names():
        close = difflib.get_close_matches(preset, preset_names(), n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"unknown image.tokenizer={preset}: {hint}known presets: {', '.join(preset_names())}")
    if preset == EMBEDDED:
        return str(embedded.path(embedded.IMAGE_TOKENIZER))
    path = checkpoint or os.environ.get(CHECKPOINT_VARIABLE)
    needs = f"image.tokenizer={preset} needs a weight file ({PRESETS[preset].file})"
    if not path:
        raise UserError(f"{needs}: pass image.checkpoint=FILE or set {CHECKPOINT_VARIABLE}=FILE")
    if kind_of(path) != "file":
        raise UserError(f"{needs}: {path} is not a file, check image.checkpoint or {CHECKPOINT_VARIABLE}")
    return path


def grid_side(identity: ImageIdentity, resolution: int, key: str = "data.resolution") -> int:
    """Codes along one side of `resolution` pixels, which `key` says. Raises UserError if they do not fit."""
    side, rest = divmod(resolution, identity.downsample)
    if side < 1 or rest:
        raise UserError(
            f"{key}={resolution} is not a multiple of {identity.downsample}, "
            f"the pixels of one code of image.tokenizer={identity.preset}"
        )
    return side


def build(
    identity: ImageIdentity,
    checkpoint: str | None,
    device: str,
    cpu_threads: int | None,
    batch_size: int | None = None,
    *,
    is_compiled: bool = False,
) -> ImageTokenizer:
    """The tokenizer that made or will make the codes of a plan, ready to run.

    device: `auto`, `cpu`, `cuda` or `cuda:N`; batch_size: pictures that a GPU computes at a time. Sets torch's global
    switches to reproducible arithmetic; with cpu_threads=None, for looking at pictures, it leaves them. Raises
    UserError when the file is not the one of the identity, or does not hold the preset's network.
    """
    path = checkpoint_path(identity.preset, checkpoint)
    found = _sha256(path)
    if found != identity.sha256:
        raise UserError(
            f"{path} has sha256 {found[:16]}..., the plan was made with {identity.sha256[:16]}...: "
            f"restore the file, or use a new output directory"
        )
    device = resolve_device(device)
    if cpu_threads is not None:
        set_reproducible(cpu_threads)
    tokenizer = _load(path, identity.preset, identity.precision, device, batch_size)
    if is_compiled:
        tokenizer.compile()
    return tokenizer


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


def _load(path: str, preset: str, precision: str, device: str, batch_size: int | None) -> ImageTokenizer:
    architecture = architecture_of(preset)
    if isinstance(architecture, VqganArchitecture):
        from hpcdata.encoders.image import vqgan

        return vqgan.load(path, preset, architecture, precision=precision, device=device, batch_size=batch_size)
    if isinstance(architecture, OpenMagvit2Architecture):
        from hpcdata.encoders.image import open_magvit2_lfq as open_magvit2

        return open_magvit2.load(path, preset, architecture, precision=precision, device=device, batch_size=batch_size)
    if isinstance(architecture, Emu3Architecture):
        from hpcdata.encoders.image import emu3

        return emu3.load(path, preset, architecture, precision=precision, device=device, batch_size=batch_size)
    from hpcdata.encoders.image import exact_vq

    return exact_vq.load(path, device=device)


def _sha256(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
