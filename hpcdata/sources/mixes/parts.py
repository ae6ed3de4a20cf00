"""A part of a file: the records that `first:N`, `end:N` or `random:N` take, in the order of the file.

A file of JSON lines is read twice when it is planned: to count its records, and to note where reading may start. Of
Parquet the footer says how many rows there are. Nothing of a record is kept, so 10^7 of them take no more memory than
ten. What is left out is counted, and never parsed.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable, Iterator
from itertools import compress, count, islice
from typing import TYPE_CHECKING

from hpcdata.base.errors import UserError
from hpcdata.sources.base import Each, InputFile, Scan

if TYPE_CHECKING:
    import numpy as np

    from hpcdata.order.sampling import Subset

ALL = "all"
_AT_ONCE = 1 << 14
"""Records that are asked for at once."""


def is_part(file: InputFile) -> bool:
    return file.take not in ("", ALL)


def scan(file: InputFile, count_lines: Callable[[Each | None], int], *, every: int, each: Each | None) -> Scan:
    """What a scan learns of the records that are taken. Raises UserError for more than there are.

    count_lines: reads the file, tells its argument where each record begins, and returns how many there are.
    """
    size = count_lines(None)
    part = _part(file, size)
    chosen, cuts, numbers, found = _holds(part, 0), list[int](), list[int](), 0
    seen = count()

    def one(offset: int) -> None:
        nonlocal found
        number = next(seen)
        if not next(chosen):
            return
        if found % every == 0:
            cuts.append(offset)
            numbers.append(number)
        if each is not None:
            each(offset)
        found += 1

    count_lines(one)
    return Scan(num_samples=part.num_samples, every=every, cuts=tuple(cuts), num_records=size, numbers=tuple(numbers))


def scan_rows(file: InputFile, num_rows: int, *, every: int, each: Each | None) -> Scan:
    """The same of a table: a record begins at its row. Raises UserError for more than there are."""
    part = _part(file, num_rows)
    cuts, found = list[int](), 0
    for rows in _rows(part, 0, num_rows):
        cuts += rows[-found % every :: every].tolist()
        found += len(rows)
        for row in rows.tolist() if each is not None else ():
            each(row)  # type: ignore[misc]
    numbers = tuple(cuts)
    return Scan(num_samples=part.num_samples, every=every, cuts=numbers, num_records=num_rows, numbers=numbers)


def rows_taken(file: InputFile, scan: Scan, first: int, count: int, num_rows: int) -> Iterator[int]:
    """The rows of samples `first` to `first + count - 1` of a table that has so many."""
    skipped, is_taken = start(file, scan, first)
    rows = compress(range(scan.cut(first)[1], num_rows), is_taken)
    return islice(rows, skipped, skipped + count)


def around(file: InputFile, scan: Scan, position: int, row: int, begin: int, stop: int) -> tuple[Scan, int, int]:
    """(a scan to read them by, position of the first, number) of the samples that lie in rows `begin` to `stop - 1`.

    position: of the sample of one of them, `row`.
    """
    part = _part(file, scan.num_records)
    rows = [int(taken) for some in _rows(part, begin, stop) for taken in some]
    first = position - bisect.bisect_left(rows, row)
    cuts = (0, rows[0]) if first else (rows[0],)
    return dataclasses.replace(scan, every=max(first, 1), cuts=cuts, numbers=cuts), first, len(rows)


def _rows(part: Subset, begin: int, stop: int) -> Iterator[np.ndarray]:
    """[n] int64 each: those that are taken."""
    import numpy as np

    for start in range(begin, stop, _AT_ONCE):
        rows = np.arange(start, min(start + _AT_ONCE, stop), dtype=np.int64)
        yield rows[part.holds(rows)]


def start(file: InputFile, scan: Scan, first: int) -> tuple[int, Iterator[bool]]:
    """(how many records that are taken come before sample `first`, for each record from the nearest cut on whether it
    is taken), for a reader that begins at `scan.cut(first)`.
    """
    begun, _ = scan.cut(first)
    if not scan.numbers:  # of one record, which is known to be taken
        return first - begun, iter(lambda: True, False)
    number = scan.numbers[min(first // scan.every, len(scan.numbers) - 1)]
    return first - begun, _holds(_part(file, scan.num_records), number)


def left_out(file: InputFile, scan: Scan) -> int:
    """How many records of the file are not taken."""
    return scan.num_records - _part(file, scan.num_records).num_samples if is_part(file) else 0


def _part(file: InputFile, size: int) -> Subset:
    from hpcdata.order.sampling import subset

    try:
        return subset(file.take, size, seed=file.take_seed)
    except UserError as error:
        name = file.label.removesuffix(f"@{file.take}")  # its path may be that of lines that were made of it
        raise UserError(f"{name}: {error}") from None


def _holds(part: Subset, first: int) -> Iterator[bool]:
    """Of each record from `first` on; of what comes behind the last one, no."""
    import numpy as np

    for begin in range(first, part.size, _AT_ONCE):
        yield from part.holds(np.arange(begin, min(begin + _AT_ONCE, part.size), dtype=np.int64)).tolist()
    yield from iter(bool, True)
