"""Which token may attend to which, where rows hold several examples, or examples with branches.

Branches share the pictures and the text before them and know nothing of each other. `subsegment_ids` say so: a token
may attend to earlier ones of its example whose id is not below its own; what is shared has the highest.
"""

from __future__ import annotations

import itertools
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
    device, branches = batch["input_ids"].device, batch.get("subsegment_ids")
    segments = batch.get("segment_ids", torch.zeros(rows, columns, dtype=torch.int32, device=device))
    mask = torch.zeros(rows, 1, columns, columns, dtype=torch.bool, device=device)
    for row in range(rows):
        edges = (segments[row, 1:] != segments[row, :-1]).nonzero()[:, 0] + 1
        for start, stop in itertools.pairwise([0, *edges.tolist(), columns]):
            block = mask[row, 0, start:stop, start:stop]
            block.fill_(True)
            block.tril_()
            if branches is not None:
                its = branches[row, start:stop]
                block &= its[None, :] >= its[:, None]
    return mask
