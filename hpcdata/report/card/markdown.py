"""A card as Markdown, as hubs and editors show it: what came from data shows as it is and does nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hpcdata.base import units
from hpcdata.report.card.head import head_of
from hpcdata.report.card.model import Block, Card, Code, Table

_MARKS = re.compile(r"([\\`*_\[\]<>|~$&@]|(?<=:)//|(?<=www)\.)", re.IGNORECASE)
_LINE_START = re.compile(r"^(\d*)([#+=-]|[.)](?=\s|$))")
_MOST = 500


def render(card: Card) -> str:
    """The whole file, with the head that hubs read."""
    return head_of(card) + "\n" + "\n".join(_lines(card)) + "\n"


def escaped(text: str) -> str:
    """Any text as one line of Markdown that shows it: no link, no tag, no new cell."""
    return _MARKS.sub(r"\\\1", units.one_line(text, _MOST))


def _paragraph(text: str) -> str:
    """The same as a line of its own: no list, heading or rule."""
    return _LINE_START.sub(r"\1\\\2", escaped(text))


def _lines(card: Card) -> Iterator[str]:
    yield from (f"# {escaped(card.about.title)}", "", _paragraph(card.summary), "")
    for section in card.sections:
        yield from (f"## {escaped(section.title)}", "")
        for block in section.blocks:
            yield from _block(block)
            yield ""


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Table):
        yield _cells(block.columns)
        rights = ["---" if number < block.numbers_from else "---:" for number in range(len(block.columns))]
        yield f"| {' | '.join(rights)} |"
        yield from map(_cells, block.rows)
    elif isinstance(block, Code):
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", block.text)), default=0))
        yield from (f"{fence}{block.language}", block.text.rstrip("\n"), fence)
    else:
        yield _paragraph(block)


def _cells(texts: object) -> str:
    return "| " + " | ".join(escaped(str(text)) for text in texts) + " |"  # type: ignore[attr-defined]
