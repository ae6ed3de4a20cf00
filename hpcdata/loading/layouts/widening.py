"""`widen`: batches of 16-bit ids, made with `ids="uint16"`, as int64 on the device.

    loader = TokenLoader("/out", global_batch_size=256, layout=T2I(ids="uint16"))
    for batch in BackgroundLoader(loader, pin_memory=True):
        batch = widen(batch, "cuda")

Such a batch is less than half as many bytes to make, pin and copy: ids and positions are uint16, and instead of labels
there is a mask of those ids that have one. What comes out is equal to what the layout makes without the option.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hpcdata.native.arrays import IGNORED_LABEL

if TYPE_CHECKING:
    import torch


def widen(batch: Mapping[str, torch.Tensor], device: torch.device | str | None = None) -> dict[str, torch.Tensor]:
    """The batch on `device` (None: where it is) with int64 ids, labels and positions; one that is wide only moves."""
    import torch

    moved = dict(batch)
    if device is not None:
        moved = {k: v.to(device, non_blocking=True) if hasattr(v, "to") else v for k, v in batch.items()}
    for key in ("input_ids", "position_ids"):
        if key in moved:
            moved[key] = moved[key].to(torch.int64)
    if "loss_mask" in moved:
        ids = moved["input_ids"]
        moved["labels"] = ids.masked_fill(~moved.pop("loss_mask"), IGNORED_LABEL)
    return moved
