"""The rows of a combined dataset, by their positions (`dataset`): only how many there are is known here.

What a row holds, its stage reads from the dataset itself. The input is its `manifest.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hpcdata.base import sealed
from hpcdata.base.errors import UserError
from hpcdata.samples import Record, RowRange, Sample
from hpcdata.sources.base import Each, InputFile, Options, Scan


def scan(file: InputFile, *, every: int, options: Options, each: Each | None = None) -> Scan:
    """Raises UserError for what is no manifest, and where rows of datasets are not what is wanted."""
    if not options.takes_rows:
        raise UserError(f"{file.path} is a dataset of hpcdata: its rows are read by stage=export alone")
    try:
        num_samples = sum(part["samples"] for part in sealed.read_json(Path(file.path))["parts"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file.path} is not the manifest of a dataset, or damaged ({error})") from None
    for position in range(num_samples) if each is not None else ():
        each(position)  # type: ignore[misc]
    return Scan(num_samples=num_samples, every=every, cuts=tuple(range(0, num_samples, every)))


def read(file: InputFile, scan: Scan, *, first: int, count: int, options: Options) -> Iterator[Record]:
    for position in range(first, first + count):
        yield Sample(position=position, key=f"{file.label}#{position}", parts=(), offset=position)


def read_documents(
    file: InputFile, scan: Scan, *, first: int, count: int, batch_size: int, options: Options
) -> Iterator[RowRange]:
    """The same in bulk, `batch_size` at a time."""
    for start in range(first, first + count, batch_size):
        yield RowRange(first=start, count=min(batch_size, first + count - start), label=file.label)
