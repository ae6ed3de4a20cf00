"""An id -> the beginning of a file name: safe on any file system, the same in every run.

It has letters, digits, `.`, `_` and `-`; whatever else an id has becomes `_`, as do dots and dashes at its beginning.
So no id leads out of its folder, into another one, or into an option of a shell command. `~` never occurs: what is put
behind it later (`hpcdata.formats.llava_folder`) makes equal names different.
"""

from __future__ import annotations

import hashlib
import unicodedata

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


def _is_kept(character: str) -> bool:
    if character.isascii():
        return character.isalnum() or character in _KEPT
    return unicodedata.category(character)[0] in _KINDS
