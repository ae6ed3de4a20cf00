"""Long texts in pieces: the same ids in bounded memory. An engine needs over a hundred bytes of memory a byte of text.

A text is cut at a single space between two letters, where no token can lie across. That is known in three ways, and all
must agree:

1. The tokenizer is byte pair encoding, and no piece of its vocabulary has a space behind a letter. A merge never goes
   back, so whatever stands on both sides of such a place is merged on each side alone. Or it splits every text at its
   spaces before it does anything else.
2. Some dozens of probes give the same ids whole and in two pieces: with the space in front of the second piece, or
   without it where the tokenizer puts one in front of every text.
3. Around each cut some hundred characters are encoded both ways. Where that differs another place is taken.

Other tokenizers encode long texts whole, and so are texts without such places, up to a limit of bytes: a text behind it
is a reject. What counts are the bytes once the tokenizer has brought the text into its normal form, where one letter
may become eighteen.
"""

from __future__ import annotations

import functools
import itertools
import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from hpcdata.samples import BadSample, Reason

LONGEST_WHOLE = 1 << 20
"""Characters of a text that is not cut."""
PIECE_CHARACTERS = 1 << 18
_ALWAYS_SHORT = 1 << 16
"""Characters that are below any limit in every normal form: of these, 33 bytes a character at most."""
_MOST_TRIES = 64
"""Places that are tried for a cut. Where so many do not fit, others will hardly."""
_AROUND = 128
_PLACE = re.compile(r"(?<=[^\W\d_]) (?=[^\W\d_])")
_IN_PIECE = re.compile(r"(?:[^\W\d_]|\ufffd)[▁ ]")
_IN_LITERAL = re.compile(r"(?:^|[^\W\d_]) (?:$|[^\W\d_])")
_WORDS = ("word", "A", "I", "naïve", "слово", "λόγος", "日本", "한국", "שלום", "कल", "x", "The", "aaaa", "éé", "o")

_logger = logging.getLogger(__name__)


class _Engine(Protocol):
    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]: ...

    def decode(self, ids: Iterable[int]) -> str: ...


class Reference(_Engine, Protocol):
    """The engine that decides what the ids of a text are."""

    def merges_within_words(self) -> bool:
        """Whether it merges pairs, and no piece has a space behind a letter, see `lies_across`; or splits at spaces."""
        ...

    def normalizer(self) -> dict[str, Any] | None:
        """What it does to a text first; None for nothing."""
        ...

    @property
    def most_bytes(self) -> int:
        """Of a text that it encodes as a whole: so many that it takes less than 1.5 GiB of memory."""
        ...


def lies_across(pieces: Iterable[str], literals: Iterable[str], *, in_bytes: bool) -> bool:
    """Whether a piece of a vocabulary, or a literal that is found in texts, can lie across a place where texts are cut.

    in_bytes: pieces are spelled in GPT-2's letters for bytes, else in letters, with `▁` for a space.
    """
    spelled = map(_from_bytes, pieces) if in_bytes else pieces
    return any(map(_IN_PIECE.search, spelled)) or any(map(_IN_LITERAL.search, literals))


def splits_at_spaces(pre_tokenizer: dict[str, Any] | None) -> bool:
    """Whether a tokenizer.json says that texts are split at every space before tokens are sought."""
    if pre_tokenizer is None:
        return False
    if pre_tokenizer["type"] == "Sequence":
        return any(map(splits_at_spaces, pre_tokenizer["pretokenizers"]))
    if pre_tokenizer["type"] == "Metaspace":
        return pre_tokenizer.get("split", True) and pre_tokenizer.get("replacement") == "▁"
    return pre_tokenizer["type"] in ("WhitespaceSplit", "Whitespace", "BertPreTokenizer")


class Splitting:
    """A `TextTokenizer` that encodes long texts in pieces."""

    def __init__(self, reference: Reference, engine: _Engine) -> None:
        """engine: gives the ids of the reference."""
        self._reference, self._engine = reference, engine
        self._keeps_space: bool | None = None
        self._is_settled = False

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """As `TextTokenizer.encode`. Raises BadSample (OVERSIZED_TEXT) for one that cannot be cut."""
        if all(len(text) <= LONGEST_WHOLE for text in texts) or not self._can_split():
            for text in texts:
                self._require_few_bytes(text)
            return self._engine.encode(texts)
        parts, lengths = [], []
        for text in texts:
            rows = [self._encode_piece(piece) for piece in self._pieces(text)]
            parts += rows
            lengths.append(sum(map(len, rows)))
        return np.concatenate(parts), np.cumsum([0, *lengths], dtype=np.int64)

    def _encode_piece(self, piece: str) -> np.ndarray:
        self._require_few_bytes(piece)
        return self._engine.encode([piece])[0]

    def _require_few_bytes(self, text: str) -> None:
        if len(text) <= _ALWAYS_SHORT:
            return
        most, normalizes = self._reference.most_bytes, self._reference.normalizer() is not None
        if (size := _most_bytes(text, normalizes=normalizes)) > most:
            message = f"{size} bytes without a place where this tokenizer's texts may be cut, the limit is {most}"
            raise BadSample(Reason.OVERSIZED_TEXT, message)

    def decode(self, ids: Iterable[int]) -> str:
        return self._reference.decode(ids)

    def _can_split(self) -> bool:
        if not self._is_settled:
            self._is_settled = True
            if self._reference.merges_within_words():
                ways = [keeps for keeps in (True, False) if all(self._agrees(*pair, keeps) for pair in _probes())]
                self._keeps_space = ways[0] if ways else None
            if self._keeps_space is None:
                _logger.warning(
                    "this tokenizer cannot encode a long text in pieces: one of more than %d bytes is rejected",
                    self._reference.most_bytes,
                )
        return self._keeps_space is not None

    def _pieces(self, text: str) -> Iterator[str]:
        start = 0
        while len(text) - start > PIECE_CHARACTERS * 2:
            cut = self._find_cut(text, start + PIECE_CHARACTERS)
            if cut is None:
                break
            yield text[start:cut]
            start = cut if self._keeps_space else cut + 1
        yield text[start:]

    def _find_cut(self, text: str, start: int) -> int | None:
        """The first place of a space at which the text may be cut."""
        assert self._keeps_space is not None
        for match in itertools.islice(_PLACE.finditer(text, start), _MOST_TRIES):
            cut = match.start()
            if self._agrees(text[max(0, cut - _AROUND) : cut], text[cut + 1 : cut + 1 + _AROUND], self._keeps_space):
                return cut
        return None

    def _agrees(self, left: str, right: str, keeps_space: bool) -> bool:
        """Whether the two, with a space between them, give the same ids whole and in pieces."""
        ids, offsets = self._reference.encode([f"{left} {right}", left, f" {right}" if keeps_space else right])
        return np.array_equal(ids[: offsets[1]], ids[offsets[1] :])


def _most_bytes(text: str, *, normalizes: bool) -> int:
    """The bytes of a text in UTF-8, or of its normal form where that has more. NFKC has the most of all."""
    if text.isascii():
        return len(text)
    pieces = (text[start : start + _ALWAYS_SHORT] for start in range(0, len(text), _ALWAYS_SHORT))
    return sum(
        max(len(piece.encode()), len(unicodedata.normalize("NFKC", piece).encode()) if normalizes else 0)
        for piece in pieces
    )


@functools.cache
def _letters() -> dict[str, int]:
    """GPT-2's letter for each byte: printable ones stand for themselves, the others follow from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted({*range(0x100)}.difference(plain))
    return {chr(byte): byte for byte in plain} | {chr(0x100 + number): byte for number, byte in enumerate(others)}


def _from_bytes(piece: str) -> str:
    """A piece as text; what is no whole character, or no letter for a byte, becomes U+FFFD."""
    table = _letters()
    return bytes(table.get(letter, 0xFF) for letter in piece).decode("utf-8", "replace")


def _probes() -> Iterator[tuple[str, str]]:
    yield from itertools.product(_WORDS, _WORDS)
    yield from ((f"({left}", f"{left}, {left}  {left}.\n") for left in _WORDS)
