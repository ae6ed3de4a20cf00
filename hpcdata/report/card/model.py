"""A card as values: both forms of it are made of the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns from `numbers_from` on hold numbers. bars: a histogram of each row, for the page; empty for none."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers_from: int = 1
    bars: Sequence[Sequence[int]] = ()


@dataclass(frozen=True, kw_only=True)
class Code:
    text: str
    language: str = "python"


Block = str | Table | Code
"""A str is a paragraph."""


@dataclass(frozen=True, kw_only=True)
class Section:
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True)
class SourceSet:
    """A data set that it was made of, as the catalogue or a person says."""

    name: str
    licence: str = ""
    where: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class About:
    """What no run knows."""

    title: str
    licence: str = ""
    """As a name of SPDX or a hub; empty where nobody has said."""
    languages: Sequence[str] = ()
    sets: Sequence[SourceSet] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    about: About
    summary: str
    """One paragraph."""
    num_samples: int
    tags: Sequence[str]
    sections: Sequence[Section] = field(default_factory=tuple)
