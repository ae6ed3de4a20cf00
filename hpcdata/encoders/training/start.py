"""The warm start of a training: a classic patch quantizer, to which the networks add nothing yet.

Principal components of 8 x 8 cells, and k-means in them (Linde, Buzo and Gray, 1980).
"""

from __future__ import annotations

import logging
import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from hpcdata.encoders.image import exact_vq
from hpcdata.encoders.image.exact_vq import ExactVq
from hpcdata.encoders.training.crops import Crops
from hpcdata.encoders.training.recipe import Recipe

log = logging.getLogger(__name__)

NUM_INITIAL_STEPS = 400
FIRST_INITIAL_STEP = 2**40
"""Steps from here on are drawn for the warm start."""
NUM_ROUNDS = 10
PAPER = 5
"""A cell with less ink anywhere is paper, which needs no code but the first."""


@torch.no_grad()
def warm_start(crops: Crops, recipe: Recipe) -> ExactVq:
    """A patch quantizer in the principal components of cells; the networks' last layers are zero."""
    ink = [255 - crops.batch(FIRST_INITIAL_STEP + step, range(recipe.batch_size)) for step in range(NUM_INITIAL_STEPS)]
    cells = torch.cat([F.pixel_unshuffle(torch.from_numpy(some), 8).permute(0, 2, 3, 1).flatten(0, 2) for some in ink])
    cells = cells[(cells > PAPER).any(1)].float()
    _, vectors = torch.linalg.eigh((cells.T @ cells).double())
    components = vectors.flip(1)[:, : exact_vq.LATENT_CHANNELS].float()
    network = ExactVq()
    _initialize(network)
    network.encoder.linear.weight.copy_(components.T.reshape(-1, 3, 8, 8))
    unit = exact_vq.LATENT_STEP * exact_vq.LATENT_UNIT / 255
    network.decoder.linear.weight.copy_((components * unit)[:, :, None, None])
    latents = (cells @ components / exact_vq.LATENT_STEP).round_()
    network.codebook.copy_(_means(latents, np.random.default_rng(recipe.seed)))
    return network


def _initialize(network: ExactVq) -> None:
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            is_last = name.endswith(("conv_2", "out"))
            scale = 0.0 if is_last else 0.7 * math.sqrt(2 / module.weight[0].numel())
            module.weight.normal_().mul_(scale)
            assert module.bias is not None
            module.bias.zero_()


def _means(latents: Tensor, rng: np.random.Generator) -> Tensor:
    """k-means: [4096, 32] integers, entry 0 is white."""
    num = exact_vq.CODEBOOK_SIZE
    codebook = latents[torch.from_numpy(rng.choice(len(latents), num, replace=len(latents) < num))].clone()
    for number in range(NUM_ROUNDS):
        codebook[0] = 0
        codes = exact_vq.nearest(latents, codebook)
        counts = torch.bincount(codes, minlength=num)
        sums = torch.zeros_like(codebook).index_add_(0, codes, latents)
        error = (latents - codebook[codes]).square().sum(1).mean().item()
        log.info("k-means round %d: squared error %.0f, %d codes empty", number, error, int((counts == 0).sum()))
        codebook = torch.where(counts[:, None] > 0, (sums / counts.clamp(min=1)[:, None]).round(), codebook)
        empty = torch.nonzero(counts == 0).squeeze(1)
        codebook[empty] = latents[torch.from_numpy(rng.integers(len(latents), size=len(empty)))]
    codebook[0] = 0
    return codebook
