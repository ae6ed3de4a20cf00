"""Whether a run that asks for pictures finds any: told while planning, before a dataset of texts alone is made."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hpcdata import sources
from hpcdata.base.errors import UserError
from hpcdata.runs.inputs.planned import PlannedInput
from hpcdata.samples import ImagePart, Record, Reject, Sample
from hpcdata.sources import Options
from hpcdata.sources.base import refusing_faults
from hpcdata.sources.records import keys_of

_MOST_KEYS = 12


@dataclass
class _Seen:
    """What there is in place of pictures."""

    num_records: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first_reject: str = ""
    keys: dict[str, None] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        self.num_records += 1
        if isinstance(record, Reject):
            self.reasons[record.reason] += 1
            self.first_reject = self.first_reject or f"{record.key}: {record.message}"
        elif isinstance(record, Sample) and len(self.keys) < _MOST_KEYS:
            lines = (member.blob.data for member in record.members if member.extension == "json")
            self.keys.update(dict.fromkeys(key for line in lines if line is not None for key in keys_of(line)))

    def describe(self) -> str:
        if self.first_reject:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common(3))
            return f"of {self.num_records} records ({reasons}) the first reject is {self.first_reject}"
        keys = f" with the keys {', '.join(list(self.keys)[:_MOST_KEYS])}" if self.keys else ""
        return f"{self.num_records} records{keys} name none"


def require_pictures(root: Path, inputs: Sequence[PlannedInput], options: Options) -> None:
    """Raises UserError where no record of the inputs names a picture that can be read. root: the run's folder.

    Records are read up to the first that names one; whether it is there is not looked at.
    """
    seen = _Seen()
    options = replace(options, needs_text=False, needs_image=True, keeps_members=True)
    for planned in sorted(inputs, key=lambda item: _rank(item.file.format)):
        if planned.file.format.startswith("tar"):
            return
        for record in _records(root, planned, options):
            if isinstance(record, Sample) and any(isinstance(part, ImagePart) for part in record.parts):
                return
            seen.add(record)
    raise UserError(
        f"an image tokenizer is set, and no picture was found in {len(inputs)} inputs: {seen.describe()}. "
        "Use image.tokenizer=none for texts alone"
    )


def _rank(format_name: str) -> int:
    """Formats that surely hold pictures come first."""
    return 0 if format_name.startswith("tar") else 1 if sources.carries_images(format_name) else 2


def _records(root: Path, planned: PlannedInput, options: Options) -> Iterator[Record]:
    """All records of an input that may hold pictures, and the first ones of another."""
    file = replace(planned.file, path=os.path.join(root, planned.file.path))
    count = planned.scan.num_samples if sources.carries_images(file.format) else min(planned.scan.num_samples, 1)
    with refusing_faults(file.path):
        yield from sources.read(file, planned.scan, first=0, count=count, options=options)
