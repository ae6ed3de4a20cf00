"""A card as one HTML file: its own style, and nothing from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Sequence

from hpcdata.report.card.model import Block, Card, Code, Table
from hpcdata.report.charts import text
from hpcdata.report.pagestyle import HEAD

_STYLE = """<style>
td, th { white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
.scroll + .scroll { margin-top: 14px; }
td svg { width: 120px; height: 22px; }
pre { overflow-x: auto; background: var(--page); border: 1px solid var(--line); border-radius: 6px; padding: 10px; }
</style>
"""
_BAR_WIDTH, _BARS_HEIGHT = 5, 22
_MOST = 500


def render(card: Card) -> str:
    title = text(card.about.title, _MOST)
    sections = "\n".join(
        f"<section><h2>{text(section.title)}</h2>\n{''.join(map(_block, section.blocks))}</section>"
        for section in card.sections
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<title>{title}</title>\n{HEAD}{_STYLE}</head>\n<body>\n<main>\n'
        f"<header><h1>{title}</h1><p>{text(card.summary, _MOST)}</p></header>\n{sections}\n</main>\n</body>\n</html>\n"
    )


def _block(block: Block) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Code):
        return f"<pre><code>{html.escape(block.text)}</code></pre>\n"
    return f"<p>{text(block, _MOST)}</p>\n"


def _table(table: Table) -> str:
    def cells(values: Sequence[str], tag: str) -> str:
        kinds = ("" if number < table.numbers_from else ' class="number"' for number in range(len(values)))
        pairs = zip(kinds, values, strict=True)
        return "".join(f"<{tag}{kind}>{text(value, _MOST)}</{tag}>" for kind, value in pairs)

    head = cells(table.columns, "th") + ("<th></th>" if table.bars else "")
    bars = [f"<td>{_histogram(item)}</td>" for item in table.bars] or [""] * len(table.rows)
    rows = "".join(f"<tr>{cells(row, 'td')}{item}</tr>\n" for row, item in zip(table.rows, bars, strict=True))
    return f'<div class="scroll"><table><tr>{head}</tr>\n{rows}</table></div>\n'


def _histogram(counts: Sequence[int]) -> str:
    most, width = max([1, *counts]), _BAR_WIDTH * max(1, len(counts))
    bars = "".join(
        f'<rect class="done" x="{_BAR_WIDTH * place}" y="{_BARS_HEIGHT - height:.1f}" width="{_BAR_WIDTH - 1}" '
        f'height="{height:.1f}"/>'
        for place, count in enumerate(counts)
        if (height := max(1.0, _BARS_HEIGHT * count / most) if count else 0.0)
    )
    return f'<svg viewBox="0 0 {width} {_BARS_HEIGHT}" preserveAspectRatio="none" role="img">{bars}</svg>'
