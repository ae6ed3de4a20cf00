"""What a loader is given -> what it works with: sources in their order, a preprocessor, a packing, a collator."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from hpcdata.base.errors import UserError
from hpcdata.multimodal.loading.collation import MMCollator
from hpcdata.multimodal.loading.lengths import Preprocessor, Source
from hpcdata.multimodal.loading.mixture import IterableDatasetMixture, unwrapped
from hpcdata.order.order import Order, find_order
from hpcdata.order.packing import BestFit, Concat, Packing, find_packing
from hpcdata.order.sampling import derived_seed
from hpcdata.order.streams import MixtureStream, SingleStream, Stream


class Opened(NamedTuple):
    """What a loader draws from, and with what."""

    sources: list[Source]
    stream: Stream
    preprocessor: Preprocessor
    seed: int


def open_sources(
    dataset: Any, preprocessor: Preprocessor | None, seed: int | None, *, shuffle: bool, order: str | Order | None
) -> Opened:
    """dataset: see MultimodalLoader. Raises UserError for what is none, and where no one preprocessor is for all."""
    if isinstance(dataset, IterableDatasetMixture):
        if order is not None:
            raise UserError("order is for one dataset: the sources of a mixture have orders of their own")
        seed = dataset.seed if seed is None else seed
        inner = [unwrapped(one) for one in dataset.datasets]
        rows = dataset.first_row.tolist()
        salts = [derived_seed(0, f"examples of {name}") for name in dataset.names]
        sources = [Source(*each) for each in zip(dataset.names, inner, rows[:-1], salts, strict=True)]
        own = [one for one in dataset.datasets if one is not unwrapped(one)]
        if preprocessor is None and own:
            preprocessor = _only_preprocessor(own)
        stream: Stream = MixtureStream(dataset, seed=seed, shuffle=shuffle)
    else:
        if not hasattr(unwrapped(dataset), "get"):
            opened = f": open it with get_dataset({dataset!r})" if isinstance(dataset, str) else ""
            raise UserError(f"a dataset has len() and get(item, rng), {type(dataset).__name__} has not{opened}")
        inner_one = unwrapped(dataset)
        if inner_one is not dataset:
            preprocessor = preprocessor or _only_preprocessor([dataset])
            seed = dataset.seed if seed is None else seed
        seed = seed or 0
        name = str(getattr(inner_one, "name", None) or type(inner_one).__name__)
        sources = [Source(name, inner_one, 0)]
        chosen = order or ("shuffled" if shuffle else "sequential")
        chosen = find_order(chosen, len(inner_one), seed) if isinstance(chosen, str) else chosen
        stream = SingleStream(name, len(inner_one), chosen, seed)
    if preprocessor is None:
        raise UserError("a preprocessor is needed: MolmoPreprocessorConfig(...).build_preprocessor(...), or your own")
    return Opened(sources, stream, preprocessor, seed)


def fingerprint(dataset: Any) -> str:
    """What a dataset says that it is (`fingerprint`), else its class and its size: another one is another digest."""
    said = getattr(dataset, "fingerprint", None)
    said = said() if callable(said) else said
    return str(said) if said else f"{type(dataset).__qualname__} of {len(dataset)}"


def open_packing(
    packing: int | str | Packing | None, sequence_length: int | None, max_crops: int | None
) -> Packing | None:
    """With a second budget of `max_crops`. Raises UserError for what would cut examples, or has no second budget."""
    rows = find_packing(packing, sequence_length)
    if max_crops is not None:
        if not isinstance(rows, BestFit):
            raise UserError("max_crops is the second budget of packed rows: use packing=COLUMNS")
        rows = dataclasses.replace(rows, max_images=max_crops)
    if isinstance(rows, Concat) or (rows is not None and rows.cuts):
        raise UserError(f"packing={rows!r} cuts examples, and raw ones stay whole: use packing=COLUMNS, or a BestFit")
    return rows


def make_collator(
    preprocessor: Any, packing: Packing | None, sequence_length: int | None, pad_mode: str | None, consumer: str
) -> MMCollator:
    """What the preprocessor builds, for rows of packing or of `sequence_length`."""
    length = packing.length if packing is not None and packing.length is not None else sequence_length
    mode = pad_mode or ("max_len" if packing is not None and packing.length is not None else "batch_max")
    build = getattr(preprocessor, "build_collator", None)
    options: dict[str, Any] = {"sequence_length": length, "pad_mode": mode, "consumer": consumer}
    return MMCollator(**options) if build is None else build(**options)


def _only_preprocessor(datasets: Sequence[Any]) -> Any:
    """That of DeterministicDatasets. Raises UserError where one batch would have to be made by several."""
    for dataset in datasets:
        if getattr(dataset, "preprocessor_kwargs", None):
            raise UserError(
                "MultimodalLoader does not know preprocessor_kwargs of a DeterministicDataset: pass preprocessor=..., "
                "one that needs none"
            )
    first, *others = [dataset.preprocessor for dataset in datasets]
    if any(other is not first and other.settings() != first.settings() for other in others):
        raise UserError("the datasets of the mixture have different preprocessors: pass preprocessor=... for all")
    return first
