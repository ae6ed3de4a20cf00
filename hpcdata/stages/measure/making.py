"""Batches of records -> their measures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcdata.base import digest
from hpcdata.media.rules import RULES
from hpcdata.multimodal.datasets.columns import Measured, laid_out, measures_at
from hpcdata.multimodal.datasets.examples import example_of
from hpcdata.multimodal.image_files import PictureFile
from hpcdata.multimodal.preprocessor import MolmoPreprocessor
from hpcdata.runs.plan import Plan
from hpcdata.samples import BadSample, Batch, ImagePart, Record, Sample
from hpcdata.shards.counts import Counts, count_batch
from hpcdata.shards.made import Before, Laid
from hpcdata.shards.one_by_one import each
from hpcdata.shards.reject_ledger import RejectRow
from hpcdata.shards.schema import Schema
from hpcdata.shards.shard import read_summary
from hpcdata.shards.stored import key_of, read_columns


@dataclass(frozen=True, kw_only=True)
class Limits:
    max_bytes: int
    max_pixels: int
    rule: str


def read_sizes(record: Record, limits: Limits) -> list[np.ndarray]:
    """The size of each picture of a record: its int32 height and width as 8 uint8. Raises BadSample."""
    if not isinstance(record, Sample):
        return []
    rule, found = RULES[limits.rule], []
    for part in record.parts:
        if isinstance(part, ImagePart):
            size = PictureFile(part.blob).size(max_bytes=limits.max_bytes, max_pixels=limits.max_pixels, rule=rule)
            found.append(np.array(size, "<i4").view(np.uint8))
    return found


def try_texts(record: Record, preprocessor: MolmoPreprocessor) -> None:
    """Writes the texts of a record; only a death matters here."""
    with contextlib.suppress(BadSample):
        pictures = sum(isinstance(part, ImagePart) for part in record.parts) if isinstance(record, Sample) else 0
        preprocessor.measure(example_of(record, sizes=((1, 1),) * pictures, rule=preprocessor.rule))


class Measuring:
    """A preprocessor that writes texts and decodes nothing."""

    device, num_ahead = "none", 0

    def __init__(self, plan: Plan, preprocessor: MolmoPreprocessor) -> None:
        self.plan, self._preprocessor = plan, preprocessor

    def start(self, batch: Batch, *, first_index: int, source: str) -> Callable[[], MadeMeasures]:
        samples, rejects = each(batch, self._measured, first_index=first_index, source=source)
        return lambda: MadeMeasures(samples=samples, rejects=rejects)

    def _measured(self, record: Sample, prepared: list[np.ndarray], index: int) -> Measured:
        sizes = [(int(size[0]), int(size[1])) for size in (item.view("<i4") for item in prepared)]
        example = example_of(record, sizes=sizes, rule=self._preprocessor.rule)
        measure = self._preprocessor.measure(example, np.random.RandomState(0))  # whether it draws is noted
        return Measured(index=index, key=record.key, seek=record.offset, measure=measure, is_fixed=record.is_fixed)


@dataclass(frozen=True, kw_only=True, eq=False)
class MadeMeasures:
    """Samples that are measured, and the rejects between them."""

    samples: Sequence[Measured]
    rejects: Sequence[RejectRow] = ()

    def counts(self) -> Counts:
        measures = [sample.measure for sample in self.samples]
        turns = sum(sum(branch) for measure in measures for branch in measure.num_tokens)
        return count_batch(
            len(self.samples),
            self.rejects,
            images=sum(len(measure.sizes) for measure in measures),
            fixed_placeholders=sum(sample.is_fixed for sample in self.samples),
            text_tokens=turns + sum(measure.num_shared for measure in measures),
        )

    def written(self) -> Sequence[tuple[int, str]]:
        return [(sample.index, sample.key) for sample in self.samples]

    def only(self, indices: Container[int]) -> MadeMeasures:
        return MadeMeasures(samples=[sample for sample in self.samples if sample.index in indices])

    def lay_out(self, schema: Schema, before: Before) -> Laid:
        columns = laid_out(self.samples, num_spans=before.rows["spans"], num_key_bytes=before.rows["keys"])
        return Laid(columns=columns, content=digest.add(*(sample.content() for sample in self.samples)))


def stored(folder: Path, row: int) -> Measured:
    """A sample of a committed shard. Raises ValueError when the shard is damaged."""
    summary = read_summary(folder)
    columns = read_columns(folder, summary.header.schema, summary.sizes)
    first_span = columns["samples/first_span.memmap"][row : row + 1]
    return Measured(
        index=int(columns["samples/index.memmap"][row]),
        key=key_of(columns, row),
        seek=int(columns["samples/seek.memmap"][row]),
        measure=measures_at(columns, np.array([row]), first_span, "")[0],
    )
