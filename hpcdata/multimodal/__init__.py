"""The raw path: pictures and conversations -> training batches, decoded when they are loaded.

    dataset -> formatting -> preprocessor (pictures/, texts/) -> loading/ (order, packing, collation)

May use: base, samples, native, embedded, config, media, order, sources, runs, shards, catalogue, dataset, encoders,
loading, report.

    config        MolmoPreprocessorConfig: all settings of a preprocessor, by the names that Molmo has
    picture_settings  those of pictures, and backbones by name
    preprocessor  an example -> the arrays that a model is trained on
    assembly      texts and blocks of pictures -> these arrays
    rooms         what an example takes, from its measure, and what of it is left out
    parts         one picture or one conversation by itself
    values        what travels between the parts: Measure, PictureBlock, Turn
    image_files   pictures that are not decoded yet, and what an example may give as a picture
    timing        what the time of making examples goes into: read, decode, collate...
    datasets/     examples: classes of one's own, Hugging Face, every source that hpcdata reads; by name
    formatting/   fields of an example -> turns: prompts, styles, points, options
    pictures/     a picture -> crops, patches and its tokens; sizes alone -> how many
    texts/        turns -> ids, targets, weights, positions, branches; what is cut when it is too long
    loading/      measured lengths + order -> packed batches that resume exactly
    recipe        a loader as a file
    monitoring    waiting times and the work of making batches, step by step, as JSON lines or for TensorBoard
    gallery/      examples to look at, before and after preprocessing
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcdata.multimodal.config import MolmoPreprocessorConfig
    from hpcdata.multimodal.datasets.base import Dataset, DatasetBase
    from hpcdata.multimodal.datasets.deterministic import DeterministicDataset
    from hpcdata.multimodal.datasets.hugging_face import HfDataset
    from hpcdata.multimodal.datasets.measured import MeasuredDataset
    from hpcdata.multimodal.datasets.registry import get_dataset, register
    from hpcdata.multimodal.datasets.sources import SourceDataset
    from hpcdata.multimodal.formatting.formatter import DataFormatter
    from hpcdata.multimodal.image_files import PictureFile
    from hpcdata.multimodal.loading.collation import MMCollator
    from hpcdata.multimodal.loading.loader import MultimodalLoader
    from hpcdata.multimodal.loading.masks import branch_mask
    from hpcdata.multimodal.loading.mixture import IterableDatasetMixture, group_rates
    from hpcdata.multimodal.monitoring import Monitor
    from hpcdata.multimodal.parts import ImagePreprocessor, InterleavedTextPreprocessor
    from hpcdata.multimodal.pictures.augmenting import Augmentation
    from hpcdata.multimodal.pictures.llava import LlavaPictures
    from hpcdata.multimodal.pictures.molmo import MolmoPictures
    from hpcdata.multimodal.pictures.qwen import QwenPictures
    from hpcdata.multimodal.pictures.statistics import normalize
    from hpcdata.multimodal.preprocessor import MolmoPreprocessor
    from hpcdata.multimodal.recipe import make_loader
    from hpcdata.multimodal.values import PictureTokens

_PLACES = {
    **dict.fromkeys(("Dataset", "DatasetBase"), "datasets.base"),
    "DeterministicDataset": "datasets.deterministic",
    "HfDataset": "datasets.hugging_face",
    **dict.fromkeys(("get_dataset", "register"), "datasets.registry"),
    "MeasuredDataset": "datasets.measured",
    "SourceDataset": "datasets.sources",
    "DataFormatter": "formatting.formatter",
    "IterableDatasetMixture": "loading.mixture",
    "MMCollator": "loading.collation",
    "MultimodalLoader": "loading.loader",
    "branch_mask": "loading.masks",
    "group_rates": "loading.mixture",
    "make_loader": "recipe",
    "Monitor": "monitoring",
    "Augmentation": "pictures.augmenting",
    "LlavaPictures": "pictures.llava",
    "MolmoPictures": "pictures.molmo",
    "QwenPictures": "pictures.qwen",
    "normalize": "pictures.statistics",
    "PictureTokens": "values",
    "PictureFile": "image_files",
    "MolmoPreprocessorConfig": "config",
    "MolmoPreprocessor": "preprocessor",
    **dict.fromkeys(("ImagePreprocessor", "InterleavedTextPreprocessor"), "parts"),
}
"""Public name -> its module, which is imported when the name is used: the room itself is light."""

__all__ = [
    "Augmentation",
    "DataFormatter",
    "Dataset",
    "DatasetBase",
    "DeterministicDataset",
    "HfDataset",
    "ImagePreprocessor",
    "InterleavedTextPreprocessor",
    "IterableDatasetMixture",
    "LlavaPictures",
    "MMCollator",
    "MeasuredDataset",
    "MolmoPictures",
    "MolmoPreprocessor",
    "MolmoPreprocessorConfig",
    "Monitor",
    "MultimodalLoader",
    "PictureFile",
    "PictureTokens",
    "QwenPictures",
    "SourceDataset",
    "branch_mask",
    "get_dataset",
    "group_rates",
    "make_loader",
    "normalize",
    "register",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: it has {', '.join(_PLACES)}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_PLACES]
