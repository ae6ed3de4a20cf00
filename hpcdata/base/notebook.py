"""Pieces of HTML that a notebook shows for our objects. Foreign text is escaped; colours are those of the notebook."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

from hpcdata.base import units

MAX_CHARACTERS = 200
_CELL = "text-align:left;vertical-align:top;padding:1px 12px 1px 0;border:none;background:none;white-space:pre-wrap"
_SOFT = "opacity:0.65"


def text(value: object, width: int = MAX_CHARACTERS) -> str:
    """One line of at most `width` characters, escaped."""
    return html.escape(units.one_line(value, width))


def table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """A heading and lines of `name value`; names and values are escaped."""
    lines = (
        f'<tr style="background:none"><td style="{_CELL};{_SOFT}">{text(name)}</td>'
        f'<td style="{_CELL}">{text(value)}</td></tr>'
        for name, value in rows
    )
    return f'<div><b>{text(title)}</b><table style="border:none;margin:2px 0">{"".join(lines)}</table></div>'


def pictures(items: Sequence[tuple[bytes, str]]) -> str:
    """A row of PNG pictures with captions, which are escaped."""
    figures = (
        '<figure style="display:inline-block;margin:4px 12px 4px 0;width:132px;vertical-align:top">'
        f'<img alt="{text(caption)}" style="max-width:128px" src="data:image/png;base64,{_base64(png)}">'
        f'<figcaption style="font-size:85%;overflow-wrap:anywhere;{_SOFT}">{text(caption, 80)}</figcaption></figure>'
        for png, caption in items
    )
    return f"<div>{''.join(figures)}</div>" if items else ""


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
