"""The tokenizers of a run, built as its plan says from the files that its latest launch named."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcdata.encoders.examples import BatchEncoder
from hpcdata.encoders.image.codes import PictureEncoder

if TYPE_CHECKING:
    from hpcdata.config.schema import RunConfig
    from hpcdata.encoders.image.tokenizer import ImageTokenizer
    from hpcdata.encoders.text.tokenizer import TextTokenizer
    from hpcdata.runs.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Tokenizers:
    text: TextTokenizer | None
    image: ImageTokenizer | None
    device: str
    """What the image tokenizer runs on, "none" without one."""

    def encoder(self, plan: Plan, *, with_images: bool = True) -> BatchEncoder:
        config = plan.config
        pictures = None
        if self.image is not None and with_images:
            compares = config.image.precision != "fp32" or config.image.compile
            pictures = PictureEncoder(self.image, batch_size=plan.picture_batch_size, compares=compares)
        return BatchEncoder(
            text=self.text, image=pictures, block_size=config.data.block_size, keeps_texts=config.text.keep_raw
        )


def build(plan: Plan, runtime: RunConfig) -> Tokenizers:
    """Raises UserError when a file is not the one that was planned with."""
    tokenizer, device = build_text(plan, runtime), "none"
    codec = None
    if plan.image is not None:
        from hpcdata.encoders.image import tokenizer as image

        device = device_of(runtime)
        threads, batch_size = plan.config.image.cpu_threads, plan.picture_batch_size
        codec = image.build(
            plan.image, runtime.image.checkpoint, device, threads, batch_size, is_compiled=plan.config.image.compile
        )
    return Tokenizers(text=tokenizer, image=codec, device=device)


def build_text(plan: Plan, runtime: RunConfig) -> TextTokenizer | None:
    from hpcdata.encoders.text import tokenizer as text

    config = runtime.text
    if not plan.text or not config.tokenizer:
        return None
    return text.build(plan.text, config.tokenizer, engine=config.engine)


def device_of(runtime: RunConfig) -> str:
    """What the image tokenizer of this process runs on. Raises UserError for a GPU that is not there."""
    from hpcdata.encoders.image import tokenizer as image

    return image.resolve_device(_local_device(runtime.image.device))


def _local_device(device: str) -> str:
    """`auto` and `cuda` become this process's own GPU where a node runs several processes."""
    local_rank = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID"))
    if device not in ("auto", "cuda") or local_rank is None:
        return device
    import torch

    num_gpus = torch.cuda.device_count()
    return f"cuda:{int(local_rank) % num_gpus}" if num_gpus else device
