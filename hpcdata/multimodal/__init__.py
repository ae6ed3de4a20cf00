"""The raw path: pictures and conversations -> training batches, decoded when they are loaded.

    dataset -> formatting -> preprocessor (pictures/, texts/) -> loading/ (order, packing, collation)

May use: base, samples, native, embedded, config, media, order, sources, runs, shards, dataset, encoders, loading.

    values        what travels between the parts: Measure, PictureBlock, Turn
    image_files   pictures that are not decoded yet, and what an example may give as a picture
    datasets/     examples: classes of one's own, Hugging Face, every source that hpcdata reads; by name
    formatting/   fields of an example -> turns: prompts, styles, points, options
    pictures/     a picture -> crops, patches and its tokens; sizes alone -> how many
    texts/        turns -> ids, targets, weights, positions, branches; what is cut when it is too long
    loading/      measured lengths + order -> packed batches that resume exactly
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcdata.multimodal.datasets.base import Dataset, DatasetBase
    from hpcdata.multimodal.datasets.deterministic import DeterministicDataset
    from hpcdata.multimodal.datasets.hugging_face import HfDataset
    from hpcdata.multimodal.datasets.registry import get_dataset, register
    from hpcdata.multimodal.image_files import PictureFile

__all__ = [
    "Dataset",
    "DatasetBase",
    "DeterministicDataset",
    "HfDataset",
    "PictureFile",
    "get_dataset",
    "register",
]

_HOMES = {
    **dict.fromkeys(("Dataset", "DatasetBase"), "datasets.base"),
    "DeterministicDataset": "datasets.deterministic",
    "HfDataset": "datasets.hugging_face",
    **dict.fromkeys(("get_dataset", "register"), "datasets.registry"),
    "PictureFile": "image_files",
}
"""Name -> its module in this room. Importing the room imports none of them."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(importlib.import_module(f"hpcdata.multimodal.{_HOMES[name]}"), name)
        raise AttributeError(f"module 'hpcdata.multimodal' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
