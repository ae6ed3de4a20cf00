"""The fast text engine: gigatoken, where it provably gives the ids of the reference engine.

The reference engines (`tokenizers`, `sentencepiece`) define what the ids of a text are. gigatoken is 10 to 80 times
faster and may only ever be faster, never different:

1. A tokenizer that it cannot load, or with a normaliser that is not known here, is left to the reference engine.
2. When it is built, both engines encode every assigned character in several surroundings and a few hundred awkward
   strings. Characters that come out differently (the engines have tables of different Unicode versions) go to the
   reference engine from then on; a string that does leaves everything to it.
3. Texts with such a character, an unassigned one, or the letters of an added token go to the reference. Where the
   tokenizer begins with NFC, texts that are not in it get there here, for the fast engine: if all their characters are
   in Unicode 3.2, whose normal forms are the same in every later version, and if that makes no letters of an added
   token. Others go to the reference.
4. Of every batch a sample is encoded by both, at least one text and about 1/1024 of the bytes. A difference stops the
   shard with a UserError: it names the text, and what to do.

The engine is no part of a plan's fingerprint. Its version is in the ledger and in the manifest.
"""

from __future__ import annotations

import itertools
import logging
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.encoders.text import panics
from hpcdata.encoders.text.characters import is_recent, may_not_be_nfc, unassigned
from hpcdata.encoders.text.probes import SURROUNDINGS, awkward_strings, probed, texts_in

_REPAYING_CHARACTERS = 1 << 20
_AUDITED_SHARE = 1024
_LONGEST_AUDITED = 1 << 14
_NORMALIZERS = {None, "NFC", "Prepend", "Replace"}
"""What may happen to a text before it is split, in a tokenizer.json, without another form of NFC text."""

_logger = logging.getLogger(__name__)


class Reference(Protocol):
    """The engine that decides."""

    name: str
    data: bytes
    """The tokenizer file: a tokenizer.json or a SentencePiece model."""

    def literals(self) -> list[str]:
        """Letters that it does not take for mere letters: of added tokens and control tokens."""

    def normalizer(self) -> dict[str, Any] | None:
        """As in a tokenizer.json."""

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]: ...

    def decode(self, ids: Iterable[int]) -> str: ...


class SpedUp:
    """A `TextTokenizer`: the reference engine until enough text has passed to repay the start of the fast one."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._tokenizer: Reference | FastText = reference
        self._left = _REPAYING_CHARACTERS

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        if self._left > 0:
            self._left -= sum(map(len, texts))
            if self._left <= 0:
                self._tokenizer = speed_up(self._reference) or self._reference
        return self._tokenizer.encode(texts)

    def decode(self, ids: Iterable[int]) -> str:
        return self._reference.decode(ids)


class FastText:
    """A `TextTokenizer` that gives the reference's ids. Make one with `speed_up`."""

    def __init__(self, reference: Reference, engine: Any) -> None:
        self._reference, self._engine = reference, engine
        written = set(reference.literals()) - {""}
        literals = sorted(written | {unicodedata.normalize("NFC", literal) for literal in written})
        self._firsts = "".join(sorted({literal[0] for literal in literals}))
        self._literal = re.compile("|".join(map(re.escape, literals)))
        self._has_nfc = "NFC" in _kinds(reference.normalizer())
        self._is_unsafe = unassigned().copy()

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """As `TextTokenizer.encode`. Raises UserError when the two engines differ."""
        slow, composed = self._composed(texts, self._routed(texts))
        if len(slow) == len(texts):
            return self._reference.encode(texts)
        if not slow:
            ids, offsets = self._encode_fast(composed)
        else:
            ids, offsets = self._encode_mixed(composed, slow)
        self._audit(texts, set(slow), ids, offsets)
        return ids, offsets

    def decode(self, ids: Iterable[int]) -> str:
        return self._reference.decode(ids)

    def learn(self) -> bool:
        """Finds the characters that both engines treat differently; False if they differ in more than that."""
        for surrounding in SURROUNDINGS:
            for texts in _batched(texts_in(surrounding, self._safe_characters(), only_nfc=self._has_nfc), 512):
                self._mark_differing(texts, surrounding)
        strings = awkward_strings()
        slow, composed = self._composed(strings, self._routed(strings))
        plain = [row for row in range(len(strings)) if row not in set(slow)]
        return not self._differing([strings[row] for row in plain], [composed[row] for row in plain])

    def _safe_characters(self) -> list[str]:
        return [chr(code) for code in probed() if not self._is_unsafe[code]]

    def _mark_differing(self, texts: Sequence[str], surrounding: str) -> None:
        for row in self._differing(texts):
            characters = sorted(set(texts[row]))
            alone = [surrounding.format(character) for character in characters]
            self._is_unsafe[[ord(characters[index]) for index in self._differing(alone)]] = True

    def _differing(self, texts: Sequence[str], composed: Sequence[str] | None = None) -> list[int]:
        """composed: what the fast engine gets instead."""
        if not texts:
            return []
        mine, theirs = self._encode_fast(composed or texts), self._reference.encode(texts)
        if all(np.array_equal(ours, other) for ours, other in zip(mine, theirs, strict=True)):
            return []
        pairs = zip(_rows(*mine), _rows(*theirs), strict=True)
        return [row for row, (ours, other) in enumerate(pairs) if not np.array_equal(ours, other)]

    def _routed(self, texts: Sequence[str]) -> list[int]:
        """The rows of texts that belong to the reference engine, whether they are in NFC or not."""
        slow = set[int]()
        for first in self._firsts:
            slow.update(row for row, text in enumerate(texts) if first in text and self._literal.search(text))
        return sorted(slow.union(_rows_with(self._is_unsafe, texts)))

    def _composed(self, texts: Sequence[str], slow: Sequence[int]) -> tuple[list[int], Sequence[str]]:
        """(rows that belong to the reference engine, what the fast engine gets of the others)."""
        if not self._has_nfc:
            return list(slow), texts
        others, composed = set(slow), list(texts)
        rows = [row for row in _rows_with(may_not_be_nfc(), texts) if row not in others]
        for row in rows:
            if unicodedata.is_normalized("NFC", texts[row]):
                continue
            text = unicodedata.normalize("NFC", texts[row])
            if _rows_with(is_recent(), texts[row : row + 1]) or self._literal.search(text):
                others.add(row)
            else:
                composed[row] = text
        return sorted(others), composed

    def _encode_fast(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        layout = self._engine.encode_batch(list(texts)).layout
        offsets = np.asarray(layout.offsets.data, np.int64)
        ids = np.asarray(layout.content.data[offsets[0] : offsets[-1]])
        return ids.view(np.int32) if ids.dtype == np.uint32 else ids.astype(np.int32), offsets - offsets[0]

    def _encode_mixed(self, texts: Sequence[str], slow: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of the slow rows stand between runs of fast ones."""
        is_slow = np.zeros(len(texts), bool)
        is_slow[slow] = True
        ids, ends = self._encode_fast([texts[row] for row in np.flatnonzero(~is_slow).tolist()])
        slow_ids, slow_ends = self._reference.encode([texts[row] for row in slow])
        pieces, start = [], 0
        for number, row in enumerate(slow):
            end = ends[row - number]  # as many rows before it are fast
            pieces += [ids[start:end], slow_ids[slow_ends[number] : slow_ends[number + 1]]]
            start = end
        lengths = np.zeros(len(texts), np.int64)
        lengths[is_slow], lengths[~is_slow] = np.diff(slow_ends), np.diff(ends)
        return np.concatenate([*pieces, ids[start:]]), np.concatenate([[0], np.cumsum(lengths)])

    def _audit(self, texts: Sequence[str], slow: set[int], ids: np.ndarray, offsets: np.ndarray) -> None:
        audited = self._drawn(texts, slow, zlib.crc32(ids[:4096].tobytes()))
        for row, expected in zip(audited, _rows(*self._reference.encode([texts[r] for r in audited])), strict=True):
            if not np.array_equal(expected, ids[offsets[row] : offsets[row + 1]]):
                raise UserError(
                    f"the fast text engine (gigatoken) makes other ids than the reference engine of {texts[row][:80]!r}"
                    "...: set text.engine=reference and a new data.token_output_dir, for what was written before may "
                    "hold such ids, too"
                )

    def _drawn(self, texts: Sequence[str], slow: set[int], seed: int) -> list[int]:
        """At least one of the fast texts and about 1/1024 of their bytes; a long text only if all are long."""
        rows = [(seed + step) % len(texts) for step in range(len(texts))]
        rows = [row for row in rows if row not in slow]
        short = [row for row in rows if len(texts[row]) <= _LONGEST_AUDITED]
        budget = sum(map(len, texts)) // _AUDITED_SHARE
        drawn = short[:1] or rows[:1]
        for row in short[1:]:
            budget -= len(texts[drawn[-1]])
            if budget <= 0:
                break
            drawn.append(row)
        return drawn


def speed_up(reference: Reference) -> FastText | None:
    """The fast engine for a reference engine, or None where that must do; says why in the log."""
    try:
        return _checked(reference)
    except _NotFast as why:
        _logger.info("texts are tokenized by %s alone: %s", reference.name, why)
        return None


class _NotFast(Exception):
    """Why the reference engine must do it alone."""


def _checked(reference: Reference) -> FastText:
    try:
        import gigatoken
    except ImportError:
        raise _NotFast("pip install 'hpcdata[fast]' for a faster engine") from None
    if not _NORMALIZERS.issuperset(_kinds(reference.normalizer())):
        raise _NotFast("gigatoken was not checked with its normalizer")
    is_json = reference.data.lstrip()[:1] == b"{"
    try:
        with panics.caught():
            make = gigatoken.Tokenizer.from_json if is_json else gigatoken.Tokenizer.from_sentencepiece
            engine = make(reference.data)
    except Exception as error:  # whatever a library of another language raises: the reference can do it
        raise _NotFast(f"gigatoken cannot load this tokenizer ({' '.join(str(error).split())[:80]})") from None
    fast = FastText(reference, engine)
    if not fast.learn():
        raise _NotFast("gigatoken makes other ids of a test string")
    return fast


def _rows_with(table: np.ndarray, texts: Sequence[str]) -> list[int]:
    """The rows of texts with a character behind ASCII that the table has."""
    rows = [row for row, text in enumerate(texts) if not text.isascii()]
    if not rows:
        return []
    codes = np.frombuffer("".join([texts[row] for row in rows]).encode("utf-32-le"), "<u4")
    places = np.flatnonzero(codes > 0x7F)
    places = places[table[codes[places]]]
    if not len(places):
        return []
    ends = np.cumsum([len(texts[row]) for row in rows])
    return [rows[number] for number in np.unique(np.searchsorted(ends, places, side="right")).tolist()]


def _kinds(normalizer: dict[str, Any] | None) -> list[str | None]:
    """The types of a normalizer's steps, in order."""
    if normalizer is None:
        return [None]
    parts = normalizer.get("normalizers", [])
    return [kind for part in parts for kind in _kinds(part)] if parts else [normalizer["type"]]


def _rows(ids: np.ndarray, offsets: np.ndarray) -> Iterator[np.ndarray]:
    return (ids[start:end] for start, end in itertools.pairwise(offsets.tolist()))


def _batched(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    while batch := list(itertools.islice(texts, size)):
        yield batch
