"""Batches of records -> what is written of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hpcdata.base import digest
from hpcdata.config.schema import CopyConfig
from hpcdata.runs.plan import Plan
from hpcdata.samples import Batch, Sample
from hpcdata.shards.counts import Counts, count_batch
from hpcdata.shards.made import Before, Laid
from hpcdata.shards.one_by_one import each
from hpcdata.shards.reject_ledger import RejectRow
from hpcdata.shards.schema import Schema
from hpcdata.stages.copy.forms import Written, as_json_line, as_tar
from hpcdata.stages.copy.rows import WrittenRow, as_pair, as_record, bodies, head

_MOST_AHEAD = 1 << 26
"""Bytes of a batch that is hashed while the next one is read; a larger one is not held beside another."""


class Copying:
    """Nothing is loaded: what is made is the record itself. A thread takes digests, and lays out rows."""

    device = "none"

    def __init__(self, plan: Plan) -> None:
        self.plan, self.num_ahead = plan, 1
        self._form, self._made = _FORMS[_form(plan.config.copy)]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="copy")

    def start(self, batch: Batch, *, first_index: int, source: str) -> Callable[[], Copied]:
        samples, rejects = each(batch, self._copy, first_index=first_index, source=source)
        made = self._made(samples=samples, rejects=rejects)
        self.num_ahead = int(made.num_bytes() <= _MOST_AHEAD)
        return self._thread.submit(made.prepared).result if self.num_ahead else lambda: made

    def _copy(self, record: Sample, prepared: list[np.ndarray], index: int) -> Written:
        names = [member.extension for member in record.members]
        made = self._form(record, index, dict(zip(names, map(bytes, prepared), strict=True)))
        return dataclasses.replace(made, is_fixed=record.is_fixed) if record.is_fixed else made


def _form(config: CopyConfig) -> str:
    return config.columns if config.format == "hf" else config.format


@dataclass(frozen=True, kw_only=True, eq=False)
class Copied:
    """Samples that are copied, and the rejects between them."""

    samples: Sequence[Written]
    rejects: Sequence[RejectRow] = ()
    content: int | None = None
    """The content digest, once it was taken."""

    def num_bytes(self) -> int:
        return sum(len(sample.data) + sum(len(data) for _, data in sample.files) for sample in self.samples)

    def prepared(self) -> Copied:
        """The same, with what takes long."""
        return dataclasses.replace(self, content=self._content())

    def counts(self) -> Counts:
        return count_batch(
            len(self.samples),
            self.rejects,
            images=sum(sample.num_pictures for sample in self.samples),
            fixed_placeholders=sum(sample.is_fixed for sample in self.samples),
        )

    def written(self) -> Sequence[tuple[int, str]]:
        return [(sample.index, sample.key) for sample in self.samples]

    def only(self, indices: Container[int]) -> Copied:
        return type(self)(samples=[sample for sample in self.samples if sample.index in indices])

    def lay_out(self, schema: Schema, before: Before) -> Laid:
        (stream,) = schema.streams
        sizes = np.array([len(sample.data) for sample in self.samples], "<i8")
        places = {
            "samples/first_byte.memmap": np.cumsum(sizes) - sizes + before.stream_bytes[stream.path],
            "samples/num_bytes.memmap": sizes,
        }
        return Laid(
            columns={**self._common(before), **places},
            content=self._content(),
            streams={stream.path: [sample.data for sample in self.samples]},
            files=[file for sample in self.samples for file in sample.files],
        )

    def _common(self, before: Before) -> dict[str, np.ndarray]:
        """The columns of every form: index and key."""
        keys = [sample.key.encode() for sample in self.samples]
        key_sizes = np.array([len(key) for key in keys], "<i8")
        return {
            "samples/index.memmap": np.array([sample.index for sample in self.samples], "<i8"),
            "samples/first_key.memmap": np.cumsum(key_sizes) - key_sizes + before.rows["keys"],
            "keys/bytes.memmap": np.frombuffer(b"".join(keys), "u1"),
        }

    def _content(self) -> int:
        return digest.add(*(sample.content() for sample in self.samples)) if self.content is None else self.content


@dataclass(frozen=True, kw_only=True, eq=False)
class CopiedRows(Copied):
    """The same as rows of an Arrow stream."""

    columns: ClassVar[str] = "pairs"
    bodies: Sequence[memoryview] | None = None
    """The rows in the form of the stream, once they were laid out."""

    def prepared(self) -> Copied:
        return dataclasses.replace(self, content=self._content(), bodies=self._bodies())

    def lay_out(self, schema: Schema, before: Before) -> Laid:
        (stream,) = schema.streams
        data: list[bytes | memoryview] = [*self._bodies()]
        if data and not before.stream_bytes[stream.path]:
            data.insert(0, head(self.columns))
        return Laid(columns=self._common(before), content=self._content(), streams={stream.path: data})

    def _bodies(self) -> Sequence[memoryview]:
        if self.bodies is not None:
            return self.bodies
        return bodies(self.columns, [sample for sample in self.samples if isinstance(sample, WrittenRow)])


class CopiedRecords(CopiedRows):
    columns: ClassVar[str] = "records"


_FORMS: dict[str, tuple[Callable[[Sample, int, Mapping[str, bytes]], Written], type[Copied]]] = {
    "webdataset": (as_tar, Copied),
    "jsonl": (as_json_line, Copied),
    "pairs": (as_pair, CopiedRows),
    "records": (as_record, CopiedRecords),
}
