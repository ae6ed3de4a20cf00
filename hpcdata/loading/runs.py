"""Sequences -> arrays: runs of stored ids and literals, laid end to end in bins of one width."""

from __future__ import annotations

import numpy as np

from hpcdata.loading.compiled import kernels
from hpcdata.loading.dataset import TokenDataset
from hpcdata.loading.placed import Bins
from hpcdata.loading.sequences import Sequences
from hpcdata.loading.tiled import Tiled
from hpcdata.loading.windowed import Windowed


def assemble(
    dataset: TokenDataset,
    sequences: Sequences,
    bins: Bins,
    keys: tuple[str, ...],
    pad: int = 0,
    id_dtype: str = "int64",
    narrow: str = "int64",
) -> dict[str, np.ndarray]:
    """The arrays `keys`, of shape [num_bins, width] and as hpcdata.loading.layout says.

    `narrow`: a dtype that holds every id of the layout.
    """
    make = Windowed if kernels() is None else Tiled
    placed = make(dataset, sequences, bins, pad=pad, id_dtype=id_dtype, narrow=narrow)
    arrays: dict[str, np.ndarray] = {}
    if "attention_mask" in keys:
        arrays["attention_mask"] = placed.valid
    if "input_ids" in keys:
        arrays["input_ids"] = placed.ids()
    if "labels" in keys and id_dtype == "int64":
        arrays["labels"] = placed.labels()
    elif "labels" in keys:
        arrays["loss_mask"] = placed.loss_mask()
    if "modality" in keys:
        arrays["modality"] = placed.modality()
    if "position_ids" in keys:
        arrays["position_ids"] = placed.positions()
    if "segment_ids" in keys:
        arrays["segment_ids"] = placed.segments()
    shaped = {key: arrays[key] for key in (*keys, "loss_mask") if key in arrays}
    if "cu_seqlens" in keys:
        edges = placed.edges()
        shaped["cu_seqlens"] = edges.astype(np.int32)
        shaped["max_seqlen"] = np.array(np.diff(edges).max(initial=0))
    return shaped
