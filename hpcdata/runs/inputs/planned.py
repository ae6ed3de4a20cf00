"""Inputs as they were when they were planned, and what a shard takes of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hpcdata.sources.base import LATER, InputFile, Scan
from hpcdata.sources.mixes.parts import left_out
from hpcdata.sources.others import OtherFile


@dataclass(frozen=True, kw_only=True)
class PlannedInput:
    """One input file: where it is, what it looked like when planned, and what the scan found."""

    file: InputFile
    """Its path is relative to the output directory for listings that planning wrote there."""
    origin: str
    """Absolute path of what the user named: the file itself, or what a listing was made from."""
    size: int
    mtime_ns: int
    scan: Scan
    sha256: str = ""
    """Of a listing that planning wrote; empty for what the user named, and in older plans."""
    others: tuple[OtherFile, ...] = ()
    """What it was made from besides; nothing in older plans."""

    @property
    def vouches(self) -> bool:
        """Whether it is a listing that says how each of its files was, which is looked at when that is read."""
        return self.file.format == "documents"

    def is_like(self, stat: os.stat_result) -> bool:
        """Whether what the user named still looks as it did when it was planned."""
        is_listing = not Path(self.file.path).is_absolute()
        return stat.st_mtime_ns == self.mtime_ns and (is_listing or stat.st_size == self.size)

    def changed_file(self, root: Path) -> Path | None:
        """The first of its files that no longer looks as it did. root: of the run. Raises OSError, with its name."""
        origin = root / self.origin
        if not self.is_like(origin.stat()):
            return origin
        return next((Path(item.path) for item in self.others if not item.is_as_it_was()), None)

    def to_mapping(self) -> dict[str, Any]:
        values = {**dataclasses.asdict(self), "file": self.file.to_mapping()}
        values["scan"] = {name: value for name, value in values["scan"].items() if value or name not in LATER}
        return {name: value for name, value in values.items() if value or name not in ("sha256", "others")}

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> PlannedInput:
        """Raises TypeError, KeyError or ValueError for what `to_mapping` has not made."""
        file = InputFile(**{**values["file"], "roots": tuple(values["file"].get("roots", ()))})
        others = tuple(OtherFile(**item) for item in values.get("others", ()))
        return cls(**{**values, "file": file, "scan": Scan.from_mapping(values["scan"]), "others": others})

    def identity(self) -> list[Any]:
        """What the fingerprint covers: names and contents as far as known, no places and times."""
        taken = [self.file.take, self.file.take_seed] if self.file.take else []
        others = [[item.size for item in self.others]] if self.others else []
        return [self.file.label, self.file.format, self.size, self.scan.identity(), *taken, *others]

    @property
    def num_left_out(self) -> int:
        """Records that the mix takes no part of."""
        return left_out(self.file, self.scan)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What a shard takes of one input: its samples `first` to `first + count`."""

    source: PlannedInput
    source_index: int
    """Plan index of the input's first sample."""
    first: int
    count: int


@dataclass(frozen=True, kw_only=True)
class ShardSpec:
    """One shard: samples that follow each other in the plan, of one input or of several."""

    name: str
    shard: int
    segments: tuple[Segment, ...]

    @property
    def source_index(self) -> int:
        """Plan index that the positions of its records count from: of the first sample of its first input."""
        return self.segments[0].source_index

    @property
    def first(self) -> int:
        """Position of its first sample."""
        return self.segments[0].first

    @cached_property
    def count(self) -> int:
        return sum(segment.count for segment in self.segments)

    @property
    def source(self) -> str:
        """Label of its input, or of the first with the number of the others."""
        label, others = self.segments[0].source.file.label, len(self.segments) - 1
        return f"{label} and {others} more" if others else label

    def between(self, start: int, end: int) -> Iterator[Segment]:
        """What its samples `start` to `end` are taken from."""
        begin = 0
        for segment in self.segments:
            low, high = max(start - begin, 0), min(end - begin, segment.count)
            if low < high:
                yield dataclasses.replace(segment, first=segment.first + low, count=high - low)
            begin += segment.count
