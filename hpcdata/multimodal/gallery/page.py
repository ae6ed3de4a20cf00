"""The page of `hpcdata visualize`: examples before and after preprocessing, as one file that opens offline.

Everything that comes from data is escaped, the browser may fetch nothing, and the only script is ours: it hides the
examples that a search does not find.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hpcdata.base.version import code_version
from hpcdata.report.pagestyle import HEAD

Kind = Literal["text", "control", "picture", "padding"]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point (no extent) or a box, in percent of the picture."""

    x: float
    y: float
    width: float = 0.0
    height: float = 0.0
    label: str = ""
    group: int = 0
    """Which branch it belongs to: its color."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture as JPEG."""

    jpeg: bytes
    caption: str
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Run:
    """Consecutive tokens of one kind and weight."""

    text: str
    kind: Kind
    weight: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """What all branches share, or a branch."""

    title: str
    runs: tuple[Run, ...]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An example: as the dataset gives it, and as the preprocessor makes it."""

    title: str
    fields: str
    """What the dataset gave, as text."""
    pictures: tuple[Shown, ...] = ()
    crops: tuple[Shown, ...] = ()
    parts: tuple[Part, ...] = ()
    facts: tuple[str, ...] = ()
    reject: str = ""
    """Why the preprocessor does not make it."""


_COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#800000", "#808000", "#000075")
_SCRIPT = """
const box = document.getElementById("search"), found = document.getElementById("found");
const entries = [...document.querySelectorAll("section.example")];
const texts = entries.map(entry => entry.textContent.toLowerCase());
function search() {
  const words = box.value.toLowerCase().split(/\\s+/).filter(word => word);
  let number = 0;
  entries.forEach((entry, at) => {
    entry.hidden = !words.every(word => texts[at].includes(word));
    number += !entry.hidden;
  });
  found.textContent = `${number} of ${entries.length} examples`;
}
box.addEventListener("input", search);
search();
"""
_STYLE = """
.pictures { display: flex; flex-wrap: wrap; gap: 10px; align-items: flex-start; }
figure { margin: 0; }
figcaption { font-size: 12px; color: var(--soft); }
.picture { position: relative; display: inline-block; line-height: 0; }
.picture img { max-width: 100%; height: auto; }
.crops img { width: 112px; height: auto; }
.point, .box { position: absolute; border: 2px solid var(--mark); }
.point { width: 12px; height: 12px; margin: -6px 0 0 -6px; border-radius: 50%; box-shadow: 0 0 0 1px #fff; }
.tokens { white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.7 ui-monospace, "DejaVu Sans Mono", monospace; }
.tokens span { border-radius: 3px; padding: 1px 0; }
.tokens .learned { background: #bfe8cc; color: #123; box-shadow: inset 0 -2px 0 #1f8a4c; }
.tokens .control { background: #d8dde4; color: #345; }
.tokens .picture-token { background: #cfdff7; color: #124; }
.tokens .learned.control { background: #9fd9b3; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12.5px; margin: 6px 0; }
.reject { border-left: 4px solid var(--red); padding: 4px 10px; }
#search { font: inherit; padding: 6px 10px; width: min(420px, 100%); border: 1px solid var(--line); border-radius: 6px;
  background: var(--card); color: var(--ink); }
[hidden] { display: none; }
"""


def render(entries: Sequence[Entry], *, title: str, facts: Sequence[str]) -> str:
    """The whole page. `facts`: what holds for all examples: dataset, preprocessor, means."""
    sha = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    allowed = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{sha}'"
    head = HEAD.replace("default-src 'none'; style-src 'unsafe-inline'", allowed)
    lines = "".join(f"<p>{_text(fact)}</p>" for fact in facts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<title>{_text(title)}</title>\n{head}<style>{_STYLE}</style>\n'
        f"</head>\n<body>\n<main>\n<header><h1>{_text(title)}</h1>{lines}{_LEGEND}"
        '<p><input id="search" type="search" placeholder="Words to look for" aria-label="Words to look for"> '
        '<span id="found" role="status"></span></p></header>\n'
        + "\n".join(_entry(entry) for entry in entries)
        + f"\n<footer>Made by hpcdata {_text(code_version())}.</footer>\n</main>\n<script>{_SCRIPT}</script>\n"
        "</body>\n</html>\n"
    )


_LEGEND = (
    '<p class="tokens"><span class="learned">learned</span> <span>read, not learned</span> '
    '<span class="control">control token</span> <span class="picture-token">stands for a picture</span></p>'
)


def _entry(entry: Entry) -> str:
    reject = f'<p class="reject">Rejected: {_text(entry.reject)}</p>' if entry.reject else ""
    facts = f'<p class="soft">{_text(", ".join(entry.facts))}</p>' if entry.facts else ""
    pictures = f'<div class="pictures">{"".join(map(_picture, entry.pictures))}</div>' if entry.pictures else ""
    crops = ""
    if entry.crops:
        shown = "".join(map(_picture, entry.crops))
        crops = f'<h3>What the model sees</h3><div class="pictures crops">{shown}</div>'
    parts = "".join(f"<h3>{_text(part.title)}</h3>{_tokens(part.runs)}" for part in entry.parts)
    return (
        f'<section class="example"><h2>{_text(entry.title)}</h2>{reject}{facts}{pictures}{crops}{parts}'
        f"<details><summary>As the dataset gives it</summary><pre>{_text(entry.fields)}</pre></details></section>"
    )


def _picture(shown: Shown) -> str:
    data = base64.b64encode(shown.jpeg).decode()
    marks = "".join(map(_mark, shown.marks))
    caption = _text(shown.caption)
    return (
        f'<figure><div class="picture"><img alt="{caption}" src="data:image/jpeg;base64,{data}">{marks}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _mark(mark: Mark) -> str:
    color = _COLORS[mark.group % len(_COLORS)]
    place = f"left:{mark.x:.2f}%;top:{mark.y:.2f}%;--mark:{color}"
    label = f' title="{_text(mark.label)}"' if mark.label else ""
    if not mark.width and not mark.height:
        return f'<div class="point" style="{place}"{label}></div>'
    return f'<div class="box" style="{place};width:{mark.width:.2f}%;height:{mark.height:.2f}%"{label}></div>'


def _tokens(runs: Sequence[Run]) -> str:
    return f'<div class="tokens">{"".join(map(_run, runs))}</div>'


def _run(run: Run) -> str:
    classes = {"text": [], "control": ["control"], "picture": ["picture-token"], "padding": ["control"]}[run.kind]
    if run.weight > 0:
        classes = ["learned", *classes]
    told = f"{run.count} tokens" if run.count != 1 else "1 token"
    if run.weight > 0:
        told += f", weight {run.weight:.3g}"
    return f'<span class="{" ".join(classes)}" title="{told}">{_text(run.text)}</span>'


def _text(value: str) -> str:
    """Escaped, for text and for attributes; control characters are written out, but for tabs and ends of lines."""
    shown = "".join(c if c in "\t\n" or c.isprintable() else f"\\x{ord(c):02x}" for c in value)
    return html.escape(shown, quote=True)
