"""Fields of one name that numbers tell apart: `image` and `image_2`, `image_0` to `image_6`, `img1`.

They are read as a list of that name is: in the order of their numbers, the one without a number first, empty ones left
out. Three digits are no number of a picture: `image_512` is a size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_NUMBERED = re.compile(r"(.*(?:[^\W\d_]|[0-9](?=_)))_?([0-9]{1,2})", re.DOTALL)
_DIGITS = frozenset("0123456789")


def base_of(name: str) -> str:
    """The name without its number."""
    if name[-1:] not in _DIGITS:
        return name
    found = _NUMBERED.fullmatch(name)
    return name if found is None else found[1]


def numbered(names: Iterable[str]) -> dict[str, list[str]]:
    """Name -> the fields of that name with a number, in order."""
    found: dict[str, list[tuple[int, str]]] = {}
    for name in [name for name in names if name[-1:] in _DIGITS]:
        if (its := _NUMBERED.fullmatch(name)) is not None:
            found.setdefault(its[1], []).append((int(its[2]), name))
    return {base: [name for _, name in sorted(its)] for base, its in found.items()} if found else {}
