"""What a run asks of the stage `copy`: settings, schema, making, checking."""

from __future__ import annotations

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
from hpcdata.shards.shard import ShardSummary
from hpcdata.sources import InputFile, Options

if TYPE_CHECKING:
    import numpy as np

    from hpcdata.stages.copy.making import Copying

_KEYS = (
    *("stage", "data.source", "data.text_field", "data.image_field", "data.n_train_samples", "data.shard_size"),
    "data.max_record_bytes",
    *("data.outside_images", "data.placeholders"),
)
_OTHER_BYTES_A_SAMPLE, _FILES_A_SHARD = 2048, 18
_COLUMNS = (
    Column(table="samples", name="index", dtype="int64"),
    Column(table="samples", name="first_byte", dtype="int64"),
    Column(table="samples", name="num_bytes", dtype="int64"),
    Column(table="samples", name="first_key", dtype="int64"),
    Column(table="keys", name="bytes", dtype="uint8"),
)


class Copy:
    def settle(self, config: RunConfig) -> RunConfig:
        return config

    def settings(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        keys = (*_KEYS, "data.max_image_pixels") if fields["copy.decode"] else _KEYS
        return {name: value for name, value in fields.items() if name in keys or name.startswith("copy.")}

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
        limits = Limits(max_bytes=data.max_record_bytes, max_pixels=data.max_image_pixels if decodes else None)
        return partial(read_members, limits=limits)

    def rehearsal(self, plan: Plan, runtime: RunConfig) -> None:
        return None

    def takes_documents(self, plan: Plan, format_name: str) -> bool:
        return False

    def open(self, plan: Plan, paths: RunPaths, runtime: RunConfig) -> Copying:
        from hpcdata.stages.copy.making import Copying

        return Copying(plan)

    def check(self, folder: Path, summary: ShardSummary) -> Checked:
        from hpcdata.stages.copy.stored import Stored

        stored = Stored(folder, summary)
        samples = map(stored.sample, range(len(stored.index)))
        return Checked(content=digest.add(*(sample.content() for sample in samples)), written=stored.index)

    def compare(self, made: Made, index: int, folder: Path, row: int) -> str:
        from hpcdata.stages.copy.making import Copied
        from hpcdata.stages.copy.stored import Stored

        assert isinstance(made, Copied)
        again, stored = next(item for item in made.samples if item.index == index), Stored(folder).sample(row)
        differing = [name for name in ("key", "data", "files") if getattr(again, name) != getattr(stored, name)]
        return f"its {differing[0]} differ from those that are made now" if differing else ""


def schema_of(format_name: str, name: str) -> Schema:
    """Of shard `name`: one tar, or lines with files beside them."""
    if format_name == "jsonl":
        return Schema(columns=_COLUMNS, streams=(Stream(path=f"{RECORDS}/{name}.jsonl"),), has_files=True)
    tar = Stream(path=f"{RECORDS}/{name}.tar", zeros_at_end=1024, multiple_of=10240)
    return Schema(columns=_COLUMNS, streams=(tar,))


STAGE = Copy()
