"""Panics of tokenizers that are written in Rust: one text at which they give up must cost no other one.

The `tokenizers` library panics where its regular expressions do, as at millions of spaces in a row with the pattern of
Llama 3. In Python such a panic is no `Exception`, and would end the process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

_MAX_MESSAGE = 160


class _Encodes(Protocol):
    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]: ...


class TokenizerPanic(Exception):
    """What a tokenizer said when it gave up."""


@contextlib.contextmanager
def caught() -> Iterator[None]:
    """Raises TokenizerPanic instead of a panic."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        message = " ".join(str(error).split())[:_MAX_MESSAGE]
        raise TokenizerPanic(message) from None


def encode(tokenizer: _Encodes, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """`tokenizer.encode`, and why for each row at which it panics: that one has no ids."""
    with contextlib.suppress(TokenizerPanic), caught():
        return *tokenizer.encode(texts), {}
    rows, failed = [], {}
    for row, text in enumerate(texts):
        try:
            with caught():
                rows.append(tokenizer.encode([text])[0])
        except TokenizerPanic as panic:
            rows.append(np.zeros(0, np.int32))
            failed[row] = f"the tokenizer gives up: {panic}"
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return np.concatenate(rows, dtype=np.int32), offsets, failed
