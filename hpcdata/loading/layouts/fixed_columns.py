"""Layouts with fixed columns: text in the first, an image in the last. The fastest: they copy whole rows at once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.dataset.dataset import SpanTable, TokenDataset
from hpcdata.dataset.id_rows import Places
from hpcdata.dataset.manifest import Manifest
from hpcdata.loading.layouts.assembly import Batch
from hpcdata.loading.layouts.base import Layout, MakeBatch, check_shift, default_image_tokens, default_shift
from hpcdata.loading.layouts.fixed_batches import FixedRows
from hpcdata.loading.layouts.sequences import Controls, Form, Lineup
from hpcdata.native.threads import Later
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
        return FixedRows(self, dataset, table or dataset.spans(rows)).batch(0, len(rows))

    def prepare(self, dataset: TokenDataset, table: SpanTable, seeds: np.ndarray | None) -> MakeBatch:
        return (
            super().prepare(dataset, table, seeds) if self.pad != "max_len" else FixedRows(self, dataset, table).batch
        )

    def check_spans(self, texts: SpanTable, images: SpanTable) -> None:
        """Raises UserError for samples that the layout does not take."""

    def place_images(
        self, places: Places, first: int, rows: np.ndarray, out: np.ndarray, pad: int, later: Later | None
    ) -> None:
        """Images from place `first` on, in these rows of `out`; `pad` in the others. With a `later`, done then."""
        raise NotImplementedError

    def columns_of_image(self, images: SpanTable) -> int:
        """Columns of image: none, unless the layout has images."""
        return 0


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
        self.check_spans(table.of_kind(Kind.TEXT), table.of_kind(Kind.IMAGE))
        return Lineup(table, self.form, self.controls, text_limit=self.block_size, limit=room, in_columns=room is None)

    def check_spans(self, texts: SpanTable, images: SpanTable) -> None:
        _check_at_most_one(self.name, "text", texts)
        _check_at_most_one(self.name, "image", images)

    def place_images(
        self, places: Places, first: int, rows: np.ndarray, out: np.ndarray, pad: int, later: Later | None
    ) -> None:
        """Shifted codes of at most one image a row."""
        is_full = len(rows) == len(out)
        if not is_full:
            out[:] = pad
        shift = self.img_token_shift or 0
        places.place(out, first, rows=None if is_full else rows, shift=shift, later=later)

    def columns_of_image(self, images: SpanTable) -> int:
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
