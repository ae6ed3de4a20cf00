"""Training-ready multimodal token datasets, made on preemptible clusters and fed to distributed training.

`from hpcdata import TokenDataset, TokenLoader` is all that a training script needs. The names are resolved when
they are used, so that command lines which never load a batch do not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcdata.dataset.dataset import TokenDataset
    from hpcdata.loading.background import BackgroundLoader
    from hpcdata.loading.layouts.named import SFT, T2I, Caption, Interleaved, LiquidT2I, Text
    from hpcdata.loading.layouts.widening import widen
    from hpcdata.loading.loader import TokenLoader
    from hpcdata.loading.token_streams import Mixture, Source
    from hpcdata.order.packing import BestFit, Buckets, Concat

    __version__: str

__all__ = [
    "SFT",
    "T2I",
    "BackgroundLoader",
    "BestFit",
    "Buckets",
    "Caption",
    "Concat",
    "Interleaved",
    "LiquidT2I",
    "Mixture",
    "Source",
    "Text",
    "TokenDataset",
    "TokenLoader",
    "__version__",
    "widen",
]

_HOMES = {
    "TokenDataset": "hpcdata.dataset.dataset",
    "TokenLoader": "hpcdata.loading.loader",
    **dict.fromkeys(("SFT", "T2I", "Caption", "Interleaved", "LiquidT2I", "Text"), "hpcdata.loading.layouts.named"),
    **dict.fromkeys(("BestFit", "Buckets", "Concat"), "hpcdata.order.packing"),
    **dict.fromkeys(("Mixture", "Source"), "hpcdata.loading.token_streams"),
    "BackgroundLoader": "hpcdata.loading.background",
    "widen": "hpcdata.loading.layouts.widening",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'hpcdata' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("hpcdata")
    except PackageNotFoundError:  # a checkout on the path, never installed
        return "0+unknown"
