"""Tables of Unicode's characters, [0x110000] bool each: which are sure to be the same for every engine."""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np

_PLANES_END = 0x40000  # what lies behind has no letters: tags, variation selectors and private use
_CORRECTED = "\uf951\U0002f868\U0002f874\U0002f91f\U0002f95f\U0002f9bf"
"""Of their normal forms Unicode's corrigenda 3 and 4 say that they had been wrong."""
_UNASSIGNED = ("Cn", "Co", "Cs")


@cache
def unassigned() -> np.ndarray:
    """No character, or one for private use, in this Python's Unicode."""
    table = np.ones(0x110000, bool)
    table[:_PLANES_END] = [unicodedata.category(chr(code)) in _UNASSIGNED for code in range(_PLANES_END)]
    return table


@cache
def is_recent() -> np.ndarray:
    """Not in Unicode 3.2, or with a normal form that was corrected since."""
    category, table = unicodedata.ucd_3_2_0.category, np.ones(0x110000, bool)
    for code in range(_PLANES_END):
        table[code] = category(chr(code)) in _UNASSIGNED
    table[[ord(character) for character in _CORRECTED]] = True
    return table


@cache
def may_not_be_nfc() -> np.ndarray:
    """Characters without which a text is in NFC: marks, and what composes or decomposes."""
    table = np.zeros(0x110000, bool)
    for code in range(_PLANES_END):
        character = chr(code)
        parts = unicodedata.decomposition(character).split()
        table[code] |= bool(unicodedata.combining(character)) or not unicodedata.is_normalized("NFC", character)
        if len(parts) == 2 and not parts[0].startswith("<"):
            table[int(parts[1], 16)] = True
    table[0x1161:0x1176] = table[0x11A8:0x11C3] = True  # Hangul vowels and finals
    return table
