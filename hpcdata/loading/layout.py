"""Layouts: how the spans of samples become the arrays of a batch. Stored ids never change, only this does.

A layout is a frozen set of options in which None means "as the dataset says"; `bind` fills these in from a manifest
and checks them, `batch` makes the arrays for some rows of a dataset. Every layout delivers, for B rows of length L:

    input_ids       [B, L] int64    text ids as stored, image codes plus the image token shift
    attention_mask  [B, L] bool     False on padding: the only thing that tells padding (ids such as 0 are valid)
    modality        [B, L] int8     0 text and control ids, 1 image codes
    labels          [B, L] int64    input_ids, -100 where nothing is trained; *not* shifted, as Hugging Face expects
    position_ids    [B, L] int64    counts the valid ids of a sample from 0; 0 on padding
    index           [B]    int64    the samples' indices in the plan

and in packed batches, whose rows hold several samples, also

    segment_ids     [B, L] int32    1, 2... for the samples of a row, 0 on padding
    cu_seqlens      [n+1]  int32    where segments begin in the B * L ids (padding is one), for attention over flat ids
    max_seqlen      []     int64    the longest segment
    index           [samples]       row after row

`keys` chooses fewer of them. A text that is too long is cut and counted; an image is never cut: a sample that would
need it is an error, or is left out and counted (`too_long="skip"`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from hpcdata.errors import UserError
from hpcdata.loading.arrays import empty, prefix_mask, widen
from hpcdata.loading.dataset import SpanTable, TokenDataset
from hpcdata.loading.framed import SFT, Caption, Interleaved, LiquidT2I
from hpcdata.loading.layoutbase import (
    IGNORED_LABEL,
    KEYS,
    PACKED_KEYS,
    Batch,
    BatchCounts,
    Layout,
    check_shift,
    default_image_tokens,
    default_shift,
)
from hpcdata.loading.manifest import Manifest
from hpcdata.loading.sequences import Controls, Form, Lineup
from hpcdata.loading.textblock import TextBlock, make_text_block
from hpcdata.samples import Kind

__all__ = ["IGNORED_LABEL", "KEYS", "LAYOUTS", "PACKED_KEYS", "Batch", "BatchCounts", "Layout", "find_layout"]
__all__ += ["SFT", "T2I", "Caption", "Interleaved", "LiquidT2I", "Text"]


@dataclass(frozen=True, kw_only=True)
class T2I(Layout):
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

    def bind(self, manifest: Manifest) -> Self:
        shift = self.img_token_shift if self.img_token_shift is not None else default_shift(manifest)
        num_image_tokens = self.num_image_tokens
        if num_image_tokens is None:
            num_image_tokens = default_image_tokens(manifest)
        bound = dataclasses.replace(
            super().bind(manifest),
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
    def max_width(self) -> int:
        return (self.block_size or 0) + (self.num_image_tokens or 0)

    @property
    def controls(self) -> Controls:
        return dataclasses.replace(super().controls, img_token_shift=self.img_token_shift or 0)

    def lineup(self, table: SpanTable, seeds: np.ndarray, *, room: int | None = None) -> Lineup:
        """Texts of at most `block_size` ids; without `room` (not packed), images start where they do in `batch`."""
        _check_at_most_one(self.name, "text", table.select(table.kind == Kind.TEXT))
        _check_at_most_one(self.name, "image", table.select(table.kind == Kind.IMAGE))
        return Lineup(table, self.form, self.controls, text_limit=self.block_size, limit=room, in_columns=room is None)

    def batch(
        self,
        dataset: TokenDataset,
        rows: np.ndarray,
        seeds: np.ndarray | None = None,
        table: SpanTable | None = None,
    ) -> Batch:
        assert self.block_size is not None, "bind the layout first"
        table = table or dataset.spans(rows)
        texts, images = table.of_kind(Kind.TEXT), table.of_kind(Kind.IMAGE)
        _check_at_most_one(self.name, "text", texts)
        _check_at_most_one(self.name, "image", images)
        num_image = self._columns_of_image(images)
        ids = empty((table.num_rows, self.block_size + num_image), np.int64)
        text = make_text_block(dataset, texts, self.block_size, self.frame, out=ids[:, : self.block_size])
        self._place_images(dataset, images, ids[:, self.block_size :])
        mask = empty(ids.shape, bool)
        mask[:, : self.block_size] = prefix_mask(text.lengths, self.block_size)
        mask[:, self.block_size :] = len(images.row) == table.num_rows
        if len(images.row) < table.num_rows:
            mask[images.row, self.block_size :] = True
        modality = np.repeat([0, 1], [self.block_size, num_image]).astype(np.int8)
        return _batch(self.keys, table, text, ids, mask, modality, num_image_tokens=num_image * len(images.row))

    def _place_images(self, dataset: TokenDataset, images: SpanTable, out: np.ndarray) -> None:
        """Shifted codes of at most one image a row, padding in rows without one."""
        codes = dataset.windows(images.part, images.first_token, out.shape[1])
        if len(images.row) == len(out):
            widen(codes, out, self.img_token_shift or 0)
        else:
            out[:] = self.frame.pad
            out[images.row] = codes.astype(np.int64) + (self.img_token_shift or 0)

    def _columns_of_image(self, images: SpanTable) -> int:
        grids = np.column_stack([images.height, images.width, images.length])
        if (grids[1:] != grids[:1]).any():
            grids = np.unique(grids, axis=0)
            shapes = ", ".join(f"{height} x {width}" for height, width, _ in grids[:4].tolist())
            raise UserError(f"layout {self.name} needs one image grid in a batch, got {shapes}: encode at one size")
        found = int(grids[0, 2]) if len(grids) else None
        if None not in (found, self.num_image_tokens) and found != self.num_image_tokens:
            raise UserError(
                f"layout {self.name} has {self.num_image_tokens} image columns, sample {images.index[images.row[0]]} "
                f"has an image of {found} codes: pass T2I(num_image_tokens={found})"
            )
        return found or self.num_image_tokens or 0


@dataclass(frozen=True, kw_only=True)
class Text(Layout):
    """The text spans of a sample end to end, cut or padded to `max_length`. Images are left out, and counted."""

    name: ClassVar[str] = "text"
    form: ClassVar[Form] = Form(images=False)

    max_length: int | None = None
    """Columns, by default the dataset's block_size."""

    def bind(self, manifest: Manifest) -> Self:
        max_length = self.max_length if self.max_length is not None else manifest.layout.block_size
        bound = dataclasses.replace(super().bind(manifest), max_length=max_length)
        bound._check_width("max_length", max_length, manifest)
        return bound

    def with_room(self, length: int, *, force: bool = False) -> Self:
        return dataclasses.replace(self, max_length=length) if force or self.max_length is None else self

    @property
    def max_width(self) -> int:
        return self.max_length or 0

    def batch(
        self,
        dataset: TokenDataset,
        rows: np.ndarray,
        seeds: np.ndarray | None = None,
        table: SpanTable | None = None,
    ) -> Batch:
        assert self.max_length is not None, "bind the layout first"
        if self.pad != "max_len":
            return super().batch(dataset, rows, seeds, table)
        table = table or dataset.spans(rows)
        text = make_text_block(dataset, table.of_kind(Kind.TEXT), self.max_length, self.frame)
        mask = prefix_mask(text.lengths, self.max_length)
        modality = np.zeros(self.max_length, np.int8)
        left_out = int(np.count_nonzero(table.kind == Kind.IMAGE))
        return _batch(self.keys, table, text, text.ids, mask, modality, left_out_images=left_out)


LAYOUTS: dict[str, type[Layout]] = {layout.name: layout for layout in (T2I, LiquidT2I, Caption, Interleaved, SFT, Text)}


def find_layout(layout: str | Layout) -> Layout:
    """A layout by its name, with all options as the dataset says."""
    if isinstance(layout, Layout):
        return layout
    if layout not in LAYOUTS:
        raise UserError(f"unknown layout {layout!r}: expected one of {', '.join(LAYOUTS)}, or a Layout with options")
    return LAYOUTS[layout]()


def _batch(
    keys: tuple[str, ...],
    table: SpanTable,
    text: TextBlock,
    ids: np.ndarray,
    mask: np.ndarray,
    modality: np.ndarray,
    *,
    num_image_tokens: int = 0,
    left_out_images: int = 0,
) -> Batch:
    arrays: dict[str, np.ndarray] = {"input_ids": ids, "attention_mask": mask, "index": table.index}
    if "modality" in keys:
        arrays["modality"] = np.tile(modality, (len(ids), 1))
    if "labels" in keys:
        labels = arrays["labels"] = empty(ids.shape, np.int64)
        labels[:] = ids
        np.copyto(labels, IGNORED_LABEL, where=~mask)
    if "position_ids" in keys:
        positions = arrays["position_ids"] = empty(ids.shape, np.int64)
        np.cumsum(mask, axis=1, out=positions)
        positions -= 1
        np.copyto(positions, 0, where=~mask)
    num_text_tokens = int(text.lengths.sum())
    counts = BatchCounts(
        samples=len(ids),
        text_tokens=num_text_tokens,
        image_tokens=num_image_tokens,
        padding=ids.size - num_text_tokens - num_image_tokens,
        truncated_texts=text.num_truncated,
        left_out_images=left_out_images,
    )
    return Batch(arrays={key: arrays[key] for key in keys if key in arrays}, counts=counts)


def _check_at_most_one(name: str, kind: str, spans: SpanTable) -> None:
    if (spans.row[1:] == spans.row[:-1]).any():
        counts = np.bincount(spans.row, minlength=spans.num_rows)
        row = int(counts.argmax())
        raise UserError(
            f"layout {name} takes at most one {kind} a sample, sample {spans.index[row]} has {counts[row]}: "
            "choose another layout for this dataset"
        )
