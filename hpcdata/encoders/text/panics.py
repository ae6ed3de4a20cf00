"""Texts at which a tokenizer gives up, and panics of those that are written in Rust: one must cost no other text.

The `tokenizers` library panics where its regular expressions do, as at millions of spaces in a row with the pattern of
Llama 3. In Python such a panic is no `Exception`, and would end the process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from hpcdata.samples import BadSample, Reason

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


def encode(tokenizer: _Encodes, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, dict[int, BadSample]]:
    """`tokenizer.encode`, and why for each row at which it panics or that is too long: these have no ids."""
    with contextlib.suppress(TokenizerPanic, BadSample), caught():
        return *tokenizer.encode(texts), {}
    rows, failed = [], {}
    for row, text in enumerate(texts):
        try:
            with caught():
                rows.append(tokenizer.encode([text])[0])
                continue
        except TokenizerPanic as panic:
            failed[row] = BadSample(Reason.CRASH, f"the tokenizer gives up: {panic}")
        except BadSample as bad:
            failed[row] = BadSample(bad.reason, bad.message)  # without the traceback, which holds the text
        rows.append(np.zeros(0, np.int32))
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return np.concatenate(rows, dtype=np.int32), offsets, failed
