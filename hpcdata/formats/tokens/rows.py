"""A batch of rows of a dataset, and their ids in one sequence each.

A row's texts and codes stand end to end, in its order: `[bos] text [begin] codes + shift [end] text ... [eod]`, what is
in brackets where it was asked for. Nothing is done per row or span in Python.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hpcdata.dataset.dataset import TokenDataset
from hpcdata.dataset.span_table import SpanTable
from hpcdata.native.arrays import before_in_row, empty, totals_before
from hpcdata.native.compiled import kernels
from hpcdata.native.forks import Lazy
from hpcdata.order.permutation import keys_for, permute
from hpcdata.samples import LOSS_FLAG, ROLE_MASK, Example, Kind

SPAN_COLUMNS = {
    "span_length": "int32",
    "span_kind": "uint8",
    "span_height": "int32",
    "span_width": "int32",
    "span_role": "uint8",
    "span_loss": "uint8",
}
"""What `spans` is where there are columns: of each span of a row, its ids, kind (0 text, 1 image), grid in codes, role
(0 none, 1 system, 2 user, 3 assistant), and whether a training is to predict it."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a row becomes one sequence; None: no such id."""

    dtype: str
    """Of its ids: uint16, int32 or int64."""
    image_shift: int = 0
    bos: int | None = None
    eod: int | None = None
    image_begin: int | None = None
    image_end: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """In which order the rows of a dataset are exported: its own, or a permutation."""

    dataset: TokenDataset
    seed: int | None = None

    def rows(self, positions: np.ndarray, *, start: int, count: int) -> Rows:
        """Those at `positions` ([n] int64) of the batch that begins at `start` and has `count` of them."""
        row = positions
        if self.seed is not None:
            row = permute(positions, len(self.dataset), keys_for(f"export seed={self.seed}"))
        return Rows(dataset=self.dataset, row=row, position=positions, order=self, start=start, count=count)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Consecutive rows of an export, in its order."""

    dataset: TokenDataset
    row: np.ndarray
    """[num_rows] int64: which rows of the dataset they are."""
    position: np.ndarray
    """[num_rows] int64: where they stand in the export."""
    order: Order
    start: int
    """Where the batch begins."""
    count: int
    """Its positions: more than rows where some are rejected before."""

    def __len__(self) -> int:
        return len(self.row)

    def whole(self) -> Rows:
        """All of the batch, also what is rejected."""
        if len(self) == self.count:
            return self
        return self.order.rows(np.arange(self.start, self.start + self.count), start=self.start, count=self.count)

    @Lazy
    def table(self) -> SpanTable:
        return self.dataset.spans(self.row)

    @Lazy
    def num_ids(self) -> np.ndarray:
        """[num_rows] int64: ids and codes of each."""
        return self.dataset.num_ids(self.row)

    def examples(self) -> Iterator[Example]:
        """One at a time; their ids are views of the files."""
        return (self.dataset[row] for row in self.row.tolist())

    @Lazy
    def texts(self) -> list[str]:
        """Of each row the texts that were kept, a line each."""
        return ["\n".join(text.text for text in texts) for texts in self.dataset.texts(self.row)]

    @Lazy
    def first_span(self) -> np.ndarray:
        """[num_rows + 1] int64: where the spans of each begin, and the end."""
        return totals_before(np.bincount(self.table.row, minlength=len(self)))

    def span_columns(self) -> dict[str, np.ndarray]:
        """[num_spans] each, see `SPAN_COLUMNS`."""
        table = self.table
        values = {
            "span_length": table.length,
            "span_kind": table.kind,
            "span_height": table.height,
            "span_width": table.width,
            "span_role": table.flags & ROLE_MASK,
            "span_loss": table.flags & LOSS_FLAG > 0,
        }
        return {name: values[name].astype(dtype) for name, dtype in SPAN_COLUMNS.items()}

    def keys(self) -> list[str]:
        return self.dataset.keys(self.row)

    def without(self, numbers: Sequence[int]) -> Rows:
        """All but those, by their places in the batch."""
        if not len(numbers):
            return self
        row, position = np.delete(self.row, numbers), np.delete(self.position, numbers)
        return dataclasses.replace(self, row=row, position=position)

    def sequences(self, rule: Rule) -> Sequences:
        return Sequences(self, rule)


class Sequences:
    """Rows as one sequence of ids each."""

    def __init__(self, rows: Rows, rule: Rule) -> None:
        table = self._table = rows.table
        self._rows, self._rule = rows, rule
        is_image = table.kind == Kind.IMAGE
        before = is_image * int(rule.image_begin is not None)
        total = table.length + before + is_image * int(rule.image_end is not None)
        around = int(rule.bos is not None) + int(rule.eod is not None)
        self.lengths = np.bincount(table.row, total, len(rows)).astype(np.int64) + around
        """[num_rows] int64."""
        self.first = totals_before(self.lengths)
        """[num_rows + 1] int64: where each begins in `ids`, and the end."""
        at = self.first[table.row] + before_in_row(table.row, total) + int(rule.bos is not None)
        self._dest, self._is_image, self._total = at + before, is_image, total

    @Lazy
    def ids(self) -> np.ndarray:
        """[sum of lengths] of the rule's dtype."""
        return self._ids(0, len(self.lengths), empty((int(self.first[-1]),), self._rule.dtype))

    def blocks(self, num_bytes: int, room: Callable[[int], np.ndarray]) -> Iterator[np.ndarray]:
        """The same in blocks of about as many bytes, whole rows in each: what is made at once stays in a cache.

        room: an array of the rule's dtype for so many ids, to put them in.
        """
        start, num_ids = 0, max(1, num_bytes // np.dtype(self._rule.dtype).itemsize)
        while start < len(self.lengths):
            stop = max(start + 1, int(np.searchsorted(self.first, self.first[start] + num_ids, side="right")) - 1)
            yield self._ids(start, stop, room(int(self.first[stop] - self.first[start])))
            start = stop

    def _ids(self, start: int, stop: int, out: np.ndarray) -> np.ndarray:
        """Of rows `start` to `stop` - 1, in `out`."""
        rule, first = self._rule, self.first[start : stop + 1] - self.first[start]
        spans = slice(*np.searchsorted(self._table.row, (start, stop)).tolist())
        table, dest, is_image = self._table.select(spans), self._dest[spans] - self.first[start], self._is_image[spans]
        stored = np.dtype(self._rows.dataset.manifest.id_dtype)
        is_narrower = np.dtype(rule.dtype).itemsize < stored.itemsize
        wide = empty(out.shape, stored) if is_narrower else out
        copy_ids(self._rows.dataset, table, is_image * np.int64(rule.image_shift), dest, wide)
        if is_narrower:
            out[:] = wide
        if rule.bos is not None:
            out[first[:-1]] = rule.bos
        if rule.eod is not None:
            out[first[1:] - 1] = rule.eod
        images = np.flatnonzero(is_image)
        if rule.image_begin is not None:
            out[dest[images] - 1] = rule.image_begin
        if rule.image_end is not None:
            out[dest[images] + table.length[images]] = rule.image_end
        return out

    @Lazy
    def modality(self) -> np.ndarray:
        """[sum of lengths] uint8: 1 on codes of pictures, 0 on all else."""
        return self._spread(self._is_image.astype(np.uint8), 0)

    @Lazy
    def loss_mask(self) -> np.ndarray:
        """[sum of lengths] uint8: 1 on what a training is to predict, `eod` too."""
        flags = (self._table.flags & LOSS_FLAG > 0).astype(np.uint8)
        mask = self._spread(flags, 0)
        if self._rule.eod is not None:
            mask[self.first[1:] - 1] = 1
        return mask

    def runs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(row, length, mode) of each run of texts or pictures, ids that are put before and behind it among them.

        mode: 0 text, 1 image. A row without any has one of mode 0 for its control ids, or none.
        """
        rule, row = self._rule, self._table.row
        image = self._is_image.astype(np.uint8)
        is_new = np.ones(len(row), bool)
        is_new[1:] = (row[1:] != row[:-1]) | (image[1:] != image[:-1])
        starts = np.flatnonzero(is_new)
        length = np.add.reduceat(self._total, starts) if len(starts) else np.zeros(0, np.int64)
        row, mode = row[starts], image[starts]
        around = int(rule.bos is not None) + int(rule.eod is not None)
        lacking = np.setdiff1d(np.arange(len(self.lengths)), row) if around else np.zeros(0, np.int64)
        order = np.argsort(np.concatenate([row, lacking]), kind="stable")
        row = np.concatenate([row, lacking])[order]
        length = np.concatenate([length, np.zeros(len(lacking), np.int64)])[order]
        mode = np.concatenate([mode, np.zeros(len(lacking), np.uint8)])[order]
        if len(row):
            changes = np.flatnonzero(row[1:] != row[:-1])
            length[np.concatenate([[0], changes + 1])] += int(rule.bos is not None)
            length[np.concatenate([changes, [len(row) - 1]])] += int(rule.eod is not None)
        return row, length, mode

    def of_row(self, values: np.ndarray, number: int) -> np.ndarray:
        return values[self.first[number] : self.first[number + 1]]

    def _spread(self, values: np.ndarray, others: int) -> np.ndarray:
        """`values` of spans on their ids, `others` elsewhere."""
        out, length, compiled = np.empty(int(self.first[-1]), np.uint8), self._table.length, kernels()
        if compiled is None or not len(length):
            out[:] = others
            out[_places(self._dest, length)] = np.repeat(values, length)
            return out
        runs = (np.ascontiguousarray(item, np.int64) for item in (values, self._dest, length))
        compiled.fill_runs(*runs)(out, 0, len(length), 0, others)
        return out


def copy_ids(dataset: TokenDataset, table: SpanTable, shift: np.ndarray, dest: np.ndarray, out: np.ndarray) -> None:
    """out[dest...] = the ids of each span + its shift ([num_spans] each). What stands between them is not defined."""
    compiled, maps = kernels(), dataset.maps
    if not len(table.length):
        return
    if compiled is None:
        out[:] = 0
        ids = dataset.ids(table.part, table.first_token, table.length).astype(np.int64)
        out[_places(dest, table.length)] = ids + np.repeat(shift, table.length)
        return
    with maps.opened(table.part):
        start = table.first_token + maps.tokens[table.part]
        runs = [np.ascontiguousarray(item, np.int64) for item in (start, shift, dest, table.length)]
        compiled.place_runs(maps.column("tokens/ids"), *runs)(out, 0, len(table.length), 0)


def bytes_of(values: np.ndarray) -> memoryview:
    """The bytes of contiguous values."""
    return memoryview(values.view(np.uint8).data)


def _places(dest: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Of every id of spans that stand at `dest`."""
    ends = np.cumsum(length)
    return np.repeat(dest - (ends - length), length) + np.arange(ends[-1] if len(ends) else 0)
