"""`loader.batch_size=auto`: found once for a run, by its first task on its own device, and kept in `batch_size.json`.

The login node that plans a run has no GPU, and the size must not differ between tasks: batches are what checkpoints
count and what a GPU's kernels are chosen by. Whoever creates the file first has found it; all others read it. On a GPU
the size doubles as long as that makes encoding faster and fits into memory. A CPU encodes one picture at a time
whatever the batch, so nothing is measured there.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hpcdata.base import files, sealed
from hpcdata.encoders import building
from hpcdata.encoders.examples import PixelOptions
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import SIZES_A_BATCH, Plan, load_plan

if TYPE_CHECKING:
    from hpcdata.config.schema import RunConfig
    from hpcdata.encoders.image.tokenizer import ImageTokenizer

log = logging.getLogger(__name__)

ON_CPU = 16
LARGEST = 512
WORTH_IT = 1.03
"""A batch of twice the size is taken if it encodes so much faster."""
TIMED_S = 0.5
FREE_SHARE = 0.2
"""Of a GPU's memory stays free, for other sizes of pictures and for what shares the device."""


def settle(plan: Plan, paths: RunPaths, runtime: RunConfig) -> Plan:
    """The plan with a batch size, which is found now if no task has found one yet."""
    if plan.found_batch_size is not None or plan.config.loader.batch_size != "auto":
        return plan
    size = _find(plan, runtime)
    if files.create_exclusive(paths.batch_size, sealed.to_json({"batch_size": size})):
        log.info("loader.batch_size=auto: %d", size)
    return load_plan(paths.root)


def best_size(rate: Callable[[int], float | None]) -> int:
    """The size up to which doubling is worth it. rate: pictures a second of a size, None if it does not fit."""
    size, best = 1, rate(1)
    while best is not None and size < LARGEST:
        faster = rate(2 * size)
        if faster is None or faster < WORTH_IT * best:
            break
        size, best = 2 * size, faster
    return size


def _find(plan: Plan, runtime: RunConfig) -> int:
    if plan.image is None:
        return ON_CPU
    from hpcdata.encoders.image import tokenizer as image

    device = building.device_of(runtime)
    if device == "cpu":
        return ON_CPU
    tokenizer = image.build(plan.image, runtime.image.checkpoint, device, plan.config.image.cpu_threads)
    pixels = PixelOptions.of(plan)
    assert pixels is not None
    largest = math.isqrt(max(height * width for height, width in pixels.sizes))
    side = max(1, largest // plan.image.downsample) * plan.image.downsample
    size = best_size(lambda size: _rate(tokenizer, size, side, device))
    return size * SIZES_A_BATCH if plan.config.data.keeps_shapes else size


def _rate(tokenizer: ImageTokenizer, size: int, side: int, device: str) -> float | None:
    """Pictures a second; None if they do not fit into the memory of the GPU with some to spare."""
    import torch

    pictures = torch.zeros(size, 3, side, side, dtype=torch.uint8)
    try:
        tokenizer.encode(pictures)
        started, num_calls = time.perf_counter(), 0
        while time.perf_counter() - started < TIMED_S:
            tokenizer.encode(pictures)
            num_calls += 1
        seconds = time.perf_counter() - started
        free, total = torch.cuda.mem_get_info(device)
    except torch.OutOfMemoryError:
        return None
    finally:
        torch.cuda.empty_cache()
    return num_calls * size / seconds if free >= FREE_SHARE * total else None
