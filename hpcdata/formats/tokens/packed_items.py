"""Files of items behind a table of their offsets, as MDS and litData have them.

u32 n | u32[n + 1] offsets from the beginning of the file | what the format puts there | n items
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hpcdata.formats.tokens.rows import Rows, Sequences, bytes_of
from hpcdata.samples import Reason

MOST_BYTES = 2**32 - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Packed:
    files: list[tuple[int, bytes]] = field(default_factory=list)
    """(items, bytes) of each."""
    rejects: list[tuple[int, Reason, str]] = field(default_factory=list)
    """Items that no file can hold."""


def item_of(values: Sequence[bytes]) -> bytes:
    """Values of one row: u32 size of each, then their bytes."""
    return np.array([len(value) for value in values], "<u4").tobytes() + b"".join(values)


def values_of(
    name: str, rows: Rows, sequences: Sequences, *, array: Callable[[memoryview, int], bytes]
) -> Callable[[int], bytes]:
    """Row number -> the value of a column, texts as UTF-8. array: what is stored of the bytes of so many numbers."""
    if name == "key":
        keys = rows.keys()
        return lambda number: keys[number].encode()
    if name == "text":
        return lambda number: rows.texts[number].encode()
    values = sequences.ids if name == "input_ids" else getattr(sequences, name)
    data, size, first = bytes_of(values), values.itemsize, sequences.first.tolist()
    return lambda number: array(
        data[first[number] * size : first[number + 1] * size], first[number + 1] - first[number]
    )


def files_of(items: Sequence[tuple[int, bytes]], most_bytes: int, *, before: bytes = b"") -> Packed:
    """Items in files of at most `most_bytes`, or of one item. items: (number of the row, its bytes), in order."""
    packed, held, size = Packed(), list[bytes](), 0
    for number, item in items:
        alone = _size(1, len(item), before)
        if alone > MOST_BYTES:
            message = f"{len(item)} bytes, more than the offsets of a file can reach"
            packed.rejects.append((number, Reason.TOO_LONG, message))
            continue
        if held and _size(len(held) + 1, size + len(item), before) > most_bytes:
            packed.files.append((len(held), _file(held, before)))
            held, size = [], 0
        held.append(item)
        size += len(item)
    if held:
        packed.files.append((len(held), _file(held, before)))
    return packed


def _size(num_items: int, num_bytes: int, before: bytes) -> int:
    return 4 * (num_items + 2) + len(before) + num_bytes


def _file(items: Sequence[bytes], before: bytes) -> bytes:
    offsets = np.zeros(len(items) + 1, np.int64)
    np.cumsum([len(item) for item in items], out=offsets[1:])
    offsets += 4 * (len(items) + 2) + len(before)
    head = np.array(len(items), "<u4").tobytes() + offsets.astype("<u4").tobytes()
    return b"".join([head, before, *items])
