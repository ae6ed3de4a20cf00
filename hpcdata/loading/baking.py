"""Baking: what a layout makes of every sample, as rows that are stored (`hpcdata.dataset.baked`).

The rows are made by the layout itself, as batches of a loader are, and then described by runs: equal columns of a row
one behind the other. So every layout can be baked whose rows have one width and are always the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.dataset.baked.adding import Block
from hpcdata.dataset.baked.record import COLUMN_BITS, FACTS, IMAGE, TRAINED, VALID
from hpcdata.dataset.dataset import TokenDataset
from hpcdata.dataset.manifest import Manifest
from hpcdata.loading.layouts.base import IGNORED_LABEL, KEYS, Layout
from hpcdata.loading.layouts.named import find_layout
from hpcdata.native.arrays import totals_before
from hpcdata.order.bins import Bins
from hpcdata.order.checking import digest

_IDS_AT_A_TIME = 2**18


def bakings(names: Sequence[str]) -> list[LayoutBaking]:
    """`t2i`, `text:max_length=1024`...; `none` alone is no layout. Raises UserError."""
    return [] if list(names) == ["none"] else [LayoutBaking(name) for name in names]


class LayoutBaking:
    """A layout by its name, with options: a `hpcdata.dataset.baked.adding.Baking`."""

    def __init__(self, asked: str) -> None:
        self.asked, self._layout = asked, find_layout(asked)

    def bind(self, manifest: Manifest) -> LayoutRows:
        if not manifest.id_dtype:
            raise UserError(f"{manifest.folder} holds raw records (stage {manifest.stage}): no layout can be baked")
        return LayoutRows(self._layout.bind(manifest), manifest)


class LayoutRows:
    """A bound layout: `hpcdata.dataset.baked.adding.Rows`."""

    def __init__(self, layout: Layout, manifest: Manifest) -> None:
        if layout.pad != "max_len":
            raise UserError(f"layout {layout.name}: pad={layout.pad!r} makes rows of several widths: bake max_len")
        if layout.unconditional(np.zeros(1, np.int64)) is not None:
            raise UserError(
                f"layout {layout.name} draws in every epoch whose text is dropped, so its rows are not always the "
                f"same: bake {layout.name}:unconditional_share=0"
            )
        self._layout = dataclasses.replace(layout, keys=KEYS, ids="int64", consumer="any")
        self.name, self.digest, self.width = layout.name, digest(layout.settings()), layout.max_width
        self.dtype = "uint16" if layout.fits_16_bits(manifest) else "int32"

    def blocks(self, dataset: TokenDataset) -> Iterator[Block]:
        """A sample with an image is laid out with every block: what samples of a batch must share, all must."""
        size, num_runs = max(1, _IDS_AT_A_TIME // max(1, self.width)), 0
        witness = np.zeros(0, np.int64)
        for first in range(0, len(dataset), size):
            rows = np.arange(first, min(first + size, len(dataset)))
            block = self._block(dataset, rows, witness, num_runs)
            num_runs += len(block.runs)
            with_image = np.flatnonzero(block.facts[:, FACTS.index("image_tokens")])
            if not len(witness):
                witness = first + with_image[:1]
            yield block

    def _block(self, dataset: TokenDataset, rows: np.ndarray, witness: np.ndarray, num_runs: int) -> Block:
        batch = self._layout.batch(dataset, np.concatenate([witness, rows])).arrays
        arrays = {key: array[len(witness) :] for key, array in batch.items()}
        ids = arrays["input_ids"]
        if ids.shape[1] != self.width:
            raise UserError(
                f"layout {self._layout.name} makes rows of {ids.shape[1]} columns of this dataset, and not always of "
                f"{self.width}: say how many an image has, as in {self._layout.name}:num_image_tokens="
                f"{ids.shape[1] - self.width}"
            )
        if ids.size and not 0 <= ids.min() <= ids.max() <= np.iinfo(self.dtype).max:
            raise UserError(f"layout {self._layout.name}: ids from {ids.min()} to {ids.max()} cannot be baked")
        number, runs = _runs(arrays)
        facts = np.empty((len(rows), len(FACTS)), np.int64)
        facts[:, 0] = totals_before(number)[:-1] + num_runs
        facts[:, 1], facts[:, 2] = number, arrays["index"]
        facts[:, 3:] = self._account(dataset, rows)
        return Block(ids.astype(self.dtype), facts, runs)

    def _account(self, dataset: TokenDataset, rows: np.ndarray) -> np.ndarray:
        """[num_rows, 5]: the columns of `FACTS` from text_tokens on."""
        lineup = self._layout.lineup(dataset.spans(rows), None)
        arranged = self._layout.arrange(dataset, lineup, Bins.one_each(len(rows)))
        counts = np.diff(arranged.counted, axis=0)
        return counts[:, [1, 2, 4, 5, 6]]


def _runs(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """([num_rows] how many each row has, all of them), see `hpcdata.dataset.baked.record`."""
    valid, labels = arrays["attention_mask"], arrays["labels"]
    trained, width = labels != IGNORED_LABEL, valid.shape[1]
    assert (labels[trained] == arrays["input_ids"][trained]).all()
    assert (arrays["position_ids"] == np.where(valid, np.cumsum(valid, axis=1) - 1, 0)).all()
    kind = (valid * VALID + (arrays["modality"] == 1) * IMAGE + trained * TRAINED).astype(np.int32)
    begins = np.ones(kind.shape, bool)
    begins[:, 1:] = kind[:, 1:] != kind[:, :-1]
    at = np.flatnonzero(begins)
    end = np.append(at[1:], kind.size) - at // width * width
    return begins.sum(axis=1), (end << COLUMN_BITS | kind.reshape(-1)[at]).astype(np.int32)
