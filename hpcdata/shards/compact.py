"""Compaction: many parts -> one contiguous part, streamed column by column in constant memory.

A second thread hashes what is read and written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from hpcdata.base import digest, files
from hpcdata.base.errors import UserError
from hpcdata.shards.columns import token_schema
from hpcdata.shards.counts import Counts
from hpcdata.shards.raw_texts.columns import OFFSETS
from hpcdata.shards.recovered import RECOVERED, read_recovered
from hpcdata.shards.reject_ledger import REJECTS
from hpcdata.shards.schema import Column, Schema, Sizes
from hpcdata.shards.sealing import seal
from hpcdata.shards.shard import ShardHeader, ShardSummary

NAME = "compact"
"""Of the part: never that of a shard, so that nobody takes it for one."""
_CHUNK_BYTES = 2**18
"""Small enough to stay in a core's cache between reading and writing."""
_CHUNKS_TO_HASH = 16
_WRITE_BACK_BYTES = 16 * 2**20
_OFFSETS = {
    "samples/first_token": "tokens",
    "samples/first_span": "spans",
    "samples/first_key": "keys",
    **OFFSETS,
}
"""Columns that point into another table of their part."""


def compact(
    folder: Path,
    parts: Sequence[tuple[str, ShardSummary]],
    fingerprint: str,
    id_dtype: str,
    contents: Schema | None = None,
) -> tuple[str, ShardSummary]:
    """Rewrites the parts in `folder` into one and removes them; returns its name and summary.

    contents: what all of them hold, as in their headers.
    """
    summaries = [summary for _, summary in parts]
    schema = token_schema(id_dtype) if contents is None else contents
    if not schema.has_tokens or not all(summary.header.schema.is_columns_only for summary in summaries):
        raise UserError("--compact is for datasets of tokens: parts of raw records stay as they are")
    target = folder / f".{NAME}.building"
    for table in schema.tables:
        (target / table).mkdir(parents=True)
    bases = _bases(summaries, schema.tables)
    known = {}
    for column in schema.columns:
        known[column.path] = write_hashed(target / column.path, _column_chunks(folder, parts, column, bases))
    recovered = read_recovered(folder / name for name, _ in parts)
    known[REJECTS] = write_hashed(target / REJECTS, _open_rejects(folder, parts, recovered))
    if recovered:
        known[RECOVERED] = write_hashed(target / RECOVERED, _recovered_chunks(folder, parts))
    counts = sum((summary.counts for summary in summaries), Counts())
    header = ShardHeader(
        name=NAME,
        shard=0,
        num_shards=1,
        fingerprint=fingerprint,
        id_dtype=id_dtype,
        source="*",
        first_index=summaries[0].header.first_index if summaries else 0,
        num_inputs=counts.inputs,
        contents=contents,
    )
    content = digest.add(*(digest.from_hex(summary.content_digest) for summary in summaries))
    summary = seal(target, header, bases[-1], counts, digest.to_hex(content), known)
    for part, _ in parts:
        files.remove_folder(folder / part)
    files.publish_folder(target, folder / NAME)
    return NAME, summary


def _bases(summaries: Sequence[ShardSummary], tables: Sequence[str]) -> list[Sizes]:
    """Rows before each part, and after the last."""
    bases = [dict.fromkeys(tables, 0)]
    for summary in summaries:
        bases.append({table: bases[-1][table] + summary.sizes[table] for table in tables})
    return bases


class HashedFile:
    """A new file, hashed by a second thread while it is written. Not durable before `files.sync_file`."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115 - closed by __exit__
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._hasher, self._hashed = hashlib.sha256(), deque[Future[None]]()
        self._written = self._begun = 0

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._pool.shutdown()

    def write(self, chunk: bytes) -> None:
        if len(self._hashed) == _CHUNKS_TO_HASH:
            self._hashed.popleft().result()
        self._hashed.append(self._pool.submit(self._hasher.update, chunk))
        files.write_all(self._file.fileno(), chunk)
        self._written += len(chunk)
        if self._written - self._begun >= _WRITE_BACK_BYTES:  # the disk begins now, the fsync finds little to do
            os.posix_fadvise(self._file.fileno(), self._begun, self._written - self._begun, os.POSIX_FADV_DONTNEED)
            self._begun = self._written

    def sha256(self) -> str:
        """Of what was written."""
        while self._hashed:
            self._hashed.popleft().result()
        return self._hasher.hexdigest()


def write_hashed(path: Path, chunks: Iterable[bytes]) -> str:
    """Writes a new file; returns its sha256."""
    with HashedFile(path) as file:
        for chunk in chunks:
            file.write(chunk)
        return file.sha256()


def _column_chunks(
    folder: Path, parts: Sequence[tuple[str, ShardSummary]], column: Column, bases: Sequence[Sizes]
) -> Iterator[bytes]:
    pointed = _OFFSETS.get(f"{column.table}/{column.name}")
    for (name, _), base in zip(parts, bases, strict=False):
        path = folder / name / column.path
        shift = base[pointed] if pointed else 0
        for chunk in file_chunks(path):
            yield (np.frombuffer(chunk, column.dtype) + shift).tobytes() if shift else chunk


def _open_rejects(
    folder: Path, parts: Sequence[tuple[str, ShardSummary]], recovered: Container[int]
) -> Iterator[bytes]:
    """The reject rows of all parts, less those that a retry took back."""
    for name, _ in parts:
        if not recovered:
            yield from file_chunks(folder / name / REJECTS)
        elif (folder / name / REJECTS).exists():
            with open(folder / name / REJECTS, "rb") as file:
                yield b"".join([line for line in file if json.loads(line)["index"] not in recovered])


def _recovered_chunks(folder: Path, parts: Sequence[tuple[str, ShardSummary]]) -> Iterator[bytes]:
    for name, _ in parts:
        yield from file_chunks(folder / name / RECOVERED)


def file_chunks(path: Path) -> Iterator[bytes]:
    """Its bytes, none where it is not there."""
    if not path.exists():  # a table without rows has no files
        return
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
