"""What the files of a shard are: columns of tables, streams that only grow, and files of their own.

Each stage says its own; a shard that is not of tokens carries its schema in shard.json, so that anybody can read, check
and combine it without the code of the stage that made it.

    tokens/ids.memmap               a column: rows of one dtype, little-endian, without a header
    records/00003-of-00064.tar      a stream: bytes that are appended to
    records/files/000000017.png     a file of its own, named from the plan and listed in files.list
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

Sizes = dict[str, int]
"""Table -> its rows."""
RECORDS, FILES, LISTING = "records", "records/files", "files.list"
_ITEM_BYTES = {"uint8": 1, "uint16": 2, "int32": 4, "int64": 8}


@dataclass(frozen=True, kw_only=True)
class Column:
    table: str
    name: str
    dtype: str
    width: int = 0
    """Second dimension, 0 for a one-dimensional column."""

    @property
    def path(self) -> str:
        return f"{self.table}/{self.name}.memmap"

    @property
    def row_bytes(self) -> int:
        return _ITEM_BYTES[self.dtype] * max(1, self.width)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A file that only grows. A complete one ends with zeros where its format wants them, as tar does."""

    path: str
    zeros_at_end: int = 0
    multiple_of: int = 1

    def ending(self, size: int) -> bytes:
        """What makes a stream of `size` bytes complete: its zeros, up to a whole number of records."""
        least = size + self.zeros_at_end
        return bytes(-(-least // self.multiple_of) * self.multiple_of - size)


@dataclass(frozen=True, kw_only=True)
class Schema:
    columns: tuple[Column, ...]
    """Among them `samples/index`, the plan index of every sample that is written."""
    streams: tuple[Stream, ...] = ()
    has_files: bool = False

    @property
    def tables(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(column.table for column in self.columns))

    @property
    def has_tokens(self) -> bool:
        """Whether there are ids, which loaders read."""
        return "tokens" in self.tables

    @property
    def folders(self) -> tuple[str, ...]:
        """Of all files, each behind the one that it lies in."""
        of_streams = [str(PurePosixPath(stream.path).parent) for stream in self.streams]
        return tuple(dict.fromkeys([*self.tables, *of_streams, *([RECORDS, FILES] if self.has_files else [])]))

    @property
    def is_columns_only(self) -> bool:
        return not self.streams and not self.has_files

    @property
    def grown_paths(self) -> list[str]:
        """Every file that is appended to, but the ledger of rejects."""
        listing = [LISTING] if self.has_files else []
        return [*(column.path for column in self.columns), *(stream.path for stream in self.streams), *listing]

    def no_rows(self) -> Sizes:
        return dict.fromkeys(self.tables, 0)

    def to_mapping(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Schema:
        """The inverse, of values that somebody may have changed. Raises ValueError, KeyError or TypeError."""
        columns = tuple(Column(**column) for column in values["columns"])
        streams = tuple(Stream(**stream) for stream in values["streams"])
        for path in (*(column.path for column in columns), *(stream.path for stream in streams)):
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise ValueError(f"{path} is outside of its shard")
        if unknown := {column.dtype for column in columns} - _ITEM_BYTES.keys():
            raise ValueError(f"dtype {unknown.pop()} of a column is unknown")
        if any(stream.multiple_of < 1 or stream.zeros_at_end < 0 for stream in streams):
            raise ValueError("a stream has a negative size")
        return cls(columns=columns, streams=streams, has_files=values["has_files"])
