"""Trains the embedded image tokenizer: warm start, steps that resume exactly after a kill, export.

The start is a classic patch quantizer: principal components of 8 x 8 cells, k-means in them (Linde, Buzo and Gray,
1980), and the networks add nothing yet. Training improves on it: straight-through gradients, the codebook follows its
cells by moving averages, and codes that nobody uses start again at a cell (van den Oord et al., "Neural Discrete
Representation Learning", 2017; Razavi et al., 2019). The encoder's weights and activations are rounded to their grid
from the first step on, so that what is exported is what was trained.

OUT/state.safetensors   a checkpoint: parameters, Adam's moments, moving averages, the step
OUT/tokenizer.safetensors   the finished tokenizer, for `exact_vq.load`
"""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from accelerate import Accelerator
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hpcdata.base import files
from hpcdata.base.errors import UserError
from hpcdata.base.signals import StopFlag
from hpcdata.encoders.image import exact_vq
from hpcdata.encoders.image.exact_vq import ExactVq
from hpcdata.encoders.training.crops import Crops
from hpcdata.encoders.training.recipe import Recipe

log = logging.getLogger(__name__)

STATE = "state.safetensors"
TOKENIZER = "tokenizer.safetensors"
WARM_UP_STEPS = 300
DECAY = 0.995
"""Of the codebook's moving averages: a code remembers its last 200 steps."""
RESTART_EVERY = 200
MIN_USE = 0.03
"""A code is restarted below this share of an even use."""
COMMITMENT = 0.25
MAX_GRADIENT = 1.0
ROW_SUM = 58.0
"""Most that the absolute weights of one output of the encoder add up to, before rounding."""
NUM_INITIAL_STEPS = 400
FIRST_INITIAL_STEP = 2**40
"""Steps from here on are drawn for the warm start."""
NUM_ROUNDS = 10
PAPER = 5
"""A cell with less ink anywhere is paper, which needs no code but the first."""
INITIAL_COUNT = 0.25
TYPICAL_SQUARED_ERROR = 0.0025
"""26 dB: makes the terms of the loss comparable."""


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


def train(recipe: Recipe, *, stop: StopFlag) -> bool:
    """Runs or continues a training; False if a signal stopped it before the end, after a checkpoint."""
    torch.set_num_threads(recipe.threads)
    accelerator = Accelerator(mixed_precision=recipe.precision)
    out = Path(recipe.output_dir)
    out.mkdir(parents=True, exist_ok=True)
    if recipe.side % exact_vq.DOWNSAMPLE or recipe.batch_size % accelerator.num_processes:
        raise UserError(
            f"side={recipe.side} must be a multiple of {exact_vq.DOWNSAMPLE}, batch_size={recipe.batch_size} of the "
            f"{accelerator.num_processes} processes"
        )
    crops = Crops(
        drawings=recipe.drawings,
        photos=recipe.photos,
        photo_share=recipe.photo_share,
        side=recipe.side,
        seed=recipe.seed,
    )
    torch.manual_seed(recipe.seed)
    is_new = not (out / STATE).exists()
    trained = Trained(_warm_start(crops, recipe) if is_new else ExactVq())
    trained.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam([p for p in trained.parameters() if p.requires_grad], lr=recipe.learning_rate)
    step = 0 if is_new else _restore(out / STATE, trained, optimizer)
    model = accelerator.prepare(trained)
    optimizer = accelerator.prepare(optimizer)
    saved_at = time.monotonic()
    meter = _Meter(recipe, step)
    while step < recipe.num_steps and stop.received is None:
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe.num_steps)
        squared_error = _step(accelerator, model, optimizer, crops, recipe, step)
        step += 1
        meter.add(squared_error, trained, step)
        if time.monotonic() - saved_at > recipe.save_every_s:
            _save(accelerator, out / STATE, trained, optimizer, step)
            saved_at = time.monotonic()
    _save(accelerator, out / STATE, trained, optimizer, step)
    if step < recipe.num_steps:
        return False
    if accelerator.is_main_process:
        files.write_atomic(out / TOKENIZER, save(exported(trained)))
    return True


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


def _step(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    crops: Crops,
    recipe: Recipe,
    step: int,
) -> Tensor:
    """One update of the networks and the codebook; returns the squared error."""
    trained = accelerator.unwrap_model(model)
    indices = range(accelerator.process_index, recipe.batch_size, accelerator.num_processes)
    pixels = torch.from_numpy(crops.batch(step, indices)).to(accelerator.device)
    ink = (255 - pixels).float().contiguous(memory_format=torch.channels_last)
    back, latents, codes = model(ink)
    loss, squared_error = _loss(back, ink / 255)
    chosen = trained.network.codebook[codes]
    cell_error = (latents - chosen).square().sum(1).mean() * (exact_vq.LATENT_STEP / 255) ** 2 / (3 * 64)
    accelerator.backward(loss + COMMITMENT * cell_error / TYPICAL_SQUARED_ERROR)
    accelerator.clip_grad_norm_(trained.parameters(), MAX_GRADIENT)
    optimizer.step()
    optimizer.zero_grad()
    latents = latents.detach()
    counts = torch.zeros_like(trained.counts).index_add_(0, codes, torch.ones_like(codes, dtype=torch.float32))
    sums = torch.zeros_like(trained.sums).index_add_(0, codes, latents)
    trained.follow(accelerator.reduce(counts), accelerator.reduce(sums))
    if step and step % RESTART_EVERY == 0 and step < recipe.num_steps * 0.8:
        num = trained.restart(accelerator.gather(latents), np.random.default_rng([recipe.seed, step]))
        log.info("step %d: %d codes restarted", step, num)
    return squared_error


def _loss(back: Tensor, ink: Tensor) -> tuple[Tensor, Tensor]:
    """Squared and absolute errors, and those of differences between neighbours, which keep edges sharp."""
    error = back - ink
    squared = error.square().mean()
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    typical = math.sqrt(TYPICAL_SQUARED_ERROR)
    return squared / TYPICAL_SQUARED_ERROR + (0.5 * error.abs().mean() + 0.25 * edges) / typical, squared.detach()


def _schedule(step: int, num_steps: int) -> float:
    """Warm-up, then a cosine down to 2 %."""
    progress = min(1.0, step / num_steps)
    return min(1.0, (step + 1) / WARM_UP_STEPS) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


@torch.no_grad()
def _warm_start(crops: Crops, recipe: Recipe) -> ExactVq:
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


def _restore(path: Path, trained: Trained, optimizer: torch.optim.Optimizer) -> int:
    """Reads a checkpoint; returns its step."""
    state = load_file(path)
    trained.load_state_dict({name: state[f"model.{name}"] for name in trained.state_dict()})
    step = int(state["step"])
    for number, parameter in enumerate(optimizer.param_groups[0]["params"]):
        moments = {name: state[f"adam.{number}.{name}"].to(parameter.device) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.tensor(float(step)), **moments}
    log.info("continues at step %d", step)
    return step


def _save(accelerator: Accelerator, path: Path, trained: Trained, optimizer: torch.optim.Optimizer, step: int) -> None:
    if not step or not accelerator.is_main_process:  # before the first step there is nothing but the warm start
        return
    state = {f"model.{name}": tensor for name, tensor in trained.state_dict().items()}
    for number, parameter in enumerate(optimizer.param_groups[0]["params"]):
        for name in ("exp_avg", "exp_avg_sq"):
            state[f"adam.{number}.{name}"] = optimizer.state[parameter][name]
    state["step"] = torch.tensor(step)
    files.write_atomic(path, save({name: tensor.cpu().contiguous() for name, tensor in state.items()}))


class _Meter:
    """Logs how it goes, twenty times in a training and at least every hundred steps."""

    def __init__(self, recipe: Recipe, step: int) -> None:
        self._every = max(1, min(200, recipe.num_steps // 20))
        self._num_steps = recipe.num_steps
        self._errors: list[Tensor] = []
        self._started = time.monotonic()
        self._first = step

    def add(self, squared_error: Tensor, trained: Trained, step: int) -> None:
        self._errors.append(squared_error)
        if step % self._every:
            return
        psnr = -10 * math.log10(torch.stack(self._errors).mean().item() + 1e-9)
        self._errors.clear()
        share = trained.counts / trained.counts.sum()
        perplexity = math.exp(-(share * share.clamp(min=1e-12).log()).sum().item())
        rate = (step - self._first) / (time.monotonic() - self._started)
        log.info("step %d of %d: %.2f dB, perplexity %.0f, %.1f steps/s", step, self._num_steps, psnr, perplexity, rate)
