"""What a run asks of the stage `convert`: settings, schema, making, checking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcdata.base import digest
from hpcdata.base.errors import UserError
from hpcdata.config.schema import RunConfig
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan
from hpcdata.runs.stage import Checked, Identities
from hpcdata.samples import Record
from hpcdata.shards.made import Made
from hpcdata.shards.schema import RECORDS, Column, Schema, Stream
from hpcdata.shards.shard import ShardSummary
from hpcdata.sources import InputFile, Options
from hpcdata.sources.base import RECORDS as TABLES

if TYPE_CHECKING:
    import numpy as np

    from hpcdata.stages.convert.making import Converting

_KEYS = (
    *("stage", "data.source", "data.n_train_samples", "data.shard_size", "data.max_record_bytes"),
    *("data.max_image_pixels", "data.outside_images", "data.placeholders"),
)
_TAKEN = ("hpcdata.json", "names.csv", "hpcdata.files.jsonl")
"""Names of other files of the folder."""
_OTHER_BYTES_A_SAMPLE, _FILES_A_SHARD = 2048, 22
_COLUMNS = (
    Column(table="samples", name="index", dtype="int64"),
    Column(table="samples", name="name", dtype="int64"),
    Column(table="samples", name="num_pictures", dtype="uint16"),
    Column(table="samples", name="notes", dtype="uint8"),
    Column(table="samples", name="first_byte", dtype="int64"),
    Column(table="samples", name="num_bytes", dtype="int64"),
    Column(table="samples", name="first_key", dtype="int64"),
    Column(table="samples", name="first_stem", dtype="int64"),
    Column(table="keys", name="bytes", dtype="uint8"),
    Column(table="stems", name="bytes", dtype="uint8"),
)


def _require_json_name(name: str | None) -> None:
    if name is None:
        return
    if "/" in name or name.startswith(".") or not name.endswith((".json", ".jsonl")) or name in _TAKEN:
        raise UserError(f"convert.json_name={name}: expected a name of a file that ends in .json or .jsonl, no path")


class Convert:
    def settle(self, config: RunConfig) -> RunConfig:
        prefix, probability = config.convert.image_prefix, config.convert.prompt_probability
        _require_json_name(config.convert.json_name)
        if prefix and not prefix.endswith("/"):
            raise UserError(f"convert.image_prefix={prefix}: expected a folder with a slash at its end, or nothing")
        if not 0 <= probability <= 1:
            raise UserError(f"convert.prompt_probability={probability}: expected a number from 0 to 1")
        if config.data.mapping:
            raise UserError(
                "data.mapping has no meaning for stage=convert, whose tables have conversations: other records "
                "are copied by it (stage=copy copy.format=jsonl), then hpcdata export --format llava"
            )
        prompts = config.convert.prompt
        if prompts is not None and not all(prompts if isinstance(prompts, list) and prompts else [prompts]):
            raise UserError("convert.prompt has an empty text: expected `recap`, a text, or a list of texts")
        return config

    def settings(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if name in _KEYS or name.startswith("convert.")}

    def identify(self, config: RunConfig) -> Identities:
        return Identities()

    def options(self, config: RunConfig) -> Options:
        return Options(
            max_record_bytes=config.data.max_record_bytes,
            needs_image=False,
            needs_text=False,
            keeps_members=True,
            notes_ids=True,
        )

    def check_inputs(self, config: RunConfig, inputs: Sequence[InputFile]) -> None:
        if others := [file for file in inputs if file.format != TABLES]:
            raise UserError(
                f"stage=convert reads Parquet with pictures or conversations, {others[0].path} is read as "
                f"{others[0].format}: name the Parquet files alone, or set data.source=parquet"
            )

    def contents(self, plan: Plan, name: str) -> Schema:
        return Schema(columns=_COLUMNS, streams=(Stream(path=f"{RECORDS}/{name}.jsonl"),), has_files=True)

    def predict(self, plan: Plan) -> tuple[int, int]:
        size = sum(source.size for source in plan.inputs) + plan.num_samples * _OTHER_BYTES_A_SAMPLE
        return size, _FILES_A_SHARD + plan.config.data.shard_size

    def preparing(self, plan: Plan) -> Callable[[Record], list[np.ndarray]]:
        from hpcdata.stages.convert.pictures import Rules, read_pieces

        data, convert = plan.config.data, plan.config.convert
        rules = Rules(
            max_bytes=data.max_record_bytes,
            max_pixels=data.max_image_pixels,
            decode=convert.decode,
            others=convert.others,
        )
        return partial(read_pieces, rules=rules)

    def rehearsal(self, plan: Plan, runtime: RunConfig) -> None:
        return None

    def takes_documents(self, plan: Plan, format_name: str) -> bool:
        return False

    def open(self, plan: Plan, paths: RunPaths, runtime: RunConfig) -> Converting:
        from hpcdata.stages.convert.making import Converting

        return Converting(plan)

    def check(self, folder: Path, summary: ShardSummary) -> Checked:
        from hpcdata.stages.convert.stored import Stored

        stored = Stored(folder, summary)
        samples = map(stored.sample, range(len(stored.index)))
        return Checked(content=digest.add(*(sample.content() for sample in samples)), written=stored.index)

    def compare(self, made: Made, index: int, folder: Path, row: int) -> str:
        from hpcdata.stages.convert.making import ConvertedBatch
        from hpcdata.stages.convert.stored import Stored

        assert isinstance(made, ConvertedBatch)
        again, stored = next(item for item in made.samples if item.index == index), Stored(folder).sample(row)
        names = ("key", "line", "stem", "notes", "files")
        differing = [name for name in names if getattr(again, name) != getattr(stored, name)]
        return f"its {differing[0]} differ from those that are made now" if differing else ""

    def arrange(self, plan: Plan, runtime: RunConfig, dataset: Path) -> Path:
        """The folder with the JSON and the pictures, see `hpcdata.formats.llava_folder`."""
        from hpcdata.dataset.manifest import read_manifest
        from hpcdata.formats.arranging import arrange
        from hpcdata.formats.llava_folder import FORMAT, LlavaFolder
        from hpcdata.formats.origins import origins_of
        from hpcdata.formats.target import Source, Target

        manifest = read_manifest(dataset)
        out = Path(runtime.convert.out or dataset.parent / "llava").absolute()
        folder = LlavaFolder(
            json_name=runtime.convert.json_name or f"{out.name}.json", image_prefix=plan.config.convert.image_prefix
        )
        target = Target(
            format=FORMAT,
            options=folder.options(),
            source=Source.of(manifest),
            counts=manifest.counts,
            origins=origins_of(manifest),
        )
        arrange(out, target, lambda building: folder.fill(building, manifest))
        return out


STAGE = Convert()
