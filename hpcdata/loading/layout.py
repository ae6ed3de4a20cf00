"""Layouts: how the spans of samples become the arrays of a batch. Stored ids never change, only this does.

A layout is a frozen set of options in which None means "as the dataset says"; `bind` fills these in from a manifest
and checks them, `batch` makes the arrays for some rows of a dataset. Every layout delivers, for B rows of length L:

    input_ids       [B, L] int64    text ids as stored, image codes plus the image token shift
    attention_mask  [B, L] bool     False on padding: the only thing that tells padding (ids such as 0 are valid)
    modality        [B, L] int8     0 text, 1 image
    labels          [B, L] int64    input_ids, -100 on padding; *not* shifted, as Hugging Face models expect
    position_ids    [B, L] int64    counts the valid ids of a row from 0; 0 on padding
    index           [B]    int64    the samples' indices in the plan

`keys` chooses fewer of them. A text that is too long is cut and counted; an image is never cut.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from hpcdata.errors import UserError
from hpcdata.loading.dataset import SpanTable, TokenDataset
from hpcdata.loading.manifest import Manifest
from hpcdata.loading.textblock import Frame, TextBlock, make_text_block
from hpcdata.samples import Kind

KEYS = ("input_ids", "attention_mask", "modality", "labels", "position_ids", "index")
IGNORED_LABEL = -100


@dataclass(frozen=True, kw_only=True)
class BatchCounts:
    """The account of one batch, or of several added up."""

    samples: int = 0
    text_tokens: int = 0
    """Valid text ids, with those that the layout adds."""
    image_tokens: int = 0
    padding: int = 0
    truncated_texts: int = 0
    left_out_images: int = 0

    def __add__(self, other: BatchCounts) -> BatchCounts:
        return BatchCounts(**{name: value + vars(other)[name] for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    arrays: dict[str, np.ndarray]
    counts: BatchCounts


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The options that all layouts share."""

    name: ClassVar[str] = ""

    add_bos: bool | None = None
    """Begin the text with the tokenizer's bos id; by default when it has one."""
    add_eos: bool | None = None
    """End the text (cut or not) with the tokenizer's eos id; by default when it has one."""
    bos_id: int | None = None
    eos_id: int | None = None
    pad_id: int | None = None
    """What stands on padding: by default the tokenizer's pad id, else its eos id, else 0."""
    keys: tuple[str, ...] = KEYS
    """Which arrays to make."""

    def bind(self, manifest: Manifest) -> Self:
        """The same layout with every option filled in. Raises UserError where the dataset cannot be laid out so."""
        unknown = sorted(set(self.keys) - set(KEYS))
        if unknown:
            raise UserError(f"layout {self.name}: unknown key {unknown[0]!r}, known: {', '.join(KEYS)}")
        text = manifest.text
        bos_id = text.bos_id if text and self.bos_id is None else self.bos_id
        eos_id = text.eos_id if text and self.eos_id is None else self.eos_id
        pad_ids = (self.pad_id, text.pad_id if text else None, eos_id, 0)
        return dataclasses.replace(
            self,
            add_bos=self._wanted("bos", self.add_bos, bos_id),
            add_eos=self._wanted("eos", self.add_eos, eos_id),
            bos_id=bos_id,
            eos_id=eos_id,
            pad_id=next(pad_id for pad_id in pad_ids if pad_id is not None),
        )

    def settings(self) -> dict[str, Any]:
        """What the arrays depend on, as plain values: enters the loader's state."""
        values = dataclasses.asdict(self)
        del values["keys"]
        return {"name": self.name, **values}

    def batch(self, dataset: TokenDataset, rows: np.ndarray) -> Batch:
        """The arrays for `rows` of the dataset ([num_rows] integers); the layout must be bound."""
        raise NotImplementedError

    @property
    def frame(self) -> Frame:
        return Frame(
            bos=self.bos_id if self.add_bos else None, eos=self.eos_id if self.add_eos else None, pad=self.pad_id or 0
        )

    def _wanted(self, name: str, wanted: bool | None, token_id: int | None) -> bool:
        if wanted and token_id is None:
            raise UserError(
                f"{name} is wanted, but the dataset's tokenizer has no {name} id: leave it out, or pass {name}_id"
            )
        return token_id is not None if wanted is None else wanted

    def _check_width(self, option: str, width: int | None, manifest: Manifest) -> None:
        if width is None:
            raise UserError(f"layout {self.name} needs {option}: the dataset was made without data.block_size")
        least = self.frame.num_added + (manifest.text is not None)
        if width < least:
            raise UserError(f"layout {self.name}: {option}={width}, but bos, eos and one id of text need {least}")


@dataclass(frozen=True, kw_only=True)
class T2I(Layout):
    """`[text][image]`, for text-to-image and joint training: the image starts at column `block_size` in every row.

    A sample has at most one text and one image, all images one grid. A sample without text has only bos and eos; one
    without an image has padding in its place, masked, so that no other row is shifted by it.
    """

    name: ClassVar[str] = "t2i"

    block_size: int | None = None
    """Columns of text."""
    img_token_shift: int | None = None
    """What is added to image codes, by default the dataset's, which defaults to the text vocabulary."""
    num_image_tokens: int | None = None
    """Columns of image, by default (resolution / downsample)^2; 0 without images."""

    def bind(self, manifest: Manifest) -> Self:
        shift = self.img_token_shift if self.img_token_shift is not None else _default_shift(manifest)
        num_image_tokens = self.num_image_tokens
        if num_image_tokens is None:
            num_image_tokens = _default_image_tokens(manifest)
        bound = dataclasses.replace(
            super().bind(manifest),
            block_size=self.block_size if self.block_size is not None else manifest.layout.block_size,
            img_token_shift=shift,
            num_image_tokens=num_image_tokens,
        )
        bound._check_width("block_size", bound.block_size, manifest)
        _check_shift(bound, manifest)
        return bound

    def batch(self, dataset: TokenDataset, rows: np.ndarray) -> Batch:
        assert self.block_size is not None, "bind the layout first"
        table = dataset.spans(rows)
        texts, images = table.select(table.kind == Kind.TEXT), table.select(table.kind == Kind.IMAGE)
        _check_at_most_one(self.name, "text", texts)
        _check_at_most_one(self.name, "image", images)
        num_image = self._columns_of_image(images)
        width = self.block_size + num_image
        text = make_text_block(dataset, texts, self.block_size, self.frame)
        ids = np.empty((table.num_rows, width), np.int64)
        ids[:, : self.block_size] = text.ids
        ids[:, self.block_size :] = self.frame.pad
        codes = dataset.windows(images.part, images.first_token, num_image).astype(np.int64)
        codes += self.img_token_shift or 0
        ids[images.row, self.block_size :] = codes
        mask = np.empty(ids.shape, bool)
        np.less(np.arange(self.block_size), text.lengths[:, None], out=mask[:, : self.block_size])
        mask[:, self.block_size :] = False
        mask[images.row, self.block_size :] = True
        modality = np.repeat([0, 1], [self.block_size, num_image]).astype(np.int8)
        return _batch(self.keys, table, text, ids, mask, modality, num_image_tokens=num_image * len(images.row))

    def _columns_of_image(self, images: SpanTable) -> int:
        grids = np.unique(np.column_stack([images.height, images.width, images.length]), axis=0)
        if len(grids) > 1:
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

    max_length: int | None = None
    """Columns, by default the dataset's block_size."""

    def bind(self, manifest: Manifest) -> Self:
        max_length = self.max_length if self.max_length is not None else manifest.layout.block_size
        bound = dataclasses.replace(super().bind(manifest), max_length=max_length)
        bound._check_width("max_length", max_length, manifest)
        return bound

    def batch(self, dataset: TokenDataset, rows: np.ndarray) -> Batch:
        assert self.max_length is not None, "bind the layout first"
        table = dataset.spans(rows)
        text = make_text_block(dataset, table.select(table.kind == Kind.TEXT), self.max_length, self.frame)
        mask = np.arange(self.max_length) < text.lengths[:, None]
        modality = np.zeros(self.max_length, np.int8)
        left_out = int(np.count_nonzero(table.kind == Kind.IMAGE))
        return _batch(self.keys, table, text, text.ids, mask, modality, left_out_images=left_out)


LAYOUTS: dict[str, type[Layout]] = {layout.name: layout for layout in (T2I, Text)}


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
        arrays["labels"] = np.where(mask, ids, IGNORED_LABEL)
    if "position_ids" in keys:
        positions = np.cumsum(mask, axis=1, dtype=np.int64)
        positions -= 1
        positions *= mask
        arrays["position_ids"] = positions
    num_text_tokens = int(text.lengths.sum())
    counts = BatchCounts(
        samples=len(ids),
        text_tokens=num_text_tokens,
        image_tokens=num_image_tokens,
        padding=ids.size - num_text_tokens - num_image_tokens,
        truncated_texts=text.num_truncated,
        left_out_images=left_out_images,
    )
    return Batch(arrays={key: arrays[key] for key in keys}, counts=counts)


def _check_at_most_one(name: str, kind: str, spans: SpanTable) -> None:
    counts = np.bincount(spans.row, minlength=spans.num_rows)
    if counts.size and counts.max() > 1:
        row = int(counts.argmax())
        raise UserError(
            f"layout {name} takes at most one {kind} a sample, sample {spans.index[row]} has {counts[row]}: "
            "choose another layout for this dataset"
        )


def _default_shift(manifest: Manifest) -> int:
    for shift in (manifest.layout.img_token_shift, manifest.layout.text_vocab_size):
        if shift is not None:
            return shift
    return manifest.text.vocab_size if manifest.text else 0


def _default_image_tokens(manifest: Manifest) -> int | None:
    if manifest.image is None:
        return 0 if not manifest.counts.images else None
    resolution = manifest.layout.resolution
    return None if resolution is None else (resolution // manifest.image.downsample) ** 2


def _check_shift(layout: T2I, manifest: Manifest) -> None:
    vocab_size = manifest.text.vocab_size if manifest.text else 0
    shift = layout.img_token_shift or 0
    if manifest.image is not None and shift < vocab_size:
        raise UserError(
            f"layout t2i: img_token_shift={shift} is below the text vocabulary of {vocab_size} ids: "
            f"image codes would look like text; pass T2I(img_token_shift={vocab_size}) or more"
        )
