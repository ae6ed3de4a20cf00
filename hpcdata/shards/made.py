"""What a stage makes of consecutive samples, as far as writing, accounting and checking need to know."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from hpcdata.shards.counts import Counts
from hpcdata.shards.reject_ledger import RejectRow
from hpcdata.shards.schema import Schema, Sizes

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Before:
    """What a shard holds already: rows of each table, bytes of each stream."""

    rows: Sizes
    stream_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Laid:
    """A batch as it goes to disk."""

    columns: Mapping[str, np.ndarray]
    """Path of every column of the schema -> its new rows."""
    content: int
    """What the samples add to the content digest."""
    streams: Mapping[str, bytes | Sequence[bytes | memoryview]] = field(default_factory=dict)
    """Path -> bytes to append, in one piece or in several: large ones need not be joined in memory."""
    files: Sequence[tuple[str, bytes | memoryview]] = ()
    """Names below `files/`, from the plan and never from the attempt, and what the files hold."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Of files by their names, as far as it is known already."""


class Made(Protocol):
    """What became of consecutive samples: some are written, the others are rejects."""

    @property
    def rejects(self) -> Sequence[RejectRow]: ...

    def counts(self) -> Counts: ...

    def written(self) -> Sequence[tuple[int, str]]:
        """(plan index, key) of the samples that are written, in order."""
        ...

    def only(self, indices: Container[int]) -> Made:
        """Those of the written samples, and no rejects."""
        ...

    def lay_out(self, schema: Schema, before: Before) -> Laid: ...
