"""A batch whose records are made one by one, each or its reject."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from hpcdata.samples import BadSample, Batch, PreparedBatch, Sample, refusal
from hpcdata.shards.reject_ledger import RejectRow, reject_row

T = TypeVar("T")


def each(
    batch: Batch, make: Callable[[Sample, list[np.ndarray], int], T], *, first_index: int, source: str
) -> tuple[list[T], list[RejectRow]]:
    """What `make` returns of the samples of a batch, and the rejects between them.

    make: of a sample, what was prepared of it, and its index in the plan; raises BadSample. first_index, source: see
    `Maker.start`. The lists of what was prepared are empty then: large records are not in memory twice.
    """
    assert isinstance(batch, PreparedBatch)
    made, rejects = list[T](), list[RejectRow]()
    for record, prepared in zip(batch.records, batch.prepared, strict=True):
        try:
            if bad := refusal(record, prepared):
                raise bad
            assert isinstance(record, Sample)
            assert isinstance(prepared, list)
            made.append(make(record, prepared, first_index + record.position))
            prepared.clear()
        except BadSample as bad:
            rejects.append(reject_row(record, bad.reason, bad.message, first_index, source))
    return made, rejects
