"""TokenDataset: random access to the examples of a combined dataset.

    ds = TokenDataset("/out")            # a dataset folder, a run folder that contains one, or one shard
    ds[7].spans                          # hpcdata.samples.Example, its ids are read-only views of the files
    DataLoader(ds, collate_fn=list)      # map-style: picklable, fork-safe, also with worker processes

Opening reads the manifest alone; a part is mapped when one of its samples is wanted first, and its file sizes are
checked then. Loaders use the vectorised methods: `spans` looks up what a batch of rows consists of, `places`,
`windows` and `ids` copy ids. They never run Python per sample, span, id or part (see hpcdata.dataset.parts).
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.dataset.id_rows import Places
from hpcdata.dataset.manifest import Manifest
from hpcdata.dataset.maps import map_column
from hpcdata.dataset.opening import open_manifest
from hpcdata.dataset.partlist import Part
from hpcdata.dataset.parts import PartMaps
from hpcdata.dataset.readahead import ReadAhead, will_need
from hpcdata.dataset.span_table import COLUMNS, SpanTable, find_spans
from hpcdata.native.arrays import totals_before
from hpcdata.native.compiled import kernels
from hpcdata.native.forks import ForkLock, Lazy
from hpcdata.native.intervals import Intervals
from hpcdata.native.recycled import empty
from hpcdata.samples import LOSS_FLAG, ROLE_MASK, Example, Kind, RawText, Role, Span
from hpcdata.shards.raw_texts.columns import RawTexts
from hpcdata.shards.raw_texts.part import PartTexts

if TYPE_CHECKING:
    from hpcdata.dataset.decoding import Decoded

_MAX_OPEN_PARTS = 2000
"""Parts whose ids and keys are mapped at a time for `dataset[row]`: the kernel allows a process about 65,000 maps."""


class TokenDataset:
    """The examples of a dataset by row: 0 to len - 1, in the order of the plan."""

    _mapped: PartMaps | None
    _lock: ForkLock

    def __init__(self, path: str | Path | Manifest, *, allow_tmp: bool = False) -> None:
        """`path`: a dataset, a run, one committed shard, or a manifest that was made in memory.

        `allow_tmp`: of a run that is not finished, take the shards and checkpoints as they stand now (`coverage`).
        """
        self.manifest = path if isinstance(path, Manifest) else open_manifest(path, allow_tmp=allow_tmp)
        self.path = path.folder if isinstance(path, Manifest) else Path(path)
        if not self.manifest.id_dtype:
            raise UserError(f"{self.path} holds raw records (stage {self.manifest.stage}), no tokens: read its files")
        self._first_row = totals_before(np.array(self.manifest.parts.samples, np.int64))
        self._reset()

    def __len__(self) -> int:
        return int(self._first_row[-1])

    @property
    def num_tokens(self) -> int:
        """Ids of all its samples, codes of pictures among them."""
        return sum(self.manifest.parts.tokens)

    @property
    def coverage(self) -> float:
        """Which part of the plan's inputs has been dealt with: 1.0, but for unfinished runs."""
        counts = self.manifest.counts
        return 1 - counts.missing / max(1, counts.inputs)

    def __getitem__(self, row: int) -> Example:
        """The example at `row`; negative rows count from the end."""
        size = len(self)
        if not -size <= row < size:
            raise IndexError(f"row {row} of a dataset of {size} samples")
        return self._example(int(row) % size)

    def __getitems__(self, rows: Sequence[int]) -> list[Example]:
        return [self[row] for row in rows]

    def __iter__(self) -> Iterator[Example]:
        return (self[row] for row in range(len(self)))

    def decode(
        self,
        row: int,
        *,
        text_tokenizer: str | Path | None = None,
        image_checkpoint: str | Path | None = None,
        device: str = "cpu",
    ) -> Decoded:
        """The texts and pictures of the example at `row`, to look at: `ds.decode(7).texts`, `ds.decode(7).images`.

        text_tokenizer, image_checkpoint: the files that the run was launched with, where the dataset is no longer
        beside its run; what comes with hpcdata is found by itself. device: `cpu`, `cuda`, `cuda:N`. Raises UserError
        for files that are missing, or are not those of the run.
        """
        from hpcdata.dataset.decoding import decode

        return decode(
            self.manifest,
            self[row],
            text_tokenizer=text_tokenizer,
            image_checkpoint=image_checkpoint,
            device=device,
        )

    def __repr__(self) -> str:
        return f"TokenDataset({str(self.path)!r}): {self.manifest.counts.describe()}"

    def _repr_html_(self) -> str:
        from hpcdata.dataset.showing import to_html

        return to_html(self.path, self.manifest, self.decode)

    def __getstate__(self) -> dict[str, Any]:
        return {name: vars(self)[name] for name in ("path", "manifest", "_first_row")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._reset()

    def stored_rows(self, rows: np.ndarray) -> np.ndarray:
        """Which of the samples on disk, in the order of their parts, those at `rows` ([n] integers) are."""
        return rows

    def spans(self, rows: np.ndarray) -> SpanTable:
        """What the samples at `rows` ([num_rows] integers in [0, len)) consist of."""
        return SpanTable.join([self._find(some) for some in self._that_fit(self._checked(rows))])

    def _find(self, stored: np.ndarray) -> SpanTable:
        """The spans of samples on disk, [num_rows] int64, whose parts may be mapped at a time."""
        (parts, at), maps, compiled = self._places_of(stored), self.maps, kernels()
        with maps.opened(parts):
            if compiled is None:
                return find_spans(maps, at, parts)
            index, spans = compiled.find_spans(at, parts, maps)
        return SpanTable(index=index, maps=maps, **dict(zip(COLUMNS, spans, strict=True)))

    def num_ids(self, rows: np.ndarray) -> np.ndarray:
        """[num_rows] int64: how many ids the samples at `rows` have, codes of pictures too; cheaper than `spans`."""
        stored = self._checked(rows)
        return np.concatenate([self._num_ids(some) for some in self._that_fit(stored)])

    def num_spans(self, rows: np.ndarray) -> np.ndarray:
        """[num_rows] int64: how many spans the samples at `rows` have."""
        stored, found = self._checked(rows), []
        for some in self._that_fit(stored):
            parts, at = self._places_of(some)
            with self.maps.opened(parts):
                found.append(self.maps.column("samples/num_spans").take(at).astype(np.int64))
        return np.concatenate(found)

    def _num_ids(self, stored: np.ndarray) -> np.ndarray:
        (parts, at), ends = self._places_of(stored), self._first_row[1:] - 1
        with self.maps.opened(parts):
            column = self.maps.column("samples/first_token")
            first = column.take(at)
            at += 1
            stop = column.take(at, mode="clip")
        is_last = np.flatnonzero(stored == (ends if len(ends) == 1 else ends[parts]))
        stop[is_last] = self.maps.num_tokens[parts[is_last]]  # what stands behind is of another part
        stop -= first
        return stop

    def _checked(self, rows: np.ndarray) -> np.ndarray:
        """Which of the samples on disk they are, int64; raises IndexError for what is not there."""
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and rows.view(np.uint64).max() >= len(self):  # negative ones are the greatest
            raise IndexError(f"rows {rows.min()} to {rows.max()} of a dataset of {len(self)} samples")
        return self.stored_rows(rows)

    @property
    def most_ahead(self) -> int:
        """Samples that it pays to look up at a time: of more, some parts are no longer mapped when they are copied."""
        return max(1, self.maps.max_open // 2) if self.maps.may_close else len(self)

    def _that_fit(self, stored: np.ndarray) -> Iterator[np.ndarray]:
        """Of samples on disk as many at a time as may have their parts mapped, in their order."""
        most = self.maps.max_open if self.maps.may_close else max(1, len(stored))
        for start in range(0, max(1, len(stored)), most):
            yield stored[start : start + most]

    def _places_of(self, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(parts, at): of samples on disk, and their rows in the columns of samples."""
        parts, maps = self._parts_of(stored), self.maps
        maps.advise(stored)
        before = maps.samples - self._first_row[:-1]
        return parts, stored + (before[parts] if len(before) > 1 else before)

    def keys(self, rows: np.ndarray) -> list[str]:
        """The keys of the samples at `rows` ([n] integers in [0, len))."""
        found = []
        for row, part_index in zip(rows.tolist(), self._parts_of(rows).tolist(), strict=True):
            found.append(self._part(part_index).key(row - int(self._first_row[part_index])))
        return found

    def texts(self, rows: np.ndarray) -> list[tuple[RawText, ...]]:
        """The raw texts of the samples at `rows` ([n] integers in [0, len)), where their run keeps them."""
        return self.raw_texts(rows).rows()

    def raw_texts(self, rows: np.ndarray) -> RawTexts:
        """The same as columns."""
        parts, groups = self._parts_of(rows), list[tuple[np.ndarray, RawTexts]]()
        for part_index in np.unique(parts).tolist():
            at = np.flatnonzero(parts == part_index)
            texts = self._part(part_index).texts.at(rows[at] - int(self._first_row[part_index]))
            groups.append((at, texts))
        if len(groups) == 1:
            return groups[0][1]
        return RawTexts.joined(len(rows), groups) if groups else RawTexts.of([])

    def places(self, part: np.ndarray, start: np.ndarray, length: np.ndarray) -> Places:
        """From where rows are copied: `length` ids from `start` in the tokens of `part` ([num_places] each)."""
        maps = self.maps
        return Places(maps, part, start + (maps.tokens[part] if len(maps.tokens) > 1 else maps.tokens), length)

    def windows(self, part: np.ndarray, start: np.ndarray, width: int, out: np.ndarray | None = None) -> np.ndarray:
        """ids: [num_windows, width] from `start` in the tokens of `part`; what stands behind a span is to be masked."""
        ids = empty((len(start), width), self.manifest.id_dtype) if out is None else out
        self.places(part, start, np.full(len(start), width)).copy(ids)
        return ids

    def ids(self, part: np.ndarray, start: np.ndarray, length: np.ndarray) -> np.ndarray:
        """ids: [sum of `length`], runs end to end from `start` in the tokens of `part` ([num_runs] each)."""
        maps = self.maps
        ends = np.cumsum(length)
        first = start + maps.tokens[part] - (ends - length)
        with maps.opened(part):
            ids = maps.column("tokens/ids")[np.repeat(first, length) + np.arange(ends[-1] if len(ends) else 0)]
        return ids.astype(self.manifest.id_dtype, copy=False)

    def will_need(self, table: SpanTable) -> bool:
        """Asks the kernel for the ids of these spans if reads have had to wait lately; True when it was asked."""
        maps = self.maps
        if not self._read_ahead.is_wanted(len(table.part)) or (maps.may_close and len(table.part) > maps.max_open):
            return False
        with maps.opened(table.part):
            return will_need(
                maps.range("tokens/ids").spans_of(table.first_token + maps.tokens[table.part], table.length)
            )

    def will_read(self, ranges: np.ndarray) -> None:
        """Asks the kernel for all of these samples ([n, 2]: first row, number of rows), which are wanted soon."""
        self.maps.will_read(*self._within_parts(ranges))

    def _within_parts(self, ranges: np.ndarray) -> np.ndarray:
        """[3, n]: part, first and stop row in it, of ranges that are cut where parts begin."""
        pieces = []
        for first, size in ranges.tolist():
            parts = (np.searchsorted(self._first_row, (first, first + size - 1), side="right") - 1).tolist()
            for part in range(parts[0], parts[1] + 1):
                begin, end = self._first_row[part : part + 2].tolist()
                if begin < end:
                    pieces.append((part, max(first, begin) - begin, min(first + size, end) - begin))
        return np.array(pieces, np.int64).reshape(-1, 3).T

    @property
    def maps(self) -> PartMaps:
        """The columns of all parts."""
        maps = self._mapped
        if maps is None:
            with self._lock:
                maps = self._mapped = PartMaps(self.manifest) if self._mapped is None else self._mapped
        return maps

    def _reset(self) -> None:
        self._mapped = None
        self._lock = ForkLock()
        self._open_parts: dict[int, _OpenPart] = {}
        self._read_ahead = ReadAhead()

    def _parts_of(self, rows: np.ndarray) -> np.ndarray:
        if len(self.manifest.parts) == 1:
            return np.zeros(len(rows), np.int64)
        return self._intervals.of(rows)

    @Lazy
    def _intervals(self) -> Intervals:
        return Intervals(self._first_row)

    def _example(self, row: int) -> Example:
        part_index = bisect.bisect_right(self._first_row, row) - 1
        local, maps = row - int(self._first_row[part_index]), self.maps
        with maps.opened(np.array([part_index]), details=True):
            part = self._part(part_index)
            at = int(maps.samples[part_index]) + local
            first = int(maps.column("samples/first_span")[at]) + int(maps.spans[part_index])
            end = first + int(maps.column("samples/num_spans")[at])
            token = int(maps.column("samples/first_token")[at])
            lengths = maps.column("spans/length")[first:end].tolist()
            kinds, flags = maps.column("spans/kind")[first:end].tolist(), maps.column("spans/flags")[first:end].tolist()
            grids, index = maps.column("spans/grid")[first:end].tolist(), int(maps.column("samples/index")[at])
        spans = []
        for length, kind, flag, (height, width) in zip(lengths, kinds, flags, grids, strict=True):
            ids = part.ids[token : token + length]
            spans.append(_span(kind, ids, height, width, flag))
            token += length
        texts = part.texts.row(local) if part.texts.are_kept else ()
        return Example(index=index, key=part.key(local), spans=tuple(spans), texts=texts)

    def _part(self, part_index: int) -> _OpenPart:
        part = self._open_parts.get(part_index)
        if part is None:
            while len(self._open_parts) >= _MAX_OPEN_PARTS:
                self._open_parts.pop(next(iter(self._open_parts)))
            part = self._open_parts[part_index] = _OpenPart(self.manifest, self.manifest.parts[part_index])
        return part


class _OpenPart:
    """Ids and keys of one part in maps of their own: `dataset[row]` hands out views of them."""

    def __init__(self, manifest: Manifest, part: Part) -> None:
        rows = {"tokens": part.tokens, "samples": part.samples, "keys": part.key_bytes}
        folder = f"{manifest.folder}/{part.path}/"
        self.ids, self._first_key, self._key_bytes = (
            map_column(folder + path, dtype, (rows[path.split("/")[0]],), may_grow=part.may_grow)
            for path, dtype in (
                ("tokens/ids.memmap", manifest.id_dtype),
                ("samples/first_key.memmap", "int64"),
                ("keys/bytes.memmap", "uint8"),
            )
        )
        self.texts = PartTexts(Path(folder), part.samples, partial(map_column, may_grow=True))

    def key(self, local: int) -> str:
        end = self._first_key[local + 1] if local + 1 < len(self._first_key) else len(self._key_bytes)
        return self._key_bytes[self._first_key[local] : end].tobytes().decode()


def _span(kind: int, ids: np.ndarray, height: int, width: int, flags: int) -> Span:
    role, loss = Role(flags & ROLE_MASK), bool(flags & LOSS_FLAG)
    return Span(kind=Kind(kind), ids=ids, height=height, width=width, role=role, loss=loss)
