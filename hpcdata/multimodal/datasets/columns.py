"""Stored measures: which columns there are, a measure as rows of them, and rows as measures again.

samples/index.memmap        [num_samples]     int64   index in the plan of the run that measured
samples/seek.memmap         [num_samples]     int64   where the record begins in its file; a row, of Parquet
samples/first_span.memmap   [num_samples]     int64   offset into spans, of the same part
samples/num_spans.memmap    [num_samples]     int32
samples/num_shared.memmap   [num_samples]     int32   see `Measure`
samples/is_drawn.memmap     [num_samples]     uint8
samples/first_key.memmap    [num_samples]     int64   offset into keys/bytes
spans/kind.memmap           [num_spans]       uint8   samples.Kind: a picture or a turn, pictures first
spans/size.memmap           [num_spans, 2]    int32   (height, width) upright; ids of a turn, and learned ones of it
spans/branch.memmap         [num_spans]       int32   of a turn, from 0 in its sample
spans/flags.memmap          [num_spans]       uint8   1: a turn that is never left out
keys/bytes.memmap           [num_key_bytes]   uint8
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hpcdata.multimodal.values import Measure, Measures
from hpcdata.samples import Kind
from hpcdata.shards.schema import Column, Schema

KEPT = 1
SCHEMA = Schema(
    columns=(
        Column(table="samples", name="index", dtype="int64"),
        Column(table="samples", name="seek", dtype="int64"),
        Column(table="samples", name="first_span", dtype="int64"),
        Column(table="samples", name="num_spans", dtype="int32"),
        Column(table="samples", name="num_shared", dtype="int32"),
        Column(table="samples", name="is_drawn", dtype="uint8"),
        Column(table="samples", name="first_key", dtype="int64"),
        Column(table="spans", name="kind", dtype="uint8"),
        Column(table="spans", name="size", dtype="int32", width=2),
        Column(table="spans", name="branch", dtype="int32"),
        Column(table="spans", name="flags", dtype="uint8"),
        Column(table="keys", name="bytes", dtype="uint8"),
    )
)
_HEAD = struct.Struct("<qqii?")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One sample as it is stored."""

    index: int
    key: str
    seek: int
    measure: Measure
    is_fixed: bool = False
    """Counted, and not stored: whether its record got markers of its pictures."""

    def content(self) -> int:
        """What it adds to the content digest: BLAKE2b-256 of its key, its place, and its spans."""
        key, spans = self.key.encode(), spans_of(self.measure)
        return _content(key, self.seek, self.measure.num_shared, self.measure.is_drawn, spans)


class Spans(NamedTuple):
    kind: np.ndarray
    size: np.ndarray
    branch: np.ndarray
    flags: np.ndarray

    def take(self, at: np.ndarray | slice) -> Spans:
        return Spans(*(column[at] for column in self))


def spans_of(measure: Measure) -> Spans:
    """Its pictures, then its turns, branch by branch."""
    rows = [(Kind.IMAGE, height, width, 0, 0) for height, width in measure.sizes]
    of_branches = zip(measure.num_tokens, measure.num_learned, measure.num_kept, strict=True)
    for branch, (tokens, learned, kept) in enumerate(of_branches):
        for turn, (number, its) in enumerate(zip(tokens, learned, strict=True)):
            rows.append((Kind.TEXT, number, its, branch, KEPT if turn < kept else 0))
    table = np.array(rows, np.int64).reshape(-1, 5)
    return Spans(
        kind=table[:, 0].astype("u1"),
        size=table[:, 1:3].astype("<i4"),
        branch=table[:, 3].astype("<i4"),
        flags=table[:, 4].astype("u1"),
    )


def laid_out(samples: Sequence[Measured], *, num_spans: int, num_key_bytes: int) -> dict[str, np.ndarray]:
    """Path of each column -> its new rows. num_spans, num_key_bytes: those that the shard has already."""
    spans = [spans_of(sample.measure) for sample in samples]
    counts = np.array([len(item.kind) for item in spans], np.int64)
    keys = [sample.key.encode() for sample in samples]
    key_sizes = np.array([len(key) for key in keys], np.int64)
    empty = spans_of(Measure(sizes=(), num_tokens=(), num_learned=(), num_kept=(), num_shared=0))
    joined = Spans(*(np.concatenate(columns) for columns in zip(empty, *spans, strict=True)))
    return {
        "samples/index.memmap": np.array([sample.index for sample in samples], "<i8"),
        "samples/seek.memmap": np.array([sample.seek for sample in samples], "<i8"),
        "samples/first_span.memmap": (np.cumsum(counts) - counts + num_spans).astype("<i8"),
        "samples/num_spans.memmap": counts.astype("<i4"),
        "samples/num_shared.memmap": np.array([sample.measure.num_shared for sample in samples], "<i4"),
        "samples/is_drawn.memmap": np.array([sample.measure.is_drawn for sample in samples], "u1"),
        "samples/first_key.memmap": (np.cumsum(key_sizes) - key_sizes + num_key_bytes).astype("<i8"),
        "spans/kind.memmap": joined.kind,
        "spans/size.memmap": joined.size,
        "spans/branch.memmap": joined.branch,
        "spans/flags.memmap": joined.flags,
        "keys/bytes.memmap": np.frombuffer(b"".join(keys), "u1"),
    }


def stored_content(columns: Mapping[str, np.ndarray], row: int) -> int:
    """The same as `Measured.content`, by the columns of one shard. Raises ValueError for offsets that are none."""
    firsts = columns["samples/first_key.memmap"]
    first, end = int(firsts[row]), int(firsts[row + 1]) if row + 1 < len(firsts) else len(columns["keys/bytes.memmap"])
    begin, number = int(columns["samples/first_span.memmap"][row]), int(columns["samples/num_spans.memmap"][row])
    if not 0 <= first <= end or begin < 0 or number < 0 or begin + number > len(columns["spans/kind.memmap"]):
        raise ValueError(f"sample {row}: its spans or its key lie outside of the shard")
    spans = _spans(columns).take(slice(begin, begin + number))
    key = columns["keys/bytes.memmap"][first:end].tobytes()
    seek, shared = int(columns["samples/seek.memmap"][row]), int(columns["samples/num_shared.memmap"][row])
    return _content(key, seek, shared, bool(columns["samples/is_drawn.memmap"][row]), spans)


def measures_at(columns: Mapping[str, np.ndarray], rows: np.ndarray, first_span: np.ndarray, writer: str) -> Measures:
    """The measures of rows of columns. first_span: [num_rows], offsets into the spans of these columns."""
    counts = columns["samples/num_spans.memmap"][rows].astype(np.int64)
    ends = np.cumsum(counts)
    within = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - counts, counts)
    spans = _spans(columns).take(np.repeat(first_span, counts) + within)
    sample = np.repeat(np.arange(len(rows)), counts)
    is_picture = spans.kind == Kind.IMAGE
    of_turns, turns = sample[~is_picture], spans.take(~is_picture)
    begins = np.ones(len(of_turns), bool)
    begins[1:] = (of_turns[1:] != of_turns[:-1]) | (turns.branch[1:] != turns.branch[:-1])
    first_turn = np.append(np.flatnonzero(begins), len(of_turns)).astype(np.int64)
    kept = (turns.flags & KEPT).astype(np.int32)
    return Measures(
        first_picture=_offsets(sample[is_picture], len(rows)),
        sizes=spans.size[is_picture].astype(np.int32),
        first_branch=_offsets(of_turns[begins], len(rows)),
        first_turn=first_turn,
        num_kept=np.add.reduceat(kept, first_turn[:-1]).astype(np.int32) if len(kept) else np.zeros(0, np.int32),
        num_tokens=turns.size[:, 0].astype(np.int32),
        num_learned=turns.size[:, 1].astype(np.int32),
        num_shared=columns["samples/num_shared.memmap"][rows].astype(np.int32),
        is_drawn=columns["samples/is_drawn.memmap"][rows].astype(bool),
        written_by=writer,
    )


def _spans(columns: Mapping[str, np.ndarray]) -> Spans:
    return Spans(*(columns[f"spans/{name}.memmap"] for name in Spans._fields))


def _content(key: bytes, seek: int, num_shared: int, is_drawn: bool, spans: Spans) -> int:
    hasher = hashlib.blake2b(_HEAD.pack(len(key), seek, num_shared, len(spans.kind), is_drawn), digest_size=32)
    for piece in (key, *(column.tobytes() for column in spans)):
        hasher.update(piece)
    return int.from_bytes(hasher.digest(), "little")


def _offsets(sample: np.ndarray, number: int) -> np.ndarray:
    """[number + 1] int64: where the rows of each sample begin. sample: [num_rows], to which each belongs, sorted."""
    return np.append(0, np.cumsum(np.bincount(sample, minlength=number))).astype(np.int64)
