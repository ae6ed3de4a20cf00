"""Numbers and foreign text as people read them: durations, counts, bytes, a safe line; lists and paths as they type."""

from __future__ import annotations

import os
import re

from hpcdata.base.errors import UserError

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)


def duration(seconds: float | None) -> str:
    """`4.2 s`, `42 s`, `3.5 min`, `2 h 05 min`, `3 d 04 h`; `unknown` for None."""
    if seconds is None:
        return "unknown"
    if 0 < seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def count(number: float) -> str:
    """`12,345`."""
    return f"{number:,.0f}"


def counted(number: int, noun: str) -> str:
    """`1 shard`, `1,234 shards`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def rate(number: float) -> str:
    """`1,234`, `12.3`, `0.12`: three digits that matter."""
    if number >= 100:
        return count(number)
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def size(num_bytes: float) -> str:
    """`1.5 GiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if num_bytes < 1024 or unit == "TiB":
            break
        num_bytes /= 1024
    return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def printable(text: object) -> str:
    """Text for a terminal: as it is but for control characters, which are shown as escapes.

    Line ends, tabs, and the bytes of file names that are not UTF-8 are kept. What foreign names and messages hold
    cannot colour, clear or rename a terminal.
    """
    given = str(text)
    if given.isprintable():
        return given
    return "".join(
        item if item.isprintable() or item in "\n\t" or "\udc80" <= item <= "\udcff" else _escaped(item)
        for item in given
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def one_line(text: object, width: int = 200) -> str:
    """Foreign text without control characters and line ends, cut at `width`. Spaces are kept: a path may have many."""
    given = re.sub(r"[^\S ]+", " ", str(text)).strip()
    line = "".join(item if item.isprintable() else "?" for item in given)
    return line if len(line) <= width else line[: width - 1] + "…"


_BRACES = {"{": 1, "}": -1}
_ROUND = {"(": 1, ")": -1}


def split_at_commas(text: str) -> list[str]:
    """At each comma that is in no braces and, where round brackets have their other half, in none of these.

    `ai2d(cauldron,llava_format),chartqa` are two, as names of data sets have such brackets.
    """
    nesting = {**_BRACES, **_ROUND} if _is_balanced(text) else _BRACES
    parts, depth = [""], 0
    for character in text:
        depth += nesting.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _is_balanced(text: str) -> bool:
    """Whether each round bracket has its other half, in this order."""
    depth = 0
    for character in text:
        depth += _ROUND.get(character, 0)
        if depth < 0:
            return False
    return depth == 0


def local_path(text: str, typed: str | None = None) -> str:
    """With `~` and `$VAR` as a shell has them. Raises UserError for a user or a variable that is not there.

    typed: what is said to be wrong, such as `key=text`.
    """
    typed = typed or text
    if text.startswith("~"):
        found = os.path.expanduser(text)
        if found.startswith("~"):
            raise UserError(f"{typed}: there is no user {text[1:].partition('/')[0]!r}; write the whole path")
        text = found
    return _VARIABLE.sub(lambda match: _variable(typed, text, match), text)


def _variable(typed: str, text: str, match: re.Match[str]) -> str:
    """The value of a variable; a name that really holds a dollar sign stays as it is."""
    name = match[1] or match[2]
    if value := os.environ.get(name):
        return value
    if os.path.lexists(text):
        return match[0]
    raise UserError(f"{typed}: the variable {name} is not set; set it, or write the whole path")
