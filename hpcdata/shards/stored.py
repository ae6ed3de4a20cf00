"""Samples read back from a committed shard: examples, their digest and where two differ; rows of a stream."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcdata.base import digest
from hpcdata.base.reads import read_at
from hpcdata.samples import LOSS_FLAG, ROLE_MASK, Example, Kind, RawText, Role, Span
from hpcdata.shards.raw_texts.columns import keeps_texts, stored_texts
from hpcdata.shards.schema import Schema, Sizes
from hpcdata.shards.shard import ListedFile, ShardSummary, read_listing, read_summary


def read_columns(folder: Path, schema: Schema, sizes: Sizes) -> dict[str, np.ndarray]:
    """Column path -> its rows, memory-mapped read-only. Raises ValueError when a file has another size."""
    arrays = {}
    for column in schema.columns:
        rows = sizes[column.table]
        shape = (rows, column.width) if column.width else (rows,)
        path = folder / column.path
        expected = int(np.prod(shape)) * np.dtype(column.dtype).itemsize
        found = path.stat().st_size if path.exists() else 0
        if found != expected:
            raise ValueError(f"{column.path}: {found} bytes, expected {expected} for {rows} rows")
        arrays[column.path] = np.memmap(path, column.dtype, "r", shape=shape) if rows else np.zeros(shape, column.dtype)
    return arrays


def plain_columns(folder: Path, summary: ShardSummary) -> dict[str, np.ndarray]:
    """`read_columns` of a shard, for who takes them value by value: a memmap is three times as slow at it."""
    columns = read_columns(folder, summary.header.schema, summary.sizes)
    return {path: rows.view(np.ndarray) for path, rows in columns.items()}


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
        behind=stored_texts(arrays, start, end).hashed() if "raw/bytes.memmap" in arrays else None,
    )


def read_example(folder: Path, row: int) -> Example:
    """The example in row `row` of a committed shard or part."""
    summary = read_summary(folder)
    arrays = read_columns(folder, summary.header.schema, summary.sizes)
    at = int(arrays["samples/first_token.memmap"][row])
    first = int(arrays["samples/first_span.memmap"][row])
    spans = []
    for number in range(first, first + int(arrays["samples/num_spans.memmap"][row])):
        end = at + int(arrays["spans/length.memmap"][number])
        height, width = arrays["spans/grid.memmap"][number].tolist()
        flags = int(arrays["spans/flags.memmap"][number])
        ids, kind = arrays["tokens/ids.memmap"][at:end], Kind(int(arrays["spans/kind.memmap"][number]))
        role, loss = Role(flags & ROLE_MASK), bool(flags & LOSS_FLAG)
        spans.append(Span(kind=kind, ids=ids, height=height, width=width, role=role, loss=loss))
        at = end
    key = key_of(arrays, row)
    index = int(arrays["samples/index.memmap"][row])
    texts = tuple(stored_texts(arrays, row, row + 1).split()) if keeps_texts(summary.header.schema) else ()
    return Example(index=index, key=key, spans=tuple(spans), texts=texts)


def compare(stored: Example, encoded: Example) -> str:
    """Where two examples differ, in words; empty when they are the same."""
    if stored.key != encoded.key:
        return f"its key is {encoded.key} now"
    kinds = [[span.kind.name.lower() for span in example.spans] for example in (stored, encoded)]
    if kinds[0] != kinds[1]:
        return f"stored spans are {', '.join(kinds[0])}, encoded {', '.join(kinds[1])}"
    for number, (old, new) in enumerate(zip(stored.spans, encoded.spans, strict=True)):
        what = f"span {number} ({old.kind.name.lower()})"
        if (len(old.ids), old.height, old.width, old.flags) != (len(new.ids), new.height, new.width, new.flags):
            return f"{what}: stored {_shape(old)}, encoded {_shape(new)}"
        differing = np.flatnonzero(np.asarray(old.ids, np.int64) != np.asarray(new.ids, np.int64))
        if len(differing):
            at = int(differing[0])
            return (
                f"{what}: {len(differing)} of {len(old.ids)} ids differ, first at {at}: "
                f"stored {old.ids[at]}, encoded {new.ids[at]}"
            )
    return _compare_texts(stored.texts, encoded.texts)


class StoredStream:
    """A committed shard of rows whose bytes stand in one stream, some with files of their own, read back row by row."""

    def __init__(self, folder: Path, summary: ShardSummary | None = None) -> None:
        """Raises ValueError when the shard is damaged."""
        summary = summary or read_summary(folder)
        schema = summary.header.schema
        self.columns = plain_columns(folder, summary)
        self.index = self.columns["samples/index.memmap"]
        """[num_samples] the position of each in its input."""
        self.folder, (self._stream,) = folder, (stream.path for stream in schema.streams)
        self._files: dict[int, list[ListedFile]] = defaultdict(list)
        for item in read_listing(folder) if schema.has_files else ():
            self._files[int(item.name.partition(".")[0])].append(item)

    def key(self, row: int) -> str:
        return key_of(self.columns, row)

    def data(self, row: int) -> bytes:
        first, size = (int(self.columns[f"samples/{name}.memmap"][row]) for name in ("first_byte", "num_bytes"))
        with open(f"{self.folder}/{self._stream}", "rb", buffering=0) as stream:
            return read_at(stream.fileno(), size, first)

    def files(self, row: int) -> Sequence[ListedFile]:
        return self._files.get(int(self.index[row]), ())


def _compare_texts(stored: Sequence[RawText], encoded: Sequence[RawText]) -> str:
    if len(stored) != len(encoded):
        return f"{len(stored)} raw texts are stored, {len(encoded)} encoded"
    for number, (old, new) in enumerate(zip(stored, encoded, strict=True)):
        if (old.place, old.flags) != (new.place, new.flags):
            return f"raw text {number}: stored {_standing(old)}, encoded {_standing(new)}"
        if old.data != new.data:
            pairs = zip(old.data, new.data, strict=False)
            at = next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(old.data), len(new.data)))
            return f"raw text {number}: {len(old.data)} bytes stored, {len(new.data)} encoded, they differ from {at} on"
    return ""


def _standing(text: RawText) -> str:
    return f"before span {text.place}, flags {text.flags}"


def _shape(span: Span) -> str:
    return f"{len(span.ids)} ids, grid {span.height} x {span.width}, flags {span.flags}"


def _bounds(firsts: np.ndarray, start: int, end: int, total: int) -> np.ndarray:
    """Where rows `start` to `end - 1` begin, and where the last of them ends."""
    bounds = firsts[start : end + 1]
    return bounds if len(bounds) > end - start else np.append(bounds, total)


def stored_key(folder: Path, row: int) -> str:
    """The key of the sample in row `row`, or where it stands, in a stage whose shards have no keys."""
    summary = read_summary(folder)
    if "keys" not in summary.header.schema.tables:
        return f"row {row}"
    return key_of(read_columns(folder, summary.header.schema, summary.sizes), row)


def key_of(arrays: dict[str, np.ndarray], row: int) -> str:
    return text_of(arrays["samples/first_key.memmap"], arrays["keys/bytes.memmap"], row)


def text_of(starts: np.ndarray, texts: np.ndarray, row: int) -> str:
    """One of the texts that stand end to end in bytes; starts: where each begins."""
    end = int(starts[row + 1]) if row + 1 < len(starts) else len(texts)
    return texts[int(starts[row]) : end].tobytes().decode()
