"""SpanTable: what a batch of rows consists of, looked up for all rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpcdata.dataset.parts import PartMaps
from hpcdata.native.addresses import DAMAGED
from hpcdata.native.arrays import ragged, totals_before
from hpcdata.native.forks import Lazy
from hpcdata.samples import Kind

COLUMNS = ("row", "kind", "length", "part", "first_token", "place")


@dataclass(frozen=True, kw_only=True, eq=False)
class SpanTable:
    """What a batch of rows consists of, without the ids.

    index: [num_rows] int64, the samples' indices in the plan, in the order of the rows. The other columns are
    [num_spans] int64, sorted by row; the spans of one sample stand together, in its order.
    """

    index: np.ndarray
    row: np.ndarray
    """Which row of the batch the span belongs to, 0 to num_rows - 1."""
    kind: np.ndarray
    length: np.ndarray
    part: np.ndarray
    first_token: np.ndarray
    """Where its ids start in the part's tokens."""
    place: np.ndarray
    """Which row of the columns of spans it is."""
    maps: PartMaps
    given_flags: np.ndarray | None = None
    """[num_spans] of spans that are not stored, -1 of the others; None: all are. The stored ones of a sample say which
    `part` and `place` the others have.
    """

    @Lazy
    def flags(self) -> np.ndarray:
        flags, given = self._detail("spans/flags"), self.given_flags
        return flags if given is None else np.where(given < 0, flags, given)

    @Lazy
    def height(self) -> np.ndarray:
        return self._detail("spans/grid")[:, 0]

    @Lazy
    def width(self) -> np.ndarray:
        return self._detail("spans/grid")[:, 1]

    @property
    def num_rows(self) -> int:
        return len(self.index)

    def select(self, mask: np.ndarray | slice) -> SpanTable:
        """The spans where `mask` ([num_spans] bool) is set, of the same rows."""
        spans = {name: getattr(self, name)[mask] for name in COLUMNS}
        given = None if self.given_flags is None else self.given_flags[mask]
        return SpanTable(index=self.index, maps=self.maps, given_flags=given, **spans)

    def of_kind(self, kind: Kind) -> SpanTable:
        """Its spans of one kind, of the same rows."""
        least, most = self._kinds
        if least == most:
            return self if least == kind else self.select(slice(0))
        return self.select(self.kind == kind)

    @Lazy
    def _kinds(self) -> tuple[int, int]:
        """The least and the greatest."""
        return (int(self.kind.min()), int(self.kind.max())) if len(self.kind) else (-1, -1)

    def between(self, start: int, stop: int) -> SpanTable:
        """Rows `start` to `stop` - 1 as a table of their own: a lookup for many steps serves each of them."""
        first, end = np.searchsorted(self.row, (start, stop)).tolist()
        spans = {name: getattr(self, name)[first:end] for name in COLUMNS}
        spans["row"] = spans["row"] - start
        given = None if self.given_flags is None else self.given_flags[first:end]
        return SpanTable(index=self.index[start:stop], maps=self.maps, given_flags=given, **spans)

    @classmethod
    def join(cls, several: Sequence[SpanTable]) -> SpanTable:
        """Of the rows of all, one after the other."""
        if len(several) == 1:
            return several[0]
        spans = {name: np.concatenate([getattr(table, name) for table in several]) for name in COLUMNS}
        first = totals_before(np.array([table.num_rows for table in several], np.int64))[:-1]
        spans["row"] += np.repeat(first, [len(table.row) for table in several])
        index = np.concatenate([table.index for table in several])
        return cls(index=index, maps=several[0].maps, **spans)

    def _detail(self, column: str) -> np.ndarray:
        maps, found = self.maps, []
        at_a_time = maps.max_open if maps.may_close else max(1, len(self.part))
        for start in range(0, max(1, len(self.part)), at_a_time):
            some = slice(start, start + at_a_time)
            with maps.opened(self.part[some], details=True):
                found.append(maps.column(column).take(self.place[some], axis=0).astype(np.int64))  # faster than [place]
        return np.concatenate(found)


def find_spans(maps: PartMaps, at: np.ndarray, parts: np.ndarray) -> SpanTable:
    """Of rows `at` of the columns of samples, in `parts` ([num_rows] each)."""
    index, num_spans = maps.column("samples/index")[at], maps.column("samples/num_spans")[at]
    first_span = maps.column("samples/first_span")[at]
    _check_inside(first_span, num_spans, maps.num_spans[parts])
    first_span += maps.spans[parts]
    first_token = maps.column("samples/first_token")[at]
    row, within = ragged(num_spans)
    place = first_span[row] + within
    length = maps.column("spans/length")[place].astype(np.int64)
    kind = maps.column("spans/kind")[place].astype(np.int64)
    first_token = first_token[row]
    if within.any():
        before = np.cumsum(length) - length
        first_token += before - before[np.arange(len(row)) - within]
    part = parts[row]
    _check_inside(first_token, length, maps.num_tokens[part])
    return SpanTable(
        index=index.astype(np.int64, copy=False),
        row=row,
        kind=kind,
        length=length,
        part=part,
        first_token=first_token,
        place=place,
        maps=maps,
    )


def _check_inside(first: np.ndarray, count: np.ndarray, size: np.ndarray) -> None:
    """Raises IndexError unless all rows `first` to `first + count` are there, of `size` ([n] each)."""
    if ((first < 0) | (count < 0) | (count > size - first)).any():
        raise IndexError(DAMAGED)
