"""Trains the embedded image tokenizer: steps that resume exactly after a kill.

Training improves on the warm start: straight-through gradients, the codebook follows its cells by moving averages, and
codes that nobody uses start again at a cell (van den Oord et al., "Neural Discrete Representation Learning", 2017;
Razavi et al., 2019).

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
from accelerate import Accelerator
from safetensors.torch import load_file, save
from torch import Tensor, nn

from hpcdata.base import files
from hpcdata.base.errors import UserError
from hpcdata.base.signals import StopFlag
from hpcdata.encoders.image import exact_vq
from hpcdata.encoders.image.exact_vq import ExactVq
from hpcdata.encoders.training.crops import Crops
from hpcdata.encoders.training.recipe import Recipe
from hpcdata.encoders.training.start import warm_start
from hpcdata.encoders.training.trained import Trained, exported

log = logging.getLogger(__name__)

STATE = "state.safetensors"
TOKENIZER = "tokenizer.safetensors"
WARM_UP_STEPS = 300
RESTART_EVERY = 200
"""Steps."""
COMMITMENT = 0.25
MAX_GRADIENT = 1.0
TYPICAL_SQUARED_ERROR = 0.0025
"""26 dB: makes the terms of the loss comparable."""


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
    trained = Trained(warm_start(crops, recipe) if is_new else ExactVq())
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
