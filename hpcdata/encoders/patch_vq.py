"""The embedded image tokenizer: every 8 x 8 cell of a picture becomes the nearest of 4096 stored RGB patches.

A vector quantizer without a network: it needs no weights from elsewhere, encodes some 75 pictures of 256 x 256 pixels
a second on one CPU thread, and decodes by looking up. Colors and shapes stay, fine detail does not: a training that
matters deserves a learned tokenizer. (Linde, Buzo and Gray, "An Algorithm for Vector Quantizer Design", 1980.)

Codes are exact on every device. Patches and entries are integers of 8 bits: every product and every partial sum of 192
of them is an integer below 2^24, and half a squared norm taken off leaves a multiple of 1/2 below 2^23. float32 holds
all of these without rounding, so neither the batch, nor the number of threads, nor TF32 can change a code; ties go to
the lower code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from hpcdata import embedded
from hpcdata.errors import UserError

if TYPE_CHECKING:
    import torch

CODEBOOK_SIZE = 4096
DOWNSAMPLE = 8
_CHUNK = 256
"""Patches whose scores are held at a time: 4 MiB of float32, which stay in the cache."""
_SHAPE = (CODEBOOK_SIZE, DOWNSAMPLE, DOWNSAMPLE, 3)


def weights_path() -> str:
    return str(embedded.path(embedded.PATCH_CODEBOOK))


def load(path: str | None = None, *, precision: str = "fp32", device: str = "cpu") -> PatchVQ:
    """The tokenizer of a codebook file. `precision` changes nothing: the arithmetic is of integers.

    Raises UserError if the file does not hold `patches` [4096, 8, 8, 3] uint8.
    """
    return PatchVQ.load(path, device=device)


class PatchVQ:
    """An `ImageTokenizer` by nearest patch."""

    def __init__(self, patches: torch.Tensor, device: str = "cpu") -> None:
        """patches: [4096, 8, 8, 3] uint8 RGB, one entry a code."""
        self._patches = patches
        entries = patches.reshape(CODEBOOK_SIZE, -1).to(device).float()
        self._entries = entries.T.contiguous()
        self._half_norms = entries.square().sum(1) / 2

    @classmethod
    def load(cls, path: str | None = None, device: str = "cpu") -> Self:
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = path or weights_path()
        try:
            patches = load_file(path).get("patches")
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} is not a codebook: {type(error).__name__}, expected a safetensors file") from None
        if patches is None or tuple(patches.shape) != _SHAPE or patches.dtype != torch.uint8:
            raise UserError(f"{path} is not a codebook: expected `patches` of shape {list(_SHAPE)} and dtype uint8")
        if patches[0].min() != 255:
            raise UserError(f"{path} is not a codebook of ours: expected code 0 to be white")
        return cls(patches, device)

    @property
    def codebook_size(self) -> int:
        return CODEBOOK_SIZE

    @property
    def downsample(self) -> int:
        return DOWNSAMPLE

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """images: [B, 3, H, W] uint8, H and W multiples of 8 -> [B, H / 8, W / 8] int32 on the CPU."""
        batch, _, height, width = images.shape
        grid = (batch, height // DOWNSAMPLE, width // DOWNSAMPLE)
        cells = images.to(self._entries.device).unfold(2, DOWNSAMPLE, DOWNSAMPLE).unfold(3, DOWNSAMPLE, DOWNSAMPLE)
        patches = cells.permute(0, 2, 3, 4, 5, 1).reshape(-1, 3 * DOWNSAMPLE**2)
        return self.nearest(patches).reshape(grid).cpu()

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """codes: [B, h, w] of any integer dtype -> [B, 3, 8 h, 8 w] uint8 on the CPU."""
        batch, height, width = codes.shape
        cells = self._patches[codes.long().cpu()]
        shape = (batch, 3, height * DOWNSAMPLE, width * DOWNSAMPLE)
        return cells.permute(0, 5, 1, 3, 2, 4).reshape(shape)

    def nearest(self, patches: torch.Tensor) -> torch.Tensor:
        """patches: [n, 192] uint8, by row, column, color -> [n] int32, the code of the nearest entry."""
        import torch

        codes = torch.zeros(len(patches), dtype=torch.int32, device=patches.device)
        # White paper surrounds most drawings, and white is code 0 exactly: only the rest is searched.
        drawn = (patches != 255).any(1).nonzero().squeeze(1)
        with torch.no_grad(), torch.autocast(patches.device.type, enabled=False):
            for rows in drawn.split(_CHUNK):
                # argmin |x - c|^2 = argmax x.c - |c|^2 / 2; of equal scores torch's argmax returns the first.
                scores = torch.addmm(-self._half_norms, patches[rows].float(), self._entries)
                codes[rows] = scores.argmax(1).to(torch.int32)
        return codes
