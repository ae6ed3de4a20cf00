"""What a training of the embedded image tokenizer is made with: `jobs/train_image_tokenizer.py` fills it in.

Values only, no torch. Unknown keys and wrong types fail as in a run's configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Recipe:
    output_dir: str
    """Checkpoint and result; the same folder again continues."""
    drawings: list[str]
    """Picture files, globs, or `.txt` files with one path a line."""
    photos: list[str]
    """The same; each is shown at several sizes."""
    photo_share: float = 0.5
    num_steps: int = 16_000
    batch_size: int = 12
    """Crops of one step, over all processes."""
    side: int = 80
    """Of a crop, in pixels; a multiple of 8."""
    learning_rate: float = 1e-3
    """Of Adam after warm-up; falls to 2 % by a cosine."""
    seed: int = 0
    save_every_s: float = 60.0
    precision: Literal["no", "bf16", "fp16"] = "bf16"
    """Of the decoder while it is trained. The encoder is always exact, and nothing else is exported in half."""
    threads: int = 1
