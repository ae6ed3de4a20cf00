"""Text spans as padded rows: the part that all layouts and exports have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcdata.loading.arrays import empty, fill_behind, widen
from hpcdata.loading.dataset import SpanTable, TokenDataset


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
    start, room = int(frame.bos is not None), width - frame.num_added
    is_single = len(texts.row) <= texts.num_rows and bool((texts.row[1:] != texts.row[:-1]).all())
    total = _total(texts, is_single)
    taken = np.minimum(total, room)
    lengths = taken + frame.num_added
    ids = empty((texts.num_rows, width), np.int64) if out is None else out
    if is_single:
        _place_single(dataset, texts, taken, ids[:, start : start + room], frame.pad)
    else:
        _place_several(dataset, texts, ids[:, start : start + room])
        fill_behind(ids[:, start:], taken, frame.pad)
    ids[:, start + room :] = frame.pad
    if frame.bos is not None:
        ids[:, 0] = frame.bos
    if frame.eos is not None:
        ids[np.arange(len(ids)), lengths - 1] = frame.eos
    return TextBlock(ids=ids, lengths=lengths, num_truncated=int(np.count_nonzero(total > room)))


def _total(texts: SpanTable, is_single: bool) -> np.ndarray:
    """[num_rows] int64: ids of text of each row."""
    if is_single and len(texts.row) == texts.num_rows:
        return texts.length
    return np.bincount(texts.row, texts.length, texts.num_rows).astype(np.int64)


def _place_single(dataset: TokenDataset, texts: SpanTable, taken: np.ndarray, out: np.ndarray, pad: int) -> None:
    """At most one span a row: whole windows at once, padded behind `taken` while they are narrow, then widened."""
    width = min(out.shape[1], int(taken.max(initial=0)))
    windows = dataset.windows(texts.part, texts.first_token, width)
    fits = 0 <= pad <= np.iinfo(windows.dtype).max
    lengths = taken[texts.row]
    if fits:
        fill_behind(windows, lengths, pad)
    if len(texts.row) == len(out):
        widen(windows, out[:, :width])
    else:
        out[:, :width] = pad
        out[texts.row, :width] = windows
    out[:, width:] = pad
    if not fits:
        fill_behind(out, taken, pad)


def _place_several(dataset: TokenDataset, texts: SpanTable, out: np.ndarray) -> None:
    """Several spans a row, each behind the one before it, as far as there is room."""
    column = columns_of(texts)
    take = np.clip(out.shape[1] - column, 0, texts.length)
    source, within = ragged(take)
    out[texts.row[source], column[source] + within] = dataset.ids(texts.part, texts.first_token, take)


def columns_of(spans: SpanTable) -> np.ndarray:
    """[num_spans]: where each span begins when the spans of a row stand end to end."""
    before = np.cumsum(spans.length) - spans.length
    is_first = np.ones(len(before), bool)
    is_first[1:] = spans.row[1:] != spans.row[:-1]
    return before - before[is_first][np.cumsum(is_first) - 1]


def ragged(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(which run, place in it) of every element of runs of these lengths that stand end to end."""
    starts = np.cumsum(lengths) - lengths
    return np.repeat(np.arange(len(lengths)), lengths), np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
