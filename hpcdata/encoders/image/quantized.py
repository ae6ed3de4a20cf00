"""An `ImageTokenizer` around a loaded network: pixels in, precision, lookup of codes, pixels out.

Networks differ in architecture alone; what decides a code besides (the value range, the order of the lookup's
arithmetic, ties, the bits of lookup-free codes) is here, once.

A picture's codes do not depend on the pictures beside it. A CPU takes one picture at a time, which is also the fastest:
activations stay small. A GPU always computes batches of one and the same size, filled up with black pictures, because
libraries choose their kernels by it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from hpcdata.base.errors import UserError
from hpcdata.encoders.image.presets import Emu3Architecture, OpenMagvit2Architecture, VqganArchitecture
from hpcdata.encoders.image.transfer import to_cpu, to_device

LOOKUP_ROWS = 4096
"""Latents compared with the codebook at once: 256 MiB of distances at 16,384 codes, whatever the batch."""
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""


class Network(nn.Module):
    """encoder -> quantize -> decoder. The decoder may be None: it is if the weight file holds none."""

    architecture: VqganArchitecture | OpenMagvit2Architecture | Emu3Architecture
    quantize: Codebook | Signs
    decoder: nn.Module | None

    def encode(self, pixels: Tensor) -> Tensor:
        """pixels: [B, 3, H, W] in the range of the architecture -> latents [B, D, h, w]."""
        raise NotImplementedError

    def decode(self, latents: Tensor) -> Tensor:
        raise NotImplementedError

    def drop_decoder(self) -> None:
        self.decoder = None


class QuantizedTokenizer:
    """An `ImageTokenizer` of a loaded network, in fp32, or in bf16 or fp16 by autocast."""

    def __init__(
        self, network: Network, *, preset: str, precision: str, device: str, batch_size: int | None = None
    ) -> None:
        """batch_size: pictures that a GPU computes at a time; None: those of a call."""
        self.preset = preset
        self.precision = precision
        self.device = torch.device(device)
        self._at_once = 1 if self.device.type == "cpu" else batch_size
        self.codebook_size = network.architecture.codebook_size
        self.downsample = network.architecture.downsample
        self._scale, self._offset = {"signed": (127.5, 1.0), "unit": (255.0, 0.0)}[network.architecture.pixels]
        self._memory_format = _memory_format(self.device, precision)
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._network = network.to(self.device).requires_grad_(False).eval()
        if self.device.type == "cpu":
            _keep_freed_memory()
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=self._memory_format)  # type: ignore[call-overload]

    def compile(self) -> None:
        """Has `encode` run a compiled network. Every size of a batch is compiled by itself."""
        self._compiled = torch.compile(self._network.encode, dynamic=False)

    def encode(self, images: Tensor) -> Tensor:
        """images: [B, 3, H, W] uint8 RGB -> [B, h, w] int32 on the CPU."""
        return self.start(images)()

    @torch.inference_mode()
    def start(self, images: Tensor) -> Callable[[], Tensor]:
        """Begins `encode`, see `ImageTokenizer`."""
        check_images(images, self.downsample)
        at_once = self._at_once or len(images)
        started = [(self._start(_filled_up(some, at_once)), len(some)) for some in images.split(at_once)]
        return lambda: torch.cat([finish()[:number] for finish, number in started])

    @torch.inference_mode()
    def encode_in_fp32(self, images: Tensor) -> Tensor:
        """The codes of any precision but fp32, or of a compiled network, are compared with these."""
        check_images(images, self.downsample)
        return torch.cat([self._start(some, is_exact=True)() for some in images.split(1)])

    def _start(self, images: Tensor, *, is_exact: bool = False) -> Callable[[], Tensor]:
        pixels = to_device(images, self.device).float().div_(self._scale).sub_(self._offset)
        encode = self._network.encode if is_exact or self._compiled is None else self._compiled
        with contextlib.nullcontext() if is_exact else self._autocast():
            latents = encode(pixels.contiguous(memory_format=self._memory_format))
        codes = to_cpu(self._network.quantize(latents.float()))
        is_finite = to_cpu(torch.isfinite(latents).all())

        def finish() -> Tensor:
            if not bool(is_finite()):
                raise UserError(
                    f"image.tokenizer={self.preset} computed values that are not finite with image.precision="
                    f"{self.precision}: use image.precision=fp32 (or bf16), or another checkpoint"
                )
            return codes()

        return finish

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
        pixels = pixels.float().mul(self._scale).add_(self._scale * self._offset)
        return pixels.round_().clamp_(0, 255).to(torch.uint8).to("cpu").contiguous()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[self.precision])


class Codebook(nn.Module):
    """Nearest codebook entry: Euclidean, or after L2 normalisation of both sides."""

    def __init__(self, codebook_size: int, embed_dim: int, *, is_cosine: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Module()  # nn.Embedding on the meta device imports a second's worth of sympy
        self.embedding.weight = nn.Parameter(torch.empty(codebook_size, embed_dim))
        self.is_cosine = is_cosine

    def entries(self) -> Tensor:
        weight = self.get_parameter("embedding.weight")
        return F.normalize(weight, p=2, dim=-1) if self.is_cosine else weight

    def forward(self, latents: Tensor) -> Tensor:
        """latents: [B, D, h, w] float32 -> codes [B, h, w] int32; ties go to the lower code."""
        batch, _, height, width = latents.shape
        rows = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
        if self.is_cosine:
            rows = F.normalize(rows, p=2, dim=-1)
        entries = self.entries()
        squares = entries.square().sum(dim=1)
        codes = [_nearest(some_rows, entries, squares) for some_rows in rows.split(LOOKUP_ROWS)]
        return torch.cat(codes).view(batch, height, width)

    def lookup(self, codes: Tensor) -> Tensor:
        """codes: [B, h, w] int64 -> latents [B, D, h, w]."""
        return F.embedding(codes, self.entries()).permute(0, 3, 1, 2)


class Signs(nn.Module):
    """Lookup-free quantization: each channel's sign is a bit of the code (Yu et al., "MAGVIT-v2", 2023).

    Latents become +1 or -1; zero counts as -1.
    """

    def __init__(self, num_bits: int, *, first_is_highest: bool) -> None:
        super().__init__()
        shifts = range(num_bits)
        self.shifts = tuple(reversed(shifts)) if first_is_highest else tuple(shifts)

    def forward(self, latents: Tensor) -> Tensor:
        """latents: [B, num_bits, h, w] -> codes [B, h, w] int32."""
        bits = [(latents[:, index] > 0).int() << shift for index, shift in enumerate(self.shifts)]
        return torch.stack(bits).sum(dim=0, dtype=torch.int32)

    def lookup(self, codes: Tensor) -> Tensor:
        """codes: [B, h, w] int64 -> latents [B, num_bits, h, w]."""
        bits = torch.stack([codes >> shift & 1 for shift in self.shifts], dim=1)
        return bits.float().mul_(2.0).sub_(1.0)


def _nearest(rows: Tensor, entries: Tensor, squares: Tensor) -> Tensor:
    """rows: [N, D], entries: [K, D], squares: [K] -> [N] int32.

    |z|^2 + |e|^2 - 2ze in this order, as the original programs do: the last bits decide between near entries.
    """
    distances = rows.square().sum(dim=1, keepdim=True) + squares
    distances = distances.addmm_(rows, entries.t(), alpha=-2)
    return distances.argmin(dim=1).int()


def _memory_format(device: torch.device, precision: str) -> torch.memory_format:
    """NHWC where convolutions run faster in it: on CPUs, and on the tensor cores of GPUs."""
    channels_first = device.type == "cuda" and precision == "fp32"
    return torch.contiguous_format if channels_first else torch.channels_last


def _filled_up(images: Tensor, num: int) -> Tensor:
    missing = num - len(images)
    return torch.cat([images, images.new_zeros(missing, *images.shape[1:])]) if missing else images


@functools.cache
def _keep_freed_memory() -> None:
    """Has glibc's malloc use freed memory again.

    It gives every activation of 32 MiB or more fresh pages, which the kernel must clear, and returns them at once: at
    256 x 256 pixels that costs as much time as the convolutions. Other C libraries have no such call.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, -1)


def check_images(images: Tensor, downsample: int) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        raise ValueError(f"expected images [B, 3, H, W] uint8, got {list(images.shape)} {images.dtype}")
    if not images.shape[0] or any(not side or side % downsample for side in images.shape[2:]):
        raise ValueError(f"expected images with sides in multiples of {downsample}, got {list(images.shape)}")
