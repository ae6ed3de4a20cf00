"""Examples as the arrays that are stored: one batch of records in, rows of every column out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcdata.base import digest
from hpcdata.samples import Example, Kind, Span
from hpcdata.shards.columns import columns
from hpcdata.shards.counts import Counts, Sizes
from hpcdata.shards.rejects import DUPLICATE, RejectRow


@dataclass(frozen=True, kw_only=True)
class EncodedBatch:
    """What encoding made of consecutive samples: examples and reject rows, each in the order of the plan."""

    examples: Sequence[Example]
    rejects: Sequence[RejectRow] = ()
    truncated_texts: int = 0
    compared_codes: int = 0
    equal_codes: int = 0

    def rows(self) -> Rows:
        spans = [span for example in self.examples for span in example.spans]
        return Rows(
            index=np.array([example.index for example in self.examples], "<i8"),
            keys=[example.key.encode() for example in self.examples],
            num_spans=np.array([len(example.spans) for example in self.examples], "<i4"),
            lengths=np.array([len(span.ids) for span in spans], "<i4"),
            grid=np.array([(span.height, span.width) for span in spans], "<i4").reshape(-1, 2),
            kind=np.array([span.kind for span in spans], "u1"),
            flags=np.array([span.flags for span in spans], "u1"),
            ids=np.concatenate([span.ids for span in spans]) if spans else np.zeros(0, "<i4"),
        )

    def counts(self) -> Counts:
        spans = [span for example in self.examples for span in example.spans]
        images = [span for span in spans if span.kind == Kind.IMAGE]
        image_tokens = sum(len(span.ids) for span in images)
        return _counts(
            len(self.examples),
            self.rejects,
            truncated_texts=self.truncated_texts,
            text_tokens=sum(len(span.ids) for span in spans) - image_tokens,
            image_tokens=image_tokens,
            images=len(images),
            compared_codes=self.compared_codes,
            equal_codes=self.equal_codes,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedDocuments:
    """The same for documents in bulk: each example is one span of text, the ids of all lie end to end.

    index: [num_examples] int64, index in the plan; lengths: [num_examples]; ids: [sum of lengths], any integer dtype.
    """

    index: np.ndarray
    keys: list[bytes]
    lengths: np.ndarray
    ids: np.ndarray
    rejects: Sequence[RejectRow] = ()
    truncated_texts: int = 0

    def rows(self) -> Rows:
        number, span = len(self.index), Span(kind=Kind.TEXT, ids=self.ids)
        return Rows(
            index=self.index,
            keys=self.keys,
            num_spans=np.ones(number, "<i4"),
            lengths=self.lengths,
            grid=np.full((number, 2), (span.height, span.width), "<i4"),
            kind=np.full(number, span.kind, "u1"),
            flags=np.full(number, span.flags, "u1"),
            ids=self.ids,
        )

    def counts(self) -> Counts:
        return _counts(len(self.index), self.rejects, truncated_texts=self.truncated_texts, text_tokens=len(self.ids))


Encoded = EncodedBatch | EncodedDocuments


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Examples end to end: a row of `index`, `keys` and `num_spans` each, and of the others for each of their spans."""

    index: np.ndarray
    keys: list[bytes]
    num_spans: np.ndarray
    lengths: np.ndarray
    grid: np.ndarray
    kind: np.ndarray
    flags: np.ndarray
    ids: np.ndarray


def _counts(num_written: int, rejects: Sequence[RejectRow], **others: int) -> Counts:
    reasons = Counter(row.reason for row in rejects)
    duplicate = reasons.pop(DUPLICATE, 0)
    return Counts(
        inputs=num_written + len(rejects), written=num_written, duplicate=duplicate, rejected=reasons, **others
    )


def to_columns(rows: Rows, id_dtype: str, start: Sizes) -> tuple[dict[str, np.ndarray], Sizes, int]:
    """(column path -> new rows, sizes after them, content digest of the examples); `start` is what is stored before.

    Raises OverflowError when an id does not fit the dtype: ids never wrap.
    """
    _check_range(rows.ids, id_dtype)
    token_ends = np.concatenate([[0], np.cumsum(rows.lengths, dtype="<i8")])
    first_span = np.concatenate([[0], np.cumsum(rows.num_spans, dtype="<i8")])
    first_key = np.concatenate([[0], np.cumsum([len(key) for key in rows.keys], dtype="<i8")])
    values = {
        "tokens/ids.memmap": rows.ids,
        "spans/length.memmap": rows.lengths,
        "spans/kind.memmap": rows.kind,
        "spans/grid.memmap": rows.grid,
        "spans/flags.memmap": rows.flags,
        "samples/index.memmap": rows.index,
        "samples/first_token.memmap": token_ends[first_span[:-1]] + start.tokens,
        "samples/first_span.memmap": first_span[:-1] + start.spans,
        "samples/num_spans.memmap": rows.num_spans,
        "samples/first_key.memmap": first_key[:-1] + start.keys,
        "keys/bytes.memmap": np.frombuffer(b"".join(rows.keys), "u1"),
    }
    content = digest.sum_examples(
        num_spans=rows.num_spans,
        spans=np.column_stack([rows.kind, rows.flags, rows.grid, rows.lengths]),
        num_ids=np.diff(token_ends[first_span]),
        ids=rows.ids,
    )
    sizes = Sizes(
        tokens=start.tokens + len(rows.ids),
        spans=start.spans + len(rows.lengths),
        samples=start.samples + len(rows.index),
        keys=start.keys + int(first_key[-1]),
    )
    kept = {column.path: values[column.path].astype(column.dtype, copy=False) for column in columns(id_dtype)}
    return kept, sizes, content


def read_columns(folder: Path, id_dtype: str, sizes: Sizes) -> dict[str, np.ndarray]:
    """Column path -> its rows, memory-mapped read-only. Raises ValueError when a file has another size."""
    arrays = {}
    for column in columns(id_dtype):
        rows = vars(sizes)[column.table]
        shape = (rows, column.width) if column.width else (rows,)
        path = folder / column.path
        expected = int(np.prod(shape)) * np.dtype(column.dtype).itemsize
        found = path.stat().st_size if path.exists() else 0
        if found != expected:
            raise ValueError(f"{column.path}: {found} bytes, expected {expected} for {rows} rows")
        arrays[column.path] = np.memmap(path, column.dtype, "r", shape=shape) if rows else np.zeros(shape, column.dtype)
    return arrays


def sum_columns(arrays: dict[str, np.ndarray], start: int, end: int) -> int:
    """Content digest of samples `start` to `end` of stored columns."""
    first_span = _bounds(arrays["samples/first_span.memmap"], start, end, len(arrays["spans/length.memmap"]))
    first_token = _bounds(arrays["samples/first_token.memmap"], start, end, len(arrays["tokens/ids.memmap"]))
    spans = slice(first_span[0], first_span[-1])
    names = ("kind", "flags", "grid", "length")
    return digest.sum_examples(
        num_spans=arrays["samples/num_spans.memmap"][start:end],
        spans=np.column_stack([arrays[f"spans/{name}.memmap"][spans] for name in names]),
        num_ids=np.diff(first_token),
        ids=arrays["tokens/ids.memmap"][first_token[0] : first_token[-1]],
    )


def _bounds(firsts: np.ndarray, start: int, end: int, total: int) -> np.ndarray:
    """Where rows `start` to `end - 1` begin, and where the last of them ends."""
    bounds = firsts[start : end + 1]
    return bounds if len(bounds) > end - start else np.append(bounds, total)


def _check_range(ids: np.ndarray, id_dtype: str) -> None:
    limit = np.iinfo(id_dtype).max
    if len(ids) and (ids.min() < 0 or ids.max() > limit):
        raise OverflowError(f"ids from {ids.min()} to {ids.max()} do not fit {id_dtype} (0 to {limit})")
