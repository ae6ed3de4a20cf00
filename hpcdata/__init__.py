"""Training-ready multimodal token datasets, made on preemptible clusters and fed to distributed training.

`from hpcdata import TokenDataset, TokenLoader` is all that a training script needs. The names are resolved when
they are used, so that command lines which never load a batch do not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcdata.loading.dataset import TokenDataset
    from hpcdata.loading.layout import T2I, Text
    from hpcdata.loading.loader import TokenLoader

    __version__: str

__all__ = ["T2I", "Text", "TokenDataset", "TokenLoader", "__version__"]

_HOMES = {
    "TokenDataset": "hpcdata.loading.dataset",
    "TokenLoader": "hpcdata.loading.loader",
    "T2I": "hpcdata.loading.layout",
    "Text": "hpcdata.loading.layout",
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
