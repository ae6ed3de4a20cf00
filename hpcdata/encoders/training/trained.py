"""The network while it is trained, and the weights that are shipped of it.

The encoder's weights and activations are rounded to their grid from the first step on, so that what is exported is what
was trained.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hpcdata.encoders.image import exact_vq
from hpcdata.encoders.image.exact_vq import ExactVq

DECAY = 0.995
"""Of the codebook's moving averages: a code remembers its last 200 steps."""
MIN_USE = 0.03
"""A code is restarted below this share of an even use."""
ROW_SUM = 58.0
"""Most that the absolute weights of one output of the encoder add up to, before rounding."""
INITIAL_COUNT = 0.25


class Rounded(nn.Module):
    """A weight of the encoder as it will be exported: multiples of 2^-10 below 2."""

    def forward(self, weight: Tensor) -> Tensor:
        sums = weight.abs().sum((1, 2, 3), keepdim=True)
        steps = weight * (ROW_SUM / sums.clamp(min=ROW_SUM) / exact_vq.WEIGHT_STEP)
        return exact_vq.round_through(steps.clamp(-exact_vq.MAX_STEPS, exact_vq.MAX_STEPS)) * exact_vq.WEIGHT_STEP

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


class RoundedBias(nn.Module):
    """A bias of the encoder: multiples of 1/8; learned in units of 64, the size of an activation."""

    def forward(self, bias: Tensor) -> Tensor:
        scaled = (bias * (64 / exact_vq.BIAS_STEP)).clamp(-exact_vq.MAX_STEPS, exact_vq.MAX_STEPS)
        return exact_vq.round_through(scaled) * exact_vq.BIAS_STEP

    def right_inverse(self, bias: Tensor) -> Tensor:
        return bias / 64


class Trained(nn.Module):
    """The network with rounding, and the codebook as moving averages over what its codes stood for."""

    counts: Tensor
    sums: Tensor

    def __init__(self, network: ExactVq) -> None:
        super().__init__()
        self.network = network
        self.network.codebook.requires_grad_(False)
        for module in self.network.encoder.modules():
            if isinstance(module, nn.Conv2d):
                parametrize.register_parametrization(module, "weight", Rounded())
                parametrize.register_parametrization(module, "bias", RoundedBias())
        self.register_buffer("counts", torch.full((exact_vq.CODEBOOK_SIZE,), INITIAL_COUNT))
        self.register_buffer("sums", network.codebook.detach() * INITIAL_COUNT)

    def forward(self, ink: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ink: [B, 3, H, W] -> what comes back, in units of white; latents [N, 32]; their codes [N].

        Called under accelerate's autocast, which is for the decoder alone.
        """
        with torch.autocast(ink.device.type, enabled=False):
            grid = self.network.encoder(ink)
            latents = grid.permute(0, 2, 3, 1).reshape(-1, exact_vq.LATENT_CHANNELS)
            with torch.no_grad():
                codes = exact_vq.nearest(latents, self.network.codebook)
                entries = self.network.codebook[codes].view(grid.shape[0], *grid.shape[2:], -1).permute(0, 3, 1, 2)
            quantized = (grid + (entries - grid).detach()) / exact_vq.LATENT_UNIT
        return self.network.decoder(quantized).float(), latents, codes

    @torch.no_grad()
    def follow(self, counts: Tensor, sums: Tensor) -> None:
        """Moves the codebook towards the latents of one step: how many each code stood for, and their sums."""
        self.counts.lerp_(counts, 1 - DECAY)
        self.sums.lerp_(sums, 1 - DECAY)
        self.refresh()

    @torch.no_grad()
    def restart(self, latents: Tensor, rng: np.random.Generator) -> int:
        """Puts codes that are hardly used on random latents; returns how many."""
        even = self.counts.sum() / exact_vq.CODEBOOK_SIZE
        unused = torch.nonzero(self.counts < MIN_USE * even).squeeze(1)
        unused = unused[: len(latents)]
        drawn = latents[torch.from_numpy(rng.permutation(len(latents))[: len(unused)]).to(latents.device)]
        self.counts[unused] = even / 4
        self.sums[unused] = drawn * even / 4
        self.refresh()
        return len(unused)

    def refresh(self) -> None:
        self.network.codebook.data = (self.sums / self.counts.clamp(min=1e-6)[:, None]).round_()


def exported(trained: Trained) -> dict[str, Tensor]:
    """The weights as they are shipped, fp16: white is code 0, the others go from light to dark."""
    network = ExactVq()
    source = trained.network
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            other = source.get_submodule(name)
            assert isinstance(other, nn.Conv2d)
            assert module.bias is not None
            assert other.bias is not None
            module.weight.data, module.bias.data = other.weight.detach().cpu(), other.bias.detach().cpu()
    network.codebook.data = _sorted(network, source.codebook.detach().cpu())
    return {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}


@torch.no_grad()
def _sorted(network: ExactVq, codebook: Tensor) -> Tensor:
    """White first, the others from light to dark.

    Cells at the border of white paper may have codes of their own; these become copies of white, which nothing uses.
    """
    paper = network.encoder(torch.zeros(1, 3, 72, 72))[0].permute(1, 2, 0)
    white = codebook[exact_vq.nearest(paper[4, 4][None], codebook)].clone()
    while True:
        codes = exact_vq.nearest(paper.flatten(0, 1), codebook)
        if codebook[codes].eq(white).all():
            break
        codebook[codes] = white
    ink = network.decoder.linear(codebook[:, :, None, None]).mean(dim=(1, 2, 3))
    ink[codebook.eq(white).all(1)] = -math.inf
    return codebook[ink.argsort(stable=True)].clone()
