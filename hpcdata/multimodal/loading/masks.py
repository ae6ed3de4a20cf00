"""Which token may attend to which, where rows hold several examples, or examples with branches.

Branches share the pictures and the text before them and know nothing of each other. `subsegment_ids` say so: a token
may attend to earlier ones of its example whose id is not below its own; what is shared has the highest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def branch_mask(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """[rows, 1, columns, columns] bool, of queries and keys: True where one may attend to the other.

    From `segment_ids` (without them, all columns are one example) and `subsegment_ids` (without them, no branches).
    Padding attends to padding, so that nothing is without anything to attend to.
    """
    import torch

    rows, columns = batch["input_ids"].shape
    mask = torch.ones(columns, columns, dtype=torch.bool, device=batch["input_ids"].device).tril()
    mask = mask.expand(rows, 1, columns, columns)
    if "segment_ids" in batch:
        segments = batch["segment_ids"]
        mask = mask & (segments[:, None, :, None] == segments[:, None, None, :])
    if "subsegment_ids" in batch:
        branches = batch["subsegment_ids"]
        mask = mask & (branches[:, None, None, :] >= branches[:, None, :, None])
    return mask
