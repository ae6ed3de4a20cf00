"""What a run asks of the stage `copy`: settings, schema, making, checking."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcdata.base import digest
from hpcdata.config.schema import RunConfig
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan
from hpcdata.runs.stage import Checked, Identities
from hpcdata.samples import Record
from hpcdata.shards.made import Made
from hpcdata.shards.schema import RECORDS, Column, Schema, Stream
from hpcdata.shards.shard import ShardSummary, read_summary
from hpcdata.sources import InputFile, Options

if TYPE_CHECKING:
    import numpy as np

    from hpcdata.stages.copy.making import Copying

_KEYS = (
    *("stage", "data.source", "data.text_field", "data.image_field", "data.n_train_samples", "data.shard_size"),
    "data.max_record_bytes",
    *("data.outside_images", "data.placeholders", "data.seed", "data.mapped_by"),
    *("data.tasks", "data.coordinates"),
)
_BATCH_SIZE = 64
_OTHER_BYTES_A_SAMPLE, _FILES_A_SHARD = 2048, 18
_COLUMNS = (
    Column(table="samples", name="index", dtype="int64"),
    Column(table="samples", name="first_byte", dtype="int64"),
    Column(table="samples", name="num_bytes", dtype="int64"),
    Column(table="samples", name="first_key", dtype="int64"),
    Column(table="keys", name="bytes", dtype="uint8"),
)
_PLACES = ("samples/first_byte.memmap", "samples/num_bytes.memmap")
_OF_ROWS = tuple(column for column in _COLUMNS if column.path not in _PLACES)


class Copy:
    def settle(self, config: RunConfig) -> RunConfig:
        if config.copy.format == "hf" and config.loader.batch_size == "auto":  # there is nothing to be found
            return dataclasses.replace(config, loader=dataclasses.replace(config.loader, batch_size=_BATCH_SIZE))
        return config

    def settings(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        keys = (*_KEYS, "data.max_image_pixels", "data.max_aspect") if fields["copy.decode"] else _KEYS
        is_rows = fields["copy.format"] == "hf"
        keys = (*keys, "loader.batch_size") if is_rows else keys  # a batch is a batch of the stream
        found = {name: value for name, value in fields.items() if name in keys or name.startswith("copy.")}
        return {name: value for name, value in found.items() if is_rows or name != "copy.columns"}

    def identify(self, config: RunConfig) -> Identities:
        return Identities()

    def options(self, config: RunConfig) -> Options:
        return Options(
            max_record_bytes=config.data.max_record_bytes,
            text_field=config.data.text_field,
            image_field=config.data.image_field,
            needs_image=config.copy.needs in ("image", "both"),
            needs_text=config.copy.needs in ("text", "both"),
            keeps_members=True,
            placeholders=config.data.placeholders,
            mapping=config.data.mapped_by or "",
        )

    def check_inputs(self, config: RunConfig, inputs: Sequence[InputFile]) -> None:
        """All inputs can be copied."""

    def contents(self, plan: Plan, name: str) -> Schema:
        return schema_of(plan.config.copy.format, name)

    def predict(self, plan: Plan) -> tuple[int, int]:
        size = sum(source.size for source in plan.inputs) + plan.num_samples * _OTHER_BYTES_A_SAMPLE
        own = plan.config.data.shard_size if plan.config.copy.format == "jsonl" else 0
        return size, _FILES_A_SHARD + own

    def preparing(self, plan: Plan) -> Callable[[Record], list[np.ndarray]]:
        from hpcdata.stages.copy.members import Limits, read_members

        data, decodes = plan.config.data, plan.config.copy.decode
        limits = Limits(
            max_bytes=data.max_record_bytes,
            max_pixels=data.max_image_pixels if decodes else None,
            max_aspect=data.max_aspect,
        )
        return partial(read_members, limits=limits)

    def rehearsal(self, plan: Plan, runtime: RunConfig) -> None:
        return None

    def takes_documents(self, plan: Plan, format_name: str) -> bool:
        return False

    def open(self, plan: Plan, paths: RunPaths, runtime: RunConfig) -> Copying:
        from hpcdata.stages.copy.making import Copying

        return Copying(plan)

    def check(self, folder: Path, summary: ShardSummary) -> Checked:
        if _is_of_rows(summary):
            from hpcdata.stages.copy.rows import StoredRows

            rows = StoredRows(folder, summary)
            return Checked(content=digest.add(*(sample.content() for sample in rows.samples())), written=rows.index)
        from hpcdata.stages.copy.stored import Stored

        stored = Stored(folder, summary)
        samples = map(stored.sample, range(len(stored.index)))
        return Checked(content=digest.add(*(sample.content() for sample in samples)), written=stored.index)

    def compare(self, made: Made, index: int, folder: Path, row: int) -> str:
        from hpcdata.stages.copy.making import Copied
        from hpcdata.stages.copy.rows import StoredRows
        from hpcdata.stages.copy.stored import Stored

        assert isinstance(made, Copied)
        kept = StoredRows(folder) if _is_of_rows(read_summary(folder)) else Stored(folder)
        again, stored = next(item for item in made.samples if item.index == index), kept.sample(row)
        differing = [name for name in ("key", "data", "files") if getattr(again, name) != getattr(stored, name)]
        return f"its {differing[0]} differ from those that are made now" if differing else ""


def schema_of(format_name: str, name: str) -> Schema:
    """Of shard `name`: one tar, lines with files beside them, or rows."""
    if format_name == "jsonl":
        return Schema(columns=_COLUMNS, streams=(Stream(path=f"{RECORDS}/{name}.jsonl"),), has_files=True)
    if format_name == "hf":
        return Schema(columns=_OF_ROWS, streams=(Stream(path=f"{RECORDS}/{name}.arrow"),))
    tar = Stream(path=f"{RECORDS}/{name}.tar", zeros_at_end=1024, multiple_of=10240)
    return Schema(columns=_COLUMNS, streams=(tar,))


def _is_of_rows(summary: ShardSummary) -> bool:
    return summary.header.schema.streams[0].path.endswith(".arrow")


STAGE = Copy()
