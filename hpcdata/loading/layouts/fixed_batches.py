"""Batches of layouts with fixed columns: what their rows have in common is found once for many of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Protocol

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.dataset.baked.record import IMAGE, TRAINED, VALID
from hpcdata.dataset.dataset import SpanTable, TokenDataset
from hpcdata.dataset.id_rows import Places
from hpcdata.loading.layouts.assembly import Batch, RowCounts
from hpcdata.loading.layouts.padded_text import Frame, TextRows
from hpcdata.loading.layouts.sequences import Form
from hpcdata.native.arrays import (
    IGNORED_LABEL,
    fill_behind,
    position_dtype,
    prefix_mask,
    prefix_positions,
    widen,
)
from hpcdata.native.compiled import kernels
from hpcdata.native.forks import Lazy
from hpcdata.native.recycled import empty
from hpcdata.native.threads import Later
from hpcdata.native.writers import WriteRows
from hpcdata.samples import Kind


class FixedColumns(Protocol):
    """What of a layout these batches need: text in the first `text_columns`, an image in the last."""

    form: ClassVar[Form]

    def keys_of(self, *, packed: bool) -> tuple[str, ...]: ...

    @property
    def ids(self) -> str: ...

    @property
    def text_columns(self) -> int: ...

    @property
    def frame(self) -> Frame: ...

    def check_spans(self, texts: SpanTable, images: SpanTable) -> None: ...

    def columns_of_image(self, images: SpanTable) -> int: ...

    def place_images(
        self, places: Places, first: int, rows: np.ndarray, out: np.ndarray, pad: int, later: Later | None
    ) -> None: ...


class FixedRows:
    """The rows of a table, for batches of some of them."""

    def __init__(self, layout: FixedColumns, dataset: TokenDataset, table: SpanTable) -> None:
        self._layout, self._dataset, self._table, self._columns = layout, dataset, table, layout.text_columns
        self._images = images = table.of_kind(Kind.IMAGE)
        texts = table.of_kind(Kind.TEXT)
        self._num_image: int | None = None
        try:
            layout.check_spans(texts, images)
            self._num_image = layout.columns_of_image(images)
        except UserError:
            return  # the batches that are refused, or differ in their grid, are found one by one
        self._keys = keys = (*layout.keys_of(packed=False), "loss_mask")
        self._dtypes = dtypes_of(keys, layout.ids, self._columns + self._num_image)
        self._pad = layout.frame.pad
        self._texts = TextRows(dataset, texts, layout.text_columns, layout.frame)
        self._places = dataset.places(images.part, images.first_token, images.length)
        self._counts = RowCounts(self._columns + self._num_image, *self._counted(table.num_rows))

    def _counted(self, num_rows: int) -> tuple[np.ndarray, tuple[str, ...]]:
        """What of the account differs from row to row, and its names."""
        counted = np.zeros((3, num_rows), np.int64)
        counted[0], counted[1] = self._texts.lengths, self._texts.is_truncated
        images, are_there = self._images.row, self._layout.form.images
        if len(images):
            counted[2] = np.bincount(images, minlength=num_rows) * (self._num_image or 0 if are_there else 1)
        return counted, ("text_tokens", "truncated_texts", "image_tokens" if are_there else "left_out_images")

    def batch(self, first: int, stop: int, later: Later | None = None, width: int | None = None) -> Batch:
        """Of rows `first` to `stop` - 1, always as wide as the layout. With a `later`, its ids may be there then."""
        layout = self._layout
        if self._num_image is None:
            part = self._table.between(first, stop)
            layout.check_spans(part.of_kind(Kind.TEXT), part.of_kind(Kind.IMAGE))
            layout.columns_of_image(part.of_kind(Kind.IMAGE))
            return FixedRows(layout, self._dataset, part).batch(0, stop - first)
        counts, whole = self._counts.between(first, stop), self._whole  # before its numbers leave the cache
        arrays = (
            self._in_steps(first, stop, later) if whole is None else whole.make(first, stop, self._dtypes, later=later)
        )
        if "index" in self._keys:
            arrays["index"] = self._table.index[first:stop]
        ordered = {key: arrays[key] for key in self._keys if key in arrays}
        return Batch(ordered, counts)

    def _in_steps(self, first: int, stop: int, later: Later | None) -> dict[str, np.ndarray]:
        """Ids first, and then what is made of them."""
        has_more, at_once = len(self._dtypes) > 1, self._rows if len(self._dtypes) > 1 else None
        arrays = {"input_ids": empty((stop - first, self._columns + (self._num_image or 0)), self._layout.ids)}
        ids = arrays["input_ids"]
        begin, rows = self._images_of(first, stop)
        self._place(ids, first, begin, rows, self._pad, later if at_once is None else None)
        if at_once is not None:
            arrays |= {key: empty(ids.shape, dtype) for key, dtype in self._dtypes.items() if key != "input_ids"}
            at_once(first, arrays, later=later)
        elif has_more:
            arrays |= self._others(ids, first, stop)
        return arrays

    def _others(self, ids: np.ndarray, first: int, stop: int) -> dict[str, np.ndarray]:
        """What is wanted besides ids and indices, where there are no compiled loops."""
        keys, shape, is_wide = self._keys, ids.shape, self._layout.ids == "int64"
        arrays: dict[str, np.ndarray] = {}
        if "attention_mask" in keys:
            arrays["attention_mask"] = self._valid(shape, first, stop)
        if "modality" in keys:
            modality = arrays["modality"] = empty(shape, np.int8)
            modality[:, : self._columns], modality[:, self._columns :] = 0, 1
        if "labels" in keys and is_wide:
            arrays["labels"] = self._labels(ids, first, stop)
        elif "labels" in keys:
            arrays["loss_mask"] = self._valid(shape, first, stop)
        if "position_ids" in keys:
            arrays["position_ids"] = self._positions(shape, first, stop)
        return arrays

    def _valid(self, shape: tuple[int, ...], first: int, stop: int) -> np.ndarray:
        mask = empty(shape, bool)
        prefix_mask(self._texts.lengths[first:stop], self._columns, mask[:, : self._columns])
        mask[:, self._columns :] = self._has_image(first, stop)[:, None]
        return mask

    def _labels(self, ids: np.ndarray, first: int, stop: int) -> np.ndarray:
        labels, columns = empty(ids.shape, np.int64), self._columns
        widen(ids, labels)
        fill_behind(labels[:, :columns], self._texts.lengths[first:stop], IGNORED_LABEL)
        if self._num_image:
            labels[~self._has_image(first, stop), columns:] = IGNORED_LABEL
        return labels

    def _positions(self, shape: tuple[int, ...], first: int, stop: int) -> np.ndarray:
        positions, columns = empty(shape, position_dtype(self._layout.ids, shape[1])), self._columns
        lengths = self._texts.lengths[first:stop]
        prefix_positions(lengths, positions[:, :columns])
        if self._num_image:
            np.add(lengths[:, None], np.arange(self._num_image), out=positions[:, columns:], casting="unsafe")
            positions[~self._has_image(first, stop), columns:] = 0
        return positions

    def _place(self, out: np.ndarray, first: int, begin: int, rows: np.ndarray, pad: int, later: Later | None) -> None:
        """Ids of texts from row `first` on, and of images from the place `begin` on, in these rows."""
        if not self._num_image:
            self._texts.place(out, first, pad=pad, later=later)
            return
        self._texts.place(out[:, : self._columns], first, pad=pad)
        self._layout.place_images(self._places, begin, rows, out[:, self._columns :], pad, later)

    def _images_of(self, first: int, stop: int) -> tuple[int, np.ndarray]:
        """The first image of these rows, and in which of them there are images."""
        row = self._images.row
        if not len(row):
            return 0, row
        begin, end = np.searchsorted(row, (first, stop)).tolist()
        return begin, row[begin:end] - first

    def _has_image(self, first: int, stop: int) -> np.ndarray:
        """[num_rows] bool, of these rows."""
        has_image = np.zeros(stop - first, bool)
        has_image[self._images_of(first, stop)[1]] = True
        return has_image

    @Lazy
    def _whole(self) -> WriteRows | None:
        """What makes rows with their ids, where there are compiled loops, and a row is one piece of stored ids."""
        compiled, ids = kernels(), self._texts.whole
        if compiled is None or ids is None or self._num_image or not ids.stay_mapped:
            return None
        runs = self._runs if len(self._dtypes) > 1 else None
        return compiled.write_rows(self._columns, runs, (ids.ids, ids.start, self._texts.lengths), pad=self._pad)

    @Lazy
    def _rows(self) -> WriteRows | None:
        """What makes all arrays at once of ids that are there, where there are compiled loops."""
        compiled = kernels()
        return None if compiled is None else compiled.write_rows(self._columns + (self._num_image or 0), self._runs)

    @property
    def _runs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(the first of each row and the one behind the last, length, kind): text, padding, and image if there is."""
        lengths, num_image = self._texts.lengths, self._num_image or 0
        each = 3 if num_image else 2
        length, kind = np.empty((len(lengths), each), np.int64), np.zeros((len(lengths), each), np.int64)
        length[:, 0], length[:, 1], kind[:, 0] = lengths, self._columns - lengths, VALID | TRAINED
        if num_image:
            length[:, 2], kind[:, 2] = num_image, IMAGE
            kind[self._images.row, 2] |= VALID | TRAINED
        return np.arange(len(lengths) + 1) * each, length.reshape(-1), kind.reshape(-1)


def dtypes_of(keys: Collection[str], ids: str, width: int) -> dict[str, np.dtype]:
    """Of `input_ids` and those of `keys` that have as many columns. Narrow ids come with a mask, wide with labels."""
    is_wide = ids == "int64"
    kinds: dict[str, np.typing.DTypeLike] = {
        "attention_mask": bool,
        "modality": np.int8,
        "labels" if is_wide else "loss_mask": np.int64 if is_wide else bool,
        "position_ids": position_dtype(ids, width),
    }
    wanted = {"loss_mask" if key == "labels" and not is_wide else key for key in keys if key != "loss_mask"}
    found = {"input_ids": ids, **{key: kind for key, kind in kinds.items() if key in wanted}}
    return {key: np.dtype(kind) for key, kind in found.items()}
