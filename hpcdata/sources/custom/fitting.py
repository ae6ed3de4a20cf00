"""Whether the first records of a file have the fields of a mapping: told before anything starts."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from hpcdata.base.errors import UserError
from hpcdata.samples import Record, Reject
from hpcdata.sources.base import InputFile

MOST = 100
"""Records that are looked at."""


def require_fit(file: InputFile, records: Iterable[Record]) -> None:
    """Raises UserError where none of the first records becomes a sample, with the first that does not."""
    first: Reject | None = None
    for record in islice(records, MOST):
        if not isinstance(record, Reject):
            return
        first = first or record
    if first is not None:
        raise UserError(f"data.mapping does not fit {file.label}: {first.key}: {first.message}")
