"""The parts of a dataset, as columns: there may be ten thousand, of which a process asks for few.

They are most of a manifest. Parsed a slice at a time, they take a quarter of the memory that they take in one piece,
and half the time: at this size, that goes into pages of new memory.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import orjson

from hpcdata.base import files
from hpcdata.base.command import to_type

MAX_MAPS = 54_000
"""Of a process, with room for those that are none of ours."""
_MAPS_OF_PART = 18
"""Where what is small is not joined: files, and what is not open behind them."""
_KEY = b'"parts"'
_OPENS = re.compile(_KEY + rb"\s*:\s*\[")
_BETWEEN = re.compile(rb"\}\s*,\s*\{")
_SLICE_BYTES = 2**16


def when_too_many(num_parts: int, output_dir: Path | str, *, is_joined: bool) -> str | None:
    """In words: that loaders of so many parts open files again and again, and what to type; None where all fit."""
    if num_parts * (1 if is_joined else _MAPS_OF_PART) <= MAX_MAPS:
        return None
    what = "are" if is_joined else "have small files of their own, which are"
    again, line = "so loaders open files again and again", to_type("combine", output_dir, "--compact")
    return f"{num_parts:,} parts {what} more than a process can map, {again}: {line} makes one of them"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One folder of column files, with the rows of its tables. `path` is relative to the dataset folder."""

    path: str
    shard: int
    samples: int
    spans: int
    tokens: int
    key_bytes: int
    content_digest: str
    may_grow: bool = False
    """Of an unfinished run: its files can be longer than these rows. Never stored."""


STORED = ("path", "shard", "samples", "spans", "tokens", "key_bytes", "content_digest")
NUMBERS = STORED[1:-1]


def _numbers() -> array[int]:
    return array("q")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Columns of equal length, and a `Part` for each row that is asked for."""

    path: list[str] = field(default_factory=list)
    shard: array[int] = field(default_factory=_numbers)
    samples: array[int] = field(default_factory=_numbers)
    spans: array[int] = field(default_factory=_numbers)
    tokens: array[int] = field(default_factory=_numbers)
    key_bytes: array[int] = field(default_factory=_numbers)
    content_digest: list[str] = field(default_factory=list)
    may_grow: list[bool] = field(default_factory=list)

    @classmethod
    def of(cls, parts: Iterable[Part]) -> Parts:
        made, rows = cls(), list(parts)
        for name, column in vars(made).items():
            column.extend(map(attrgetter(name), rows))
        return made

    @classmethod
    def of_values(cls, values: Parts | list[dict[str, Any]]) -> Parts:
        """From what `parse` has found. Raises ValueError and the like where that is not what `stored` gives."""
        if isinstance(values, Parts):
            return values
        made = cls()
        made._extend(values)
        return made

    def stored(self) -> list[dict[str, Any]]:
        """What a manifest says of them."""
        columns = [vars(self)[name] for name in STORED]
        return [dict(zip(STORED, row, strict=True)) for row in zip(*columns, strict=True)]

    def __len__(self) -> int:
        return len(self.path)

    def __getitem__(self, at: int) -> Part:
        return Part(**{name: column[at] for name, column in vars(self).items()})

    def __iter__(self) -> Iterator[Part]:
        return (self[at] for at in range(len(self)))

    def _extend(self, values: list[dict[str, Any]]) -> None:
        for name in STORED:
            column = list(map(itemgetter(name), values))
            if set(map(type, column)) - {int if name in NUMBERS else str}:
                raise ValueError("a part has no path, digest or numbers of rows")
            vars(self)[name].extend(column)
        if set(map(len, values)) - {len(STORED)}:
            raise ValueError(f"a part has other entries than {', '.join(STORED)}")
        self.may_grow.extend([False] * len(values))


def parse(data: bytes) -> Any:
    """The JSON of a manifest, where `parts` may be Parts already. Raises ValueError."""
    try:
        return _parse_in_slices(data)
    except (LookupError, TypeError, ValueError, OverflowError):  # spelled in another way, or damaged
        return files.parse_lenient(data)


def _parse_in_slices(data: bytes) -> dict[str, Any]:
    key = data.index(_KEY)
    opens, end = _OPENS.match(data, key), data.find(b"]", key)
    if not opens or end < 0 or data.find(_KEY, key + 1) >= 0:
        raise ValueError
    start, parts = opens.end(), Parts()
    values = orjson.loads(data[:start] + data[end:])
    if values["parts"] != []:
        raise ValueError
    while start < end:
        cut = _BETWEEN.search(data, start + _SLICE_BYTES, end)
        stop, following = (cut.start() + 1, cut.end() - 1) if cut else (end, end)
        parts._extend(orjson.loads(b"[%b]" % data[start:stop]))
        start = following
    values["parts"] = parts
    return values
