"""The raw path: pictures and conversations -> training batches, decoded when they are loaded.

    dataset -> formatting -> preprocessor (pictures/, texts/) -> loading/ (order, packing, collation)

May use: base, samples, native, embedded, config, media, order, sources, runs, shards, dataset, encoders, loading,
report.

    values        what travels between the parts: Measure, PictureBlock, Turn
    timing        what the time of making examples goes into: read, decode, collate...
    datasets/     examples: classes of one's own, Hugging Face, every source that hpcdata reads; by name
    formatting/   fields of an example -> turns: prompts, styles, points, options
    pictures/     a picture -> crops, patches and its tokens; sizes alone -> how many
    texts/        turns -> ids, targets, weights, positions, branches; what is cut when it is too long
    loading/      measured lengths + order -> packed batches that resume exactly
    recipe        a loader as a file
    gallery/      examples to look at, before and after preprocessing
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcdata.multimodal.formatting.formatter import DataFormatter
    from hpcdata.multimodal.loading.collation import MMCollator
    from hpcdata.multimodal.loading.loader import MultimodalLoader
    from hpcdata.multimodal.loading.masks import branch_mask
    from hpcdata.multimodal.loading.mixture import IterableDatasetMixture, group_rates
    from hpcdata.multimodal.recipe import make_loader

_PLACES = {
    "DataFormatter": "formatting.formatter",
    "IterableDatasetMixture": "loading.mixture",
    "MMCollator": "loading.collation",
    "MultimodalLoader": "loading.loader",
    "branch_mask": "loading.masks",
    "group_rates": "loading.mixture",
    "make_loader": "recipe",
}
"""Public name -> its module, which is imported when the name is used: the room itself is light."""

__all__ = [
    "DataFormatter",
    "IterableDatasetMixture",
    "MMCollator",
    "MultimodalLoader",
    "branch_mask",
    "group_rates",
    "make_loader",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: it has {', '.join(_PLACES)}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_PLACES]
