"""What a format of exported tokens is.

A shard of an export holds what a part of the target needs; what is global (an index, final names) is arranged when all
are there. One batch of rows is a *piece*: bytes that are appended to the shard's stream, or some files, or, where many
shards fill one file, bytes at a place in it that the plan tells (`Context.whole`). Batches are cut by position, so
pieces are the same whatever happened before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hpcdata.config.schema import ExportConfig
from hpcdata.dataset.manifest import Manifest
from hpcdata.formats.arranging import Building
from hpcdata.samples import Reason
from hpcdata.shards.schema import FILES, Column
from hpcdata.shards.shard import ShardSummary, read_listing
from hpcdata.shards.stored import read_columns

if TYPE_CHECKING:
    from hpcdata.dataset.dataset import TokenDataset
    from hpcdata.formats.tokens.rows import Rows

PIECES = (
    Column(table="pieces", name="num_rows", dtype="int64"),
    Column(table="pieces", name="num_bytes", dtype="int64"),
    Column(table="pieces", name="sha256", dtype="uint8", width=32),
)
"""Of every format: what each piece is, in their order."""


WHOLE = "whole"
"""Folder of a run."""


def whole_of(run: Path, fingerprint: str) -> Path:
    """The file that all shards of a run fill, where its format has one."""
    return run / WHOLE / f"{fingerprint[:16]}.bin"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Bytes that are durable where they belong already."""

    num_rows: int
    size: int
    sha256: bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """What becomes of a batch of rows. Rows that are not rejected are written."""

    rejects: Sequence[tuple[int, Reason, str]] = ()
    """(which row of the batch, reason, why)."""
    stream: Sequence[bytes | memoryview] = ()
    """Appended to the stream of the shard, where the format has one."""
    files: Sequence[tuple[int, bytes]] = ()
    """Files of their own: of how many rows, and their bytes. They are named by the stage, in order."""
    pieces: Sequence[Piece] = ()
    """Of a format that fills one file: what is there already."""
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    """New rows of the format's own columns, such as `sequences/length.memmap`."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a writer may know of its run."""

    dataset: TokenDataset
    export: ExportConfig
    """Settled."""
    num_rows: int
    """That are exported."""
    shard_size: int
    batch_size: int
    """Batches begin at multiples of it in each shard."""
    whole: Path
    """Where a file goes that all shards fill: of the run, and of its plan alone."""


class Writer(Protocol):
    """A format in one process."""

    def write(self, rows: Rows) -> Written:
        """Called from several threads, of several batches at once. Depends on nothing but the rows and the context."""
        ...


class Format(Protocol):
    name: str
    keys: tuple[str, ...]
    """Those of `export.` that count for it, besides format, shuffle_seed and file_bytes."""
    ending: str
    """Of the stream of a shard, or of its files: `.jsonl`."""
    has_stream: bool
    has_files: bool
    piece_bytes: int | None
    """Of what is made at once, where that is another matter than `export.file_bytes`, which is never exceeded."""
    columns: tuple[Column, ...]
    """Its own, besides `samples/index` and `PIECES`."""

    def settle(self, export: ExportConfig, manifest: Manifest) -> ExportConfig:
        """With what `auto` and null mean for this dataset. Raises UserError for what it cannot hold."""
        ...

    def bytes_a_row(self, export: ExportConfig, manifest: Manifest) -> float:
        """About how many a row of the dataset takes, to cut batches by."""
        ...

    def open(self, context: Context) -> Writer: ...

    def arrange(
        self, export: ExportConfig, manifest: Manifest, parts: Sequence[ExportedPart], building: Building
    ) -> Mapping[str, Any]:
        """Gives the target its files; returns its facts. manifest: of the dataset that was exported."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportedFile:
    path: Path
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportedPart:
    """A committed shard of an export, read back."""

    folder: Path
    summary: ShardSummary
    run: Path
    """The run that made it."""

    @property
    def whole(self) -> Path:
        """The file that all shards have filled."""
        return whole_of(self.run, self.summary.header.fingerprint)

    @property
    def num_rows(self) -> int:
        return self.summary.sizes["samples"]

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        return read_columns(self.folder, self.summary.header.schema, self.summary.sizes)

    @property
    def stream(self) -> ExportedFile | None:
        """Its stream; None where it has no bytes."""
        (stream,) = self.summary.header.schema.streams
        path = self.folder / stream.path
        sha256 = self.summary.files.get(stream.path, "")
        size = path.stat().st_size if sha256 else 0
        return ExportedFile(path=path, size=size, sha256=sha256) if size else None

    def files(self) -> Iterator[ExportedFile]:
        """Its own files, in the order of their pieces."""
        for item in read_listing(self.folder):
            yield ExportedFile(path=self.folder / FILES / item.name, size=item.size, sha256=item.sha256)
