"""How much a compressed input may unpack to, so that a small hostile file costs no hour and no machine's memory.

Text shrinks to a fifth or a tenth, logs to a fiftieth. A file that unpacks to far more is refused when it is planned;
rows of Parquet, where one stored text may stand for many, are rejects. So is a file of far more records than it has
bytes for: each costs the same few microseconds, whatever is in it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator

from hpcdata.base.errors import UserError
from hpcdata.sources.base import InputFile

UNPACKED_BYTES, UNPACKED_TIMES = 1 << 28, 100
"""So many bytes, and so many times the size of the file more."""
LARGE_TEXT_BYTES = 1 << 20
LARGE_BYTES, LARGE_TIMES = 1 << 24, 30
"""The same for its texts of more than 1 MiB together: a tokenizer takes a hundred times their size in memory."""

RECORDS, BYTES_A_RECORD = 1 << 20, 8
"""So many records, and one more for so many bytes of the file: `{"a":1}` and its line break have 8."""
MEMBERS, BYTES_A_MEMBER = 1 << 18, 64
"""The same for the samples of a gzipped tar, whose headers have 512 bytes each."""


def most_unpacked(stored: int) -> int:
    return UNPACKED_BYTES + UNPACKED_TIMES * stored


def most_large(stored: int) -> int:
    return LARGE_BYTES + LARGE_TIMES * stored


def bounded(file: InputFile, pieces: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
    """The pieces of a file, while it is planned. Raises UserError when it unpacks to more than it may."""
    size, total = os.stat(file.path).st_size, 0
    most = most_unpacked(size)
    with contextlib.closing(pieces):
        for piece in pieces:
            total += len(piece)
            if total > most:
                raise refusal(file, f"unpacks to more than {most} bytes", UNPACKED_TIMES, UNPACKED_BYTES)
            yield piece


def most_records(stored: int, *, is_tar: bool = False) -> int:
    return MEMBERS + stored // BYTES_A_MEMBER if is_tar else RECORDS + stored // BYTES_A_RECORD


def require_few_records(path: str, number: int, most: int) -> None:
    """Raises UserError for more records than a file of its size may have, see `most_records`."""
    if number > most:
        raise UserError(
            f"{path} has more than {most} records, the limit for its size: if it is meant so, split it into files of "
            f"at most {MEMBERS} records"
        )


def require_few_large(file: InputFile, total: int) -> None:
    """Raises UserError for texts of more than 1 MiB that have so many bytes together."""
    most = most_large(os.stat(file.path).st_size)
    if total > most:
        raise refusal(file, f"has texts of more than 1 MiB of {most} bytes together", LARGE_TIMES, LARGE_BYTES)


def refusal(file: InputFile, what: str, times: int, least: int) -> UserError:
    return UserError(
        f"{file.path} {what}: the limit is {times} times its size and {least >> 20} MiB; if it is meant so, decompress "
        "it first"
    )
