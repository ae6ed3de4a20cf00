"""What two text engines are compared by: every character in several surroundings, and awkward strings."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

from hpcdata.encoders.text.characters import unassigned

SURROUNDINGS = ("a{0}b 1{0}2", " {0} .{0}'s", "\n{0}{0}\n")
"""They begin and end in what composes with nothing, so that pieces in a row stay in NFC."""
_CHARACTERS_A_TEXT = 32


@cache
def probed() -> tuple[int, ...]:
    """Assigned characters; of the ideographs and syllables that fill whole blocks, every 64th."""
    codes = np.flatnonzero(~unassigned())
    is_uniform = ((codes >= 0x3400) & (codes < 0xD7A4)) | ((codes >= 0x17000) & (codes < 0x1B000)) | (codes >= 0x20000)
    return tuple(codes[~is_uniform | (codes % 64 == 0)].tolist())


def texts_in(surrounding: str, characters: Sequence[str], *, only_nfc: bool) -> Iterator[str]:
    """Texts of some characters each, every one in the surrounding."""
    pieces = (surrounding.format(character) for character in characters)
    plain = [piece for piece in pieces if not only_nfc or unicodedata.is_normalized("NFC", piece)]
    for start in range(0, len(plain), _CHARACTERS_A_TEXT):
        yield "".join(plain[start : start + _CHARACTERS_A_TEXT])


def awkward_strings() -> list[str]:
    """Runs of spaces, digits, quotes and signs, alone and between words, and mixtures of scripts."""
    runs = [" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n ", "\xa0", "\u3000", "\u200b", "\u200d", "\ufeff"]
    runs += [
        "1",
        "12",
        "1234567",
        "3.14",
        "1,000",
        "½",
        "١٢٣",
        "１２",
        "'s",
        "'LL",
        "’ve",
        "don't",
        "'",
        '"',
        "...",
        "!!",
    ]
    runs += [
        "-",
        "—",
        "/*",
        "</a>",
        "{}",
        "a" * 300,
        "é",
        "ß",
        "İ",
        "ǅ",
        "ﬁ",
        "Å",
        "日本語",
        "한국어",
        "हिन्दी",
        "العربية",
    ]
    runs += [
        "ไทย",
        "Ελλ",
        "Рус",
        "👩‍👩‍👧",
        "🇩🇪",
        "👍🏽",
        "e\u0323\u0302",
        "\u0301",
        "q\u0307\u0323",
        "\x00",
        "\x1b",
        "\x7f",
        "\ufffd",
    ]
    return [*runs, *(a + b for a, b in itertools.product(runs, runs)), *(f"word{a}word {a} word" for a in runs)]
