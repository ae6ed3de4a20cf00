"""Training-ready multimodal token datasets, made on preemptible clusters and fed to distributed training.

    run = hpcdata.run(["+experiments=quickstart"])                      what the commands do: see `Run`
    loader = hpcdata.TokenLoader(run.dataset(), global_batch_size=8)    what a training script needs

The names are resolved when they are used, so that command lines which never load a batch do not wait for torch.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if sys.argv[:1] == ["-m"]:  # `python -m hpcdata.X` is looking for X
    from hpcdata.base.command import require_command

    require_command(sys.orig_argv)

if TYPE_CHECKING:
    from hpcdata.api.running import Run, run
    from hpcdata.base.errors import UserError
    from hpcdata.config.schema import RunConfig
    from hpcdata.dataset.dataset import TokenDataset
    from hpcdata.dataset.decoding import Decoded, DecodedImage, DecodedText
    from hpcdata.loading.background import BackgroundLoader
    from hpcdata.loading.layouts.named import SFT, T2I, Caption, Interleaved, LiquidT2I, Text
    from hpcdata.loading.layouts.templates import ChatTemplate
    from hpcdata.loading.layouts.widening import widen
    from hpcdata.loading.loader import TokenLoader
    from hpcdata.loading.replaying import batch_digest
    from hpcdata.loading.selecting import select
    from hpcdata.loading.token_streams import Mixture, Source
    from hpcdata.order.mixing.schedule import WeightsFrom
    from hpcdata.order.packing import BestFit, Buckets, Concat
    from hpcdata.report.status import Status

    __version__: str

__all__ = [
    "SFT",
    "T2I",
    "BackgroundLoader",
    "BestFit",
    "Buckets",
    "Caption",
    "ChatTemplate",
    "Concat",
    "Decoded",
    "DecodedImage",
    "DecodedText",
    "Interleaved",
    "LiquidT2I",
    "Mixture",
    "Run",
    "RunConfig",
    "Source",
    "Status",
    "Text",
    "TokenDataset",
    "TokenLoader",
    "UserError",
    "WeightsFrom",
    "__version__",
    "batch_digest",
    "run",
    "select",
    "widen",
]

_HOMES = {
    "Run": "hpcdata.api.running",
    "run": "hpcdata.api.running",
    "RunConfig": "hpcdata.config.schema",
    "Status": "hpcdata.report.status",
    "UserError": "hpcdata.base.errors",
    "TokenDataset": "hpcdata.dataset.dataset",
    **dict.fromkeys(("Decoded", "DecodedImage", "DecodedText"), "hpcdata.dataset.decoding"),
    "TokenLoader": "hpcdata.loading.loader",
    **dict.fromkeys(("SFT", "T2I", "Caption", "Interleaved", "LiquidT2I", "Text"), "hpcdata.loading.layouts.named"),
    **dict.fromkeys(("BestFit", "Buckets", "Concat"), "hpcdata.order.packing"),
    **dict.fromkeys(("Mixture", "Source"), "hpcdata.loading.token_streams"),
    "select": "hpcdata.loading.selecting",
    "WeightsFrom": "hpcdata.order.mixing.schedule",
    "BackgroundLoader": "hpcdata.loading.background",
    "batch_digest": "hpcdata.loading.replaying",
    "ChatTemplate": "hpcdata.loading.layouts.templates",
    "widen": "hpcdata.loading.layouts.widening",
}


if not TYPE_CHECKING:  # type checkers know the names above, and no others

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
