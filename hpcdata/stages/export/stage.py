"""What a run asks of the stage `export`: settings, schema, making, checking, arranging."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcdata.base import digest
from hpcdata.base.errors import UserError
from hpcdata.config.schema import DataConfig, RunConfig
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan
from hpcdata.runs.stage import Checked, Identities
from hpcdata.shards.made import Made
from hpcdata.shards.schema import RECORDS, Column, Schema, Stream
from hpcdata.shards.shard import ShardSummary
from hpcdata.sources import InputFile, Options

if TYPE_CHECKING:
    from hpcdata.dataset.manifest import Manifest
    from hpcdata.formats.arranging import Building
    from hpcdata.formats.target import Target
    from hpcdata.shards.counts import Counts
    from hpcdata.stages.export.making import Exporting

_KEYS = ("stage", "data.source", "data.n_train_samples", "data.shard_size", "loader.batch_size")
_INDEX = Column(table="samples", name="index", dtype="int64")
_SHARD_BYTES, _MOST_ROWS, _MOST_IN_BATCH = 2**30, 2**24, 2**16
_BYTES_A_SAMPLE, _FILES_A_SHARD = 64, 24


class Export:
    def settle(self, config: RunConfig) -> RunConfig:
        """With the dataset as the one input, what its format says, and batches and shards of a useful size."""
        from hpcdata.formats.tokens import find_format
        from hpcdata.formats.tokens.settling import settled

        path, manifest = self._dataset(config)
        export = settled(config.export, manifest)
        found = find_format(export.format)
        a_row = max(1.0, found.bytes_a_row(export, manifest))
        at_once = min(export.file_bytes, found.piece_bytes or export.file_bytes)
        batch_size = min(max(1, int(at_once / a_row)), _MOST_IN_BATCH, manifest.num_samples)
        shard_size = config.data.shard_size
        if shard_size == DataConfig.shard_size:
            shard_size = batch_size * max(1, min(int(_SHARD_BYTES / a_row), _MOST_ROWS) // batch_size)
        if export.num_shards is not None:
            shard_size = -(-manifest.num_samples // export.num_shards)
        return dataclasses.replace(
            config,
            data=dataclasses.replace(config.data, raw_data_dir=str(path), source="dataset", shard_size=shard_size),
            export=export,
            loader=dataclasses.replace(config.loader, batch_size=batch_size),
            text=dataclasses.replace(config.text, tokenizer=None),
            image=dataclasses.replace(config.image, tokenizer=None),
        )

    def settings(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if name in _KEYS or name.startswith("export.")}

    def identify(self, config: RunConfig) -> Identities:
        if config.data.on_changed_input != "refuse":
            raise UserError("data.on_changed_input=reject: a dataset that has changed is not exported, leave it out")
        from hpcdata.formats.arranging import require_place
        from hpcdata.shards.counts import Counts

        _, manifest = self._dataset(config)
        require_place(_place(config), _target(config, manifest, _num_rows(config, manifest), Counts()))
        return Identities()

    def find(self, config: RunConfig) -> tuple[Path, Counts] | None:
        from hpcdata.formats.arranging import require_place
        from hpcdata.formats.target import is_target, read_target
        from hpcdata.shards.counts import Counts

        config = self.settle(config)
        _, manifest = self._dataset(config)
        out, target = _place(config), _target(config, manifest, _num_rows(config, manifest), Counts())
        require_place(out, target)
        if not is_target(out):
            return None
        found = read_target(out)
        return (out, found.counts) if found.source == target.source else None

    def options(self, config: RunConfig) -> Options:
        return Options(takes_rows=True)

    def check_inputs(self, config: RunConfig, inputs: Sequence[InputFile]) -> None:
        """There is one, which `settle` has read."""

    def contents(self, plan: Plan, name: str) -> Schema:
        from hpcdata.formats.tokens import find_format
        from hpcdata.formats.tokens.base import PIECES

        found = find_format(plan.config.export.format)
        streams = (Stream(path=f"{RECORDS}/{name}{found.ending}"),) if found.has_stream else ()
        return Schema(columns=(_INDEX, *PIECES, *found.columns), streams=streams, has_files=found.has_files)

    def predict(self, plan: Plan) -> tuple[int, int]:
        from hpcdata.formats.tokens import find_format

        export = plan.config.export
        _, manifest = self._dataset(plan.config)
        size = plan.num_samples * (find_format(export.format).bytes_a_row(export, manifest) + _BYTES_A_SAMPLE)
        return math.ceil(size), _FILES_A_SHARD + plan.config.data.shard_size // plan.batch_size

    def preparing(self, plan: Plan) -> None:
        return None

    def rehearsal(self, plan: Plan, runtime: RunConfig) -> None:
        return None

    def takes_documents(self, plan: Plan, format_name: str) -> bool:
        return True

    def open(self, plan: Plan, paths: RunPaths, runtime: RunConfig) -> Exporting:
        from hpcdata.dataset.dataset import TokenDataset
        from hpcdata.formats.tokens import find_format
        from hpcdata.formats.tokens.base import Context, whole_of
        from hpcdata.formats.tokens.rows import Order
        from hpcdata.stages.export.making import Exporting

        export = plan.config.export
        found, dataset = find_format(export.format), TokenDataset(self._planned(plan))
        context = Context(
            dataset=dataset,
            export=export,
            num_rows=plan.num_samples,
            shard_size=plan.config.data.shard_size,
            batch_size=plan.batch_size,
            whole=whole_of(paths.root, plan.fingerprint),
        )
        order = Order(dataset=dataset, seed=export.shuffle_seed)
        writes_itself = not (found.has_stream or found.has_files)
        return Exporting(plan, order, found.open(context), found.ending, writes_itself=writes_itself)

    def check(self, folder: Path, summary: ShardSummary) -> Checked:
        from hpcdata.stages.export.making import content_of
        from hpcdata.stages.export.stored import Stored

        stored = Stored(folder, summary)
        content = digest.add(*(content_of(sha256) for sha256 in stored.digests()))
        return Checked(content=content, written=stored.index, problems=stored.problems())

    def compare(self, made: Made, index: int, folder: Path, row: int) -> str:
        from hpcdata.stages.export.making import Exported
        from hpcdata.stages.export.stored import Stored

        assert isinstance(made, Exported)
        place, number = made.written_place(index), 0
        for piece in made.pieces:
            number += piece.num_rows
            if place < number:
                return "" if piece.sha256 == Stored(folder).sha256_of_row(row) else "its piece has other bytes"
        return "it is in no piece"

    def arrange(self, plan: Plan, runtime: RunConfig, dataset: Path) -> Path:
        from hpcdata.dataset.manifest import read_manifest
        from hpcdata.formats.arranging import arrange
        from hpcdata.formats.origins import origins_of
        from hpcdata.formats.tokens import find_format
        from hpcdata.stages.export.stored import exported_parts, write_rejects

        export, run, out = plan.config.export, Path(runtime.data.token_output_dir), _place(runtime)
        source, made = self._planned(plan), read_manifest(dataset)
        parts = exported_parts(dataset, run, list(made.parts.path))
        target, found = _target(plan.config, source, plan.num_samples, made.counts), find_format(export.format)
        target = dataclasses.replace(target, origins=origins_of(source))

        def fill(building: Building) -> Mapping[str, Any]:
            if made.counts.rejected.total():
                write_rejects(building, parts)
            return found.arrange(export, source, parts, building)

        arrange(out, target, fill)
        return out

    def _planned(self, plan: Plan) -> Manifest:
        """The dataset of a plan. Raises UserError when it is another one by now."""
        from hpcdata.formats.tokens.settling import digest_of

        path, manifest = self._dataset(plan.config)
        if digest_of(manifest) != plan.config.export.source:
            raise UserError(
                f"{path.parent} is another dataset than the one that was planned: restore it, or export again"
            )
        return manifest

    def _dataset(self, config: RunConfig) -> tuple[Path, Manifest]:
        """(its manifest.json, the manifest). Raises UserError."""
        from hpcdata.dataset.manifest import FILE_NAME, read_manifest

        given = config.data.raw_data_dir
        if not isinstance(given, str):
            raise UserError("data.raw_data_dir: stage=export takes one dataset")
        path = Path(given).absolute()
        manifest = read_manifest(path.parent if path.name == FILE_NAME else path)
        return manifest.folder / FILE_NAME, manifest


def _place(config: RunConfig) -> Path:
    """Where the target goes."""
    return Path(config.export.out or Path(config.data.token_output_dir) / "export").absolute()


def _num_rows(config: RunConfig, manifest: Manifest) -> int:
    most = config.data.n_train_samples
    return manifest.num_samples if most is None else min(most, manifest.num_samples)


def _target(config: RunConfig, source: Manifest, num_rows: int, counts: Counts) -> Target:
    from hpcdata.formats.target import Source, Target

    export = config.export
    options = {name: value for name, value in vars(export).items() if name not in ("format", "out")}
    return Target(
        format=str(export.format), options={**options, "rows": num_rows}, source=Source.of(source), counts=counts
    )


STAGE = Export()
