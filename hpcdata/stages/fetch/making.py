"""A record and its pictures -> what is written of it: a sample of a tar, or a line and its files.

What named pictures is now `image`, the URLs are in `url`, and `sha256` is that of the bytes that came.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hpcdata.media.kinds import BEGINNING_BYTES, extension_of
from hpcdata.runs.plan import Plan
from hpcdata.samples import BadSample, Batch, Reason, Sample
from hpcdata.shards.one_by_one import each
from hpcdata.sources.records import numbered
from hpcdata.stages.copy.forms import Written, as_json_line, as_tar
from hpcdata.stages.copy.making import Copied
from hpcdata.stages.fetch.fetching import has_fields


class Making:
    """Nothing is loaded: pictures are there when a batch is made."""

    device, num_ahead = "none", 0

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._is_lines = plan.config.fetch.format == "jsonl"

    def start(self, batch: Batch, *, first_index: int, source: str) -> Callable[[], Copied]:
        samples, rejects = each(batch, self._written, first_index=first_index, source=source)
        return lambda: Copied(samples=samples, rejects=rejects)

    def _written(self, record: Sample, prepared: list[np.ndarray], index: int) -> Written:
        if not has_fields(record):
            raise BadSample(Reason.MISSING_IMAGE, "the record has no JSON with a URL")
        fields, text, *pictures = map(bytes, prepared)
        names = numbered([extension_of(data[:BEGINNING_BYTES]) for data in pictures])
        members = {"json": fields, **dict(zip(names, pictures, strict=True))}
        if self._is_lines:
            return as_json_line(record, index, members)
        return as_tar(record, index, members | ({"txt": text} if text else {}))
