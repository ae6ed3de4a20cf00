"""Layouts with fixed columns: text in the first, an image in the last. The fastest: they copy whole rows at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from hpcdata.errors import UserError
from hpcdata.loading.arranged import Batch, BatchCounts
from hpcdata.loading.arrays import (
    IGNORED_LABEL,
    empty,
    fill_behind,
    position_dtype,
    prefix_mask,
    prefix_positions,
    widen,
)
from hpcdata.loading.dataset import SpanTable, TokenDataset
from hpcdata.loading.forks import Lazy
from hpcdata.loading.layoutbase import (
    Layout,
    check_shift,
    default_image_tokens,
    default_shift,
)
from hpcdata.loading.manifest import Manifest
from hpcdata.loading.places import Places
from hpcdata.loading.sequences import Controls, Form, Lineup
from hpcdata.loading.textblock import TextRows
from hpcdata.samples import Kind


@dataclass(frozen=True, kw_only=True)
class Fixed(Layout):
    """What the layouts below share."""

    @property
    def text_columns(self) -> int:
        raise NotImplementedError

    def batch(
        self,
        dataset: TokenDataset,
        rows: np.ndarray,
        seeds: np.ndarray | None = None,
        table: SpanTable | None = None,
    ) -> Batch:
        if self.pad != "max_len":
            return super().batch(dataset, rows, seeds, table)
        return _Rows(self, dataset, table or dataset.spans(rows)).batch(0, len(rows))

    def prepare(self, dataset: TokenDataset, table: SpanTable, seeds: np.ndarray | None) -> Callable[[int, int], Batch]:
        return super().prepare(dataset, table, seeds) if self.pad != "max_len" else _Rows(self, dataset, table).batch

    def _arrays(
        self, index: np.ndarray, lengths: np.ndarray, ids: np.ndarray, with_image: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The arrays `keys`: `lengths` ids of text, padding behind them, and an image in the rows `with_image`."""
        arrays = {"input_ids": ids, "index": index}
        if self._has_only_ids:
            return {key: arrays[key] for key in self.keys if key in arrays}
        columns, shape = self.text_columns, ids.shape
        num_image = shape[1] - columns
        has_image = np.zeros(len(ids), bool)
        has_image[with_image] = True
        is_wide = self.ids == "int64"
        if "attention_mask" in self.keys or ("labels" in self.keys and not is_wide):
            mask = arrays["attention_mask"] = empty(shape, bool)
            prefix_mask(lengths, columns, mask[:, :columns])
            mask[:, columns:] = has_image[:, None]
        if "modality" in self.keys:
            modality = arrays["modality"] = empty(shape, np.int8)
            modality[:, :columns], modality[:, columns:] = 0, 1
        if "labels" in self.keys and is_wide:
            labels = arrays["labels"] = empty(shape, np.int64)
            widen(ids, labels)
            fill_behind(labels[:, :columns], lengths, IGNORED_LABEL)
            if num_image:
                labels[~has_image, columns:] = IGNORED_LABEL
        elif "labels" in self.keys:
            arrays["loss_mask"] = arrays["attention_mask"].copy()
        if "position_ids" in self.keys:
            positions = arrays["position_ids"] = empty(shape, position_dtype(self.ids, shape[1]))
            prefix_positions(lengths, positions[:, :columns])
            if num_image:
                np.add(lengths[:, None], np.arange(num_image), out=positions[:, columns:], casting="unsafe")
                positions[~has_image, columns:] = 0
        return {key: arrays[key] for key in (*self.keys, "loss_mask") if key in arrays}

    @Lazy
    def _has_only_ids(self) -> bool:
        return set(self.keys).isdisjoint({"attention_mask", "modality", "labels", "position_ids"})

    def _check_spans(self, texts: SpanTable, images: SpanTable) -> None:
        """Raises UserError for samples that the layout does not take."""

    def _place_images(self, places: Places, first: int, rows: np.ndarray, out: np.ndarray) -> None:
        """Images from place `first` on, in these rows of `out`."""
        raise NotImplementedError

    def _columns_of_image(self, images: SpanTable) -> int:
        """Columns of image: none, unless the layout has images."""
        return 0


class _Rows:
    """The rows of a table, for batches of some of them: what these have in common is found once."""

    def __init__(self, layout: Fixed, dataset: TokenDataset, table: SpanTable) -> None:
        self._layout, self._dataset, self._table, self._columns = layout, dataset, table, layout.text_columns
        self._images = images = table.of_kind(Kind.IMAGE)
        texts = table.of_kind(Kind.TEXT)
        self._num_image: int | None = None
        try:
            layout._check_spans(texts, images)
            self._num_image = layout._columns_of_image(images)
        except UserError:
            return  # the batches that are refused, or differ in their grid, are found one by one
        self._texts = TextRows(dataset, texts, layout.text_columns, layout.frame)
        self._places = dataset.places(images.part, images.first_token, images.length)
        self._num_ids = np.append(0, np.cumsum(self._texts.lengths))

    def batch(self, first: int, stop: int) -> Batch:
        """Of rows `first` to `stop` - 1."""
        layout, num_image = self._layout, self._num_image
        if num_image is None:
            part = self._table.between(first, stop)
            layout._check_spans(part.of_kind(Kind.TEXT), part.of_kind(Kind.IMAGE))
            layout._columns_of_image(part.of_kind(Kind.IMAGE))
            return _Rows(layout, self._dataset, part).batch(0, stop - first)
        columns = self._columns
        ids = empty((stop - first, columns + num_image), layout.ids)
        self._texts.place(ids[:, :columns] if num_image else ids, first)
        begin, rows = self._images_of(first, stop)
        if num_image:
            layout._place_images(self._places, begin, rows, ids[:, columns:])
        num_text_tokens, num_image_tokens = int(self._num_ids[stop] - self._num_ids[first]), num_image * len(rows)
        counts = BatchCounts(
            samples=len(ids),
            text_tokens=num_text_tokens,
            image_tokens=num_image_tokens,
            padding=ids.size - num_text_tokens - num_image_tokens,
            truncated_texts=int(self._texts.num_truncated[stop] - self._texts.num_truncated[first]),
            left_out_images=0 if layout.form.images else len(rows),
        )
        lengths = self._texts.lengths[first:stop]
        return Batch(arrays=layout._arrays(self._table.index[first:stop], lengths, ids, rows), counts=counts)

    def _images_of(self, first: int, stop: int) -> tuple[int, np.ndarray]:
        """The first image of these rows, and in which of them there are images."""
        row = self._images.row
        if not len(row):
            return 0, row
        begin, end = np.searchsorted(row, (first, stop)).tolist()
        return begin, row[begin:end] - first


@dataclass(frozen=True, kw_only=True)
class T2I(Fixed):
    """`[text][image]`, for text-to-image and joint training: the image starts at column `block_size` in every row.

    A sample has at most one text and one image, all images one grid. A sample without text has only bos and eos; one
    without an image has padding in its place, masked, so that no other row is shifted by it.
    """

    name: ClassVar[str] = "t2i"
    form: ClassVar[Form] = Form(order="text_first", eos="text")

    block_size: int | None = None
    """Columns of text."""
    img_token_shift: int | None = None
    """What is added to image codes, by default the dataset's, which defaults to the text vocabulary."""
    num_image_tokens: int | None = None
    """Columns of image, by default (resolution / downsample)^2; 0 without images."""

    def _bound(self, manifest: Manifest) -> Self:
        shift = self.img_token_shift if self.img_token_shift is not None else default_shift(manifest)
        num_image_tokens = self.num_image_tokens
        if num_image_tokens is None:
            num_image_tokens = default_image_tokens(manifest)
        bound = dataclasses.replace(
            super()._bound(manifest),
            block_size=self.block_size if self.block_size is not None else manifest.layout.block_size,
            img_token_shift=shift,
            num_image_tokens=num_image_tokens,
        )
        bound._check_width("block_size", bound.block_size, manifest)
        check_shift(bound.name, bound.img_token_shift, manifest)
        if bound.pad != "max_len":
            raise UserError("layout t2i has fixed columns: leave pad at max_len, or choose liquid_t2i")
        return bound

    @property
    def text_columns(self) -> int:
        return self.block_size or 0

    @property
    def max_width(self) -> int:
        return (self.block_size or 0) + (self.num_image_tokens or 0)

    @property
    def controls(self) -> Controls:
        return dataclasses.replace(super().controls, img_token_shift=self.img_token_shift or 0)

    def lineup(self, table: SpanTable, seeds: np.ndarray | None, *, room: int | None = None) -> Lineup:
        """Texts of at most `block_size` ids; without `room` (not packed), images start where they do in `batch`."""
        self._check_spans(table.of_kind(Kind.TEXT), table.of_kind(Kind.IMAGE))
        return Lineup(table, self.form, self.controls, text_limit=self.block_size, limit=room, in_columns=room is None)

    def _check_spans(self, texts: SpanTable, images: SpanTable) -> None:
        _check_at_most_one(self.name, "text", texts)
        _check_at_most_one(self.name, "image", images)

    def _place_images(self, places: Places, first: int, rows: np.ndarray, out: np.ndarray) -> None:
        """Shifted codes of at most one image a row, padding in rows without one."""
        is_full = len(rows) == len(out)
        if not is_full:
            out[:] = self.frame.pad
        places.place(out, first, rows=None if is_full else rows, shift=self.img_token_shift or 0)

    def _columns_of_image(self, images: SpanTable) -> int:
        if not len(images.row):
            return self.num_image_tokens or 0
        grids = np.column_stack([images.height, images.width, images.length])
        if (grids[1:] != grids[:1]).any():
            grids = np.unique(grids, axis=0)
            shapes = ", ".join(f"{height} x {width}" for height, width, _ in grids[:4].tolist())
            raise UserError(f"layout {self.name} needs one image grid in a batch, got {shapes}: use layout interleaved")
        found = int(grids[0, 2]) if len(grids) else None
        if None not in (found, self.num_image_tokens) and found != self.num_image_tokens:
            raise UserError(
                f"layout {self.name} has {self.num_image_tokens} image columns, sample {images.index[images.row[0]]} "
                f"has an image of {found} codes: pass T2I(num_image_tokens={found})"
            )
        return found or self.num_image_tokens or 0


@dataclass(frozen=True, kw_only=True)
class Text(Fixed):
    """The text spans of a sample end to end, cut or padded to `max_length`. Images are left out, and counted."""

    name: ClassVar[str] = "text"
    form: ClassVar[Form] = Form(images=False)

    max_length: int | None = None
    """Columns, by default the dataset's block_size."""

    def _bound(self, manifest: Manifest) -> Self:
        max_length = self.max_length if self.max_length is not None else manifest.layout.block_size
        bound = dataclasses.replace(super()._bound(manifest), max_length=max_length)
        bound._check_width("max_length", max_length, manifest)
        return bound

    def with_room(self, length: int, *, force: bool = False) -> Self:
        return dataclasses.replace(self, max_length=length) if force or self.max_length is None else self

    @property
    def text_columns(self) -> int:
        return self.max_width

    @property
    def max_width(self) -> int:
        return self.max_length or 0


def _check_at_most_one(name: str, kind: str, spans: SpanTable) -> None:
    if (spans.row[1:] == spans.row[:-1]).any():
        counts = np.bincount(spans.row, minlength=spans.num_rows)
        row = int(counts.argmax())
        raise UserError(
            f"layout {name} takes at most one {kind} a sample, sample {spans.index[row]} has {counts[row]}: "
            "choose another layout for this dataset"
        )
