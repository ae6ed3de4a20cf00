"""Text spans as padded rows: the part that all layouts and exports have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcdata.dataset.dataset import SpanTable, TokenDataset
from hpcdata.dataset.id_rows import Places
from hpcdata.native.arrays import before_in_row, fill_behind, ragged
from hpcdata.native.recycled import empty
from hpcdata.native.threads import Later


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What stands around a text: ids before and behind it (None: nothing), and on padding."""

    bos: int | None = None
    eos: int | None = None
    pad: int = 0

    @property
    def num_added(self) -> int:
        return (self.bos is not None) + (self.eos is not None)


@dataclass(frozen=True, kw_only=True, eq=False)
class TextBlock:
    """ids: [num_rows, width] int64; lengths: [num_rows] int64, valid ids with bos and eos; how many texts were cut."""

    ids: np.ndarray
    lengths: np.ndarray
    num_truncated: int


def make_text_block(
    dataset: TokenDataset, texts: SpanTable, width: int, frame: Frame, out: np.ndarray | None = None
) -> TextBlock:
    """The text spans of each row end to end, between bos and eos, cut or padded to `width` >= frame.num_added.

    `out`: where they go ([num_rows, width] int64 or uint16), otherwise into new memory.
    """
    ids = empty((texts.num_rows, width), np.int64) if out is None else out
    rows = TextRows(dataset, texts, width, frame)
    rows.place(ids)
    return TextBlock(ids=ids, lengths=rows.lengths, num_truncated=int(rows.is_truncated.sum()))


class TextRows:
    """The same for some rows at a time: what all of them have in common is found once."""

    def __init__(self, dataset: TokenDataset, texts: SpanTable, width: int, frame: Frame) -> None:
        self._dataset, self._texts, self._frame = dataset, texts, frame
        self._start, self._room = int(frame.bos is not None), width - frame.num_added
        self._is_single = len(texts.row) <= texts.num_rows and bool((texts.row[1:] != texts.row[:-1]).all())
        self._is_even = self._is_single and len(texts.row) == texts.num_rows
        total = texts.length if self._is_even else np.bincount(texts.row, texts.length, texts.num_rows).astype(np.int64)
        taken = np.minimum(total, self._room)
        self._has_frame = frame.num_added > 0
        self.lengths = taken + frame.num_added if self._has_frame else taken
        self.is_truncated = total > self._room
        self._taken = taken
        if self._is_single:
            self._places = dataset.places(texts.part, texts.first_token, taken if self._is_even else taken[texts.row])

    @property
    def whole(self) -> Places | None:
        """Where the ids of the rows are, if each is one piece of stored ids and nothing else."""
        return self._places if self._is_even and not self._has_frame else None

    def place(self, ids: np.ndarray, first: int = 0, *, pad: int | None = None, later: Later | None = None) -> None:
        """Fills `ids`, as above, with the rows from `first` on; with another `pad` than the frame's if there is one.

        With a `later`, it may be done then.
        """
        frame, stop = self._frame, first + len(ids)
        pad = frame.pad if pad is None else pad
        inside = ids if not self._has_frame else ids[:, self._start : self._start + self._room]
        if self._is_even:
            self._places.place(inside, first, pad=pad, later=None if self._has_frame else later)
        elif self._is_single:
            begin, end = np.searchsorted(self._texts.row, (first, stop)).tolist()
            inside[:] = pad
            self._places.place(inside, begin, rows=self._texts.row[begin:end] - first, pad=pad)
        else:
            _place_several(self._dataset, self._texts.between(first, stop), inside)
            fill_behind(ids[:, self._start :], self._taken[first:stop], pad)
        if frame.bos is not None:
            ids[:, 0] = frame.bos
        if frame.eos is not None:
            ids[:, -1] = pad
            ids[np.arange(len(ids)), self.lengths[first:stop] - 1] = frame.eos


def _place_several(dataset: TokenDataset, texts: SpanTable, out: np.ndarray) -> None:
    """Several spans a row, each behind the one before it, as far as there is room."""
    column = before_in_row(texts.row, texts.length)
    take = np.clip(out.shape[1] - column, 0, texts.length)
    source, within = ragged(take)
    out[texts.row[source], column[source] + within] = dataset.ids(texts.part, texts.first_token, take)
