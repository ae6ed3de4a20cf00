"""Datasets as sources: one, or a mixture of several that are encoded alike. The order of their samples is computed by
hpcdata.order.streams, which knows their sizes alone.

    Mixture([Source(dataset="/captions", weight=3), Source(dataset="/texts", weight=1, sampling="random:10%")],
            policy="stop_all")
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.dataset.dataset import TokenDataset
from hpcdata.dataset.manifest import Group, LayoutDefaults, Manifest
from hpcdata.dataset.partlist import Parts
from hpcdata.loading.selecting import SelectedDataset, joined_selection, num_left_out
from hpcdata.native.arrays import totals_before
from hpcdata.order.mixing.schedule import WeightsFrom
from hpcdata.order.order import Order, find_order
from hpcdata.order.streams import MixtureStream, SingleStream, SizedMixture, SizedSource, Stream
from hpcdata.shards.counts import Counts


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset of a mixture."""

    dataset: TokenDataset | str | Path
    weight: float | None = None
    """Its share of the samples, in proportion to the others'."""
    name: str | None = None
    """By default the name of its folder; unique in the mixture."""
    sampling: str = "all"
    """`all`, or `first:N`, `end:N%`, `random:0.5%`...: see hpcdata.order.sampling."""
    order: str = "shuffled"
    """Or `blocks`, `blocks:ROWSxBLOCKS` for data larger than RAM, `sequential`: see hpcdata.order.order."""
    max_repeats: int = 1
    """With the policy `max_repeats`: how often each of its samples is delivered."""


class Mixture(SizedMixture):
    """Weighted datasets; see hpcdata.order.mixing.schedule for the policies and for weights that change, and
    hpcdata.order.mixing.interleave for what weights are relative to. Tokens are ids as they are stored, codes of
    pictures too.

    `dataset` holds the parts of all, in the order of the sources.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        strategy: str | None = None,
        policy: str = "repeat",
        schedule: Sequence[WeightsFrom] = (),
    ) -> None:
        datasets = [s.dataset if isinstance(s.dataset, TokenDataset) else TokenDataset(s.dataset) for s in sources]
        needs_tokens = strategy == "tokens" or any(item.tokens is not None for item in schedule)
        sized = [
            _sized(source, dataset, needs_tokens=needs_tokens)
            for source, dataset in zip(sources, datasets, strict=True)
        ]
        super().__init__(sized, strategy=strategy, policy=policy, schedule=schedule)
        self.dataset = TokenDataset(_joined(self.names, [dataset.manifest for dataset in datasets]))
        self.left_out = [num_left_out(dataset) for dataset in datasets]
        """Samples of each dataset that are not of the mixture, as a selection left them out."""
        rows = joined_selection(datasets)
        if rows is not None:
            self.dataset = SelectedDataset(self.dataset, rows, {})


def open_stream(
    dataset: TokenDataset | Mixture | str | Path, *, seed: int, shuffle: bool, order: Order | str | None = None
) -> tuple[TokenDataset, Stream]:
    """The dataset that a loader reads, and the order of its samples: `order`, or what `seed` and `shuffle` give."""
    if isinstance(dataset, Mixture):
        if order is not None:
            raise UserError("order is for one dataset: the sources of a mixture have orders of their own")
        return dataset.dataset, MixtureStream(dataset, seed=seed, shuffle=shuffle)
    opened = dataset if isinstance(dataset, TokenDataset) else TokenDataset(dataset)
    order = order or ("shuffled" if shuffle else "sequential")
    if isinstance(order, str):
        order = find_order(order, len(opened), seed)
    return opened, SingleStream(opened.path.resolve().name, len(opened), order, seed)


def left_out_of(dataset: TokenDataset, stream: Stream) -> list[int]:
    """Samples of the dataset of each source that a selection left out."""
    mixture = stream.mixture if isinstance(stream, MixtureStream) else None
    return mixture.left_out if isinstance(mixture, Mixture) else [num_left_out(dataset)]


def _sized(source: Source, dataset: TokenDataset, *, needs_tokens: bool) -> SizedSource:
    """`needs_tokens`: those of a selection are a pass over its lengths."""
    return SizedSource(
        name=source.name or dataset.path.resolve().name,
        size=len(dataset),
        weight=source.weight,
        sampling=source.sampling,
        order=source.order,
        max_repeats=source.max_repeats,
        tokens=dataset.num_tokens if needs_tokens else None,
    )


def _joined(names: Sequence[str], manifests: Sequence[Manifest]) -> Manifest:
    """One manifest with the parts of all, for what must be equal in them. Raises UserError where it is not."""
    first = manifests[0]
    for name, manifest in zip(names, manifests, strict=True):
        if manifest.id_dtype != first.id_dtype:
            raise UserError(
                f"source {name} of the mixture has {manifest.id_dtype} ids, {names[0]} has {first.id_dtype}: "
                "encode them with the same tokenizers"
            )
    settings = [manifest.layout for manifest in manifests]
    parts = [
        dataclasses.replace(part, path=str((manifest.folder / part.path).resolve()).lstrip("/"))
        for manifest in manifests
        for part in manifest.parts
    ]
    ends = totals_before(np.array([len(manifest.parts) for manifest in manifests], np.int64)).tolist()
    groups = tuple(
        Group(manifest.folder.resolve(), first, stop, bool(manifest.joined), manifest.baked)
        for manifest, first, stop in zip(manifests, ends, ends[1:], strict=False)
    )
    block_sizes = [layout.block_size for layout in settings if layout.block_size is not None]
    return Manifest(
        fingerprint=_digest([manifest.fingerprint for manifest in manifests]),
        id_dtype=first.id_dtype,
        parts=Parts.of(parts),
        counts=sum((manifest.counts for manifest in manifests), Counts()),
        content_digest=_digest([manifest.content_digest for manifest in manifests]),
        text=_same("text tokenizer", names, [manifest.text for manifest in manifests]),
        image=_same("image tokenizer", names, [manifest.image for manifest in manifests]),
        layout=LayoutDefaults(
            img_token_shift=_same("img_token_shift", names, [layout.img_token_shift for layout in settings]),
            text_vocab_size=_same("text_vocab_size", names, [layout.text_vocab_size for layout in settings]),
            block_size=max(block_sizes, default=None),
            resolution=max((layout.resolution for layout in settings if layout.resolution), default=None),
        ),
        folder=Path("/"),
        groups=groups,
    )


def _same(what: str, names: Sequence[str], values: Sequence[Any]) -> Any:
    """The one value that all sources have, apart from those that have none."""
    found = [(name, value) for name, value in zip(names, values, strict=True) if value is not None]
    for name, value in found:
        if value != found[0][1]:
            raise UserError(f"sources {found[0][0]} and {name} of the mixture differ in {what}: encode them alike")
    return found[0][1] if found else None


def _digest(values: Any) -> str:
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=32).hexdigest()
