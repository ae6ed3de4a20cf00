"""Hostile names in a card: shown as they are, and nothing else.   pytest tests/report/card/test_escaping.py"""

from __future__ import annotations

import html
import re

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hpcdata.base import units
from hpcdata.report.card import markdown, page
from hpcdata.report.card.model import About, Card, Code, Section, Table
from tests.selection import examples

HOSTILE = st.one_of(
    st.sampled_from(
        [
            "a|b", "`x`", "<img src=x onerror=alert(1)>", "[a](javascript:alert(1))", "![a](http://a.org/x.png)",
            "---", "# title", "- item", "1. item", "1) item", "**bold**", "$x$", "&lt;b&gt;", "&#60;", "http://a.org",
            "a\n\n# b", "a\\", "\\|", "~~a~~", "+", "=", "==", "a\r\nb",
            "\u202eabc", "www.a.org", "me@a.org", "\u2028x", "```", "<!-- -->", "\0",
        ]
    ),
    st.text(max_size=12),
    st.text("|\\`*_<>[]()#-=!\n &;:+1.~", max_size=12),
)  # fmt: skip
RENDERER = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table")


def card(texts: list[str]) -> Card:
    title, summary, section, paragraph, code, *cells = texts
    table = Table(columns=("a", "b"), rows=[cells[:2], cells[2:4]], bars=[(1, 2), ()])
    return Card(
        about=About(title=title, licence=cells[0], languages=[cells[1]]),
        summary=summary,
        num_samples=5,
        tags=[cells[2]],
        sections=[Section(title=section, blocks=[paragraph, table, Code(text=code)])],
    )


def shown(text: str) -> str:
    """As a card shows it: one line."""
    return " ".join(units.one_line(text, 500).split())


def plain(text: str) -> str:
    """The text of a piece of HTML without tags."""
    return " ".join(html.unescape(text).split())


def same(found: list[str], given: list[str]) -> bool:
    return [plain(item) for item in found] == [shown(item) for item in given]


@settings(max_examples=examples(150), deadline=None)
@given(texts=st.lists(HOSTILE, min_size=9, max_size=9))
def test_a_renderer_shows_every_text_and_makes_nothing_of_it(texts: list[str]) -> None:
    text = markdown.render(card(texts))
    _, head, body = text.split("---\n", 2)
    values = yaml.safe_load(head)
    assert isinstance(values["pretty_name"], str)
    assert values["size_categories"] == ["n<1K"]
    out = RENDERER.render(body)
    tags = set(re.findall(r"<(/?\w+)", re.sub(r"<pre>.*?</pre>", "", out, flags=re.DOTALL)))
    allowed = {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td"}
    assert {tag.lstrip("/") for tag in tags} <= allowed
    assert same(re.findall(r"<td>(.*?)</td>|<td style[^>]*>(.*?)</td>", out, re.DOTALL) and _cells(out), texts[5:9])
    assert same(re.findall(r"<h1>(.*?)</h1>", out), [texts[0]]) or not shown(texts[0])


def _cells(out: str) -> list[str]:
    return re.findall(r"<td[^>]*>(.*?)</td>", out, re.DOTALL)


@settings(max_examples=examples(100), deadline=None)
@given(texts=st.lists(HOSTILE, min_size=9, max_size=9))
def test_a_page_shows_every_text_and_makes_nothing_of_it(texts: list[str]) -> None:
    out = page.render(card(texts)).partition("<main>")[2]
    tags = set(re.findall(r"<(/?[\w!]+)", out))
    allowed = {"header", "h1", "h2", "p", "section", "div", "table", "tr", "th", "td", "svg", "rect", "pre", "code"}
    assert {tag.lstrip("/") for tag in tags} <= allowed | {"main", "body", "html"}
    cells = [cell for cell in _cells(out) if not cell.startswith("<svg")]
    assert same(cells, texts[5:9])
    assert html.unescape(re.findall(r"<code>(.*?)</code>", out, re.DOTALL)[0]) == texts[4]
