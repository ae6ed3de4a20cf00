"""A loader of raw examples as a file: what `hpcdata replay` makes a training's batches from once more.

    datasets:                       # names, paths, or with the options of a source
      - {dataset: /data/captions, weight: 3}
      - {dataset: pixmo_cap, split: train, weight: 1}
    preprocessor: {tokenizer: embedded, max_crops: 6}           # MolmoPreprocessorConfig
    mixture: {policy: repeat}                                   # IterableDatasetMixture; where there are several
    loader: {global_batch_size: 32, packing: 4096, max_crops: 24, seed: 7}          # MultimodalLoader

`packing` may also be the options of a BestFit: {length: 4096, window: 1024}.

    loader = make_loader("train.yaml")

YAML or JSON.
"""

from __future__ import annotations

import inspect
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcdata.base.errors import UserError
from hpcdata.base.foreign import yaml_text
from hpcdata.multimodal.loading.loader import MultimodalLoader
from hpcdata.multimodal.loading.mixture import IterableDatasetMixture
from hpcdata.order.packing import BestFit

_PARTS = ("datasets", "preprocessor", "mixture", "loader")
_OF_MIXTURE = ("weight",)


def is_recipe(path: str) -> bool:
    """Whether a file says of itself that it is one: its name, and what it begins with."""
    if not path.endswith((".yaml", ".yml", ".json")):
        return False
    try:
        return set(_read(Path(path))) >= {"datasets", "loader"}
    except UserError:
        return False


def make_loader(
    recipe: str | Path | Mapping[str, Any], *, rank: int | None = None, world_size: int | None = None
) -> MultimodalLoader:
    """Raises UserError for parts and options that there are not."""
    values, where = (recipe, "the recipe") if isinstance(recipe, Mapping) else (_read(Path(recipe)), str(recipe))
    unknown = [name for name in values if name not in _PARTS]
    if unknown or not values.get("datasets") or not values.get("loader"):
        raise UserError(
            f"{where}: expected datasets, preprocessor, loader, and mixture where there are several datasets"
            f"{f'; it has {unknown[0]}' if unknown else ''}"
        )
    from hpcdata.multimodal.config import MolmoPreprocessorConfig
    from hpcdata.multimodal.datasets.registry import get_dataset

    sources = [one if isinstance(one, Mapping) else {"dataset": one} for one in values["datasets"]]
    names = [str(source.get("name", Path(str(source["dataset"])).name)) for source in sources]
    options = [{k: v for k, v in one.items() if k not in ("dataset", "name", *_OF_MIXTURE)} for one in sources]
    datasets = [get_dataset(source["dataset"], **rest) for source, rest in zip(sources, options, strict=True)]
    preprocessor = MolmoPreprocessorConfig(**_plain(values.get("preprocessor"))).build_preprocessor(is_training=True)
    dataset: Any = datasets[0]
    if len(datasets) > 1:
        weights = [source.get("weight") for source in sources]
        given = None if all(weight is None for weight in weights) else [weight or 0 for weight in weights]
        dataset = IterableDatasetMixture(datasets, given, names=names, **_plain(values.get("mixture")))
    loader = _plain(values["loader"])
    allowed = set(inspect.signature(MultimodalLoader).parameters) - {"dataset", "preprocessor", "rank", "world_size"}
    if wrong := sorted(set(loader) - allowed):
        raise UserError(f"{where}: loader has no option {wrong[0]}: expected {', '.join(sorted(allowed))}")
    if isinstance(loader.get("packing"), Mapping):
        loader["packing"] = _best_fit(loader["packing"], where)
    return MultimodalLoader(dataset, preprocessor, rank=rank, world_size=world_size, **loader)


def _best_fit(options: Mapping[str, Any], where: str) -> BestFit:
    try:
        return BestFit(**options)
    except TypeError as error:
        raise UserError(f"{where}: packing: {error}") from None


def make_raw_loaders(options: Namespace, state: dict[str, Any] | None) -> list[MultimodalLoader]:
    """One for each rank of `hpcdata replay`; the recipe says all that a state does not."""
    world_size = options.world_size
    loaders = [make_loader(options.dataset, rank=rank, world_size=world_size) for rank in range(world_size)]
    if state is not None:
        for loader in loaders:
            loader.load_state_dict(state)
    return loaders


def _plain(values: Any) -> dict[str, Any]:
    return dict(values or {})


def _read(path: Path) -> Mapping[str, Any]:
    try:
        values = yaml_text.load(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not YAML: {error}") from None
    if not isinstance(values, Mapping):
        raise UserError(f"{path}: expected a mapping with datasets, preprocessor and loader")
    return values
