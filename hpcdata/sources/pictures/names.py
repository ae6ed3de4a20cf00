"""An id -> names of files: safe on any file system, the same in every run.

It has letters, digits, `.`, `_` and `-`; whatever else an id has becomes `_`, as do dots and dashes at its beginning.
So no id leads out of its folder, into another one, or into an option of a shell command. `~` never occurs: what is put
behind it makes equal names different (`hpcdata.formats.llava_folder`), and the pictures of one record.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

MOST_BYTES = 180
"""Of the 255 that file systems allow; what tells equal names apart and the ending come behind it."""
_KEPT = frozenset("._-")
_KINDS = frozenset("LNM")
"""Unicode: letters, numbers, and the marks that combine with them."""


def stem_of(given: object, index: int) -> str:
    """given: the `id` of a record, None where it has none; index: of the sample in the plan, its name then."""
    text = "" if given is None else unicodedata.normalize("NFC", str(given))
    safe = "".join(character if _is_kept(character) else "_" for character in text)
    inner = safe.lstrip(".-")
    safe = "_" * (len(safe) - len(inner)) + inner
    if len(data := safe.encode()) > MOST_BYTES:
        safe = data[:MOST_BYTES].decode(errors="ignore")
    return safe or f"{index:06d}"


def key_of(stem: str) -> int:
    """int64: equal for names that some file system holds for one, as those that differ by case."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", stem).casefold())
    return int.from_bytes(hashlib.blake2b(folded.encode(), digest_size=8).digest(), "little", signed=True)


def names_of(stem: str, endings: Sequence[str]) -> list[str]:
    """Of the pictures of a record: `x.jpg`, or `x~p0.jpg`, `x~p1.png`, ... where there are several."""
    if len(endings) == 1:
        return [f"{stem}.{endings[0]}"]
    return [f"{stem}~p{number}.{ending}" for number, ending in enumerate(endings)]


def _is_kept(character: str) -> bool:
    if character.isascii():
        return character.isalnum() or character in _KEPT
    return unicodedata.category(character)[0] in _KINDS
