"""What a run asks of the stage `measure`: settings, schema, making, checking."""

from __future__ import annotations

import dataclasses
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
from hpcdata.shards.schema import Schema
from hpcdata.shards.shard import ShardSummary
from hpcdata.sources import InputFile, Options

if TYPE_CHECKING:
    import numpy as np

    from hpcdata.multimodal.preprocessor import MolmoPreprocessor
    from hpcdata.stages.measure.making import Measuring

_KEYS = (
    *("stage", "data.source", "data.text_field", "data.image_field", "data.n_train_samples", "data.shard_size"),
    *("data.max_record_bytes", "data.max_image_pixels", "data.outside_images", "data.placeholders", "data.seed"),
    *("data.mapped_by", "data.tasks", "data.coordinates"),
)
_BYTES_A_SAMPLE, _FILES_A_SHARD = 256, 20
_OURS = ("tokenizer", "max_pixels")
"""Settings of a preprocessor that a run says otherwise: `text.tokenizer`, `data.max_image_pixels`."""


class MeasureStage:
    def settle(self, config: RunConfig) -> RunConfig:
        """With `measure.written_by`, a digest of all that lengths of texts depend on. Nothing is encoded."""
        measure = dataclasses.replace(config.measure, written_by=preprocessor(config).written_by)
        return dataclasses.replace(config, measure=measure, image=dataclasses.replace(config.image, tokenizer=None))

    def settings(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if name in _KEYS or name.startswith("measure.")}

    def identify(self, config: RunConfig) -> Identities:
        from hpcdata.encoders.text import tokenizer as text

        assert config.text.tokenizer is not None  # or `settle` has refused it
        return Identities(text=text.identify(config.text.tokenizer, add_image_token=False, use_slow_tokenizer=False))

    def options(self, config: RunConfig) -> Options:
        from hpcdata.multimodal.datasets.examples import options_for

        data = config.data
        return options_for(
            max_record_bytes=data.max_record_bytes,
            text_field=data.text_field,
            image_field=data.image_field,
            placeholders=data.placeholders,
            mapping=data.mapped_by or "",
        )

    def check_inputs(self, config: RunConfig, inputs: Sequence[InputFile]) -> None:
        """All inputs can be measured."""

    def contents(self, plan: Plan, name: str) -> Schema:
        from hpcdata.multimodal.datasets.columns import SCHEMA

        return SCHEMA

    def predict(self, plan: Plan) -> tuple[int, int]:
        return plan.num_samples * _BYTES_A_SAMPLE, _FILES_A_SHARD

    def preparing(self, plan: Plan) -> Callable[[Record], list[np.ndarray]]:
        from hpcdata.stages.measure.making import Limits, read_sizes

        data = plan.config.data
        rule = plan.config.measure.preprocessor.get("image_rule", "molmo")
        limits = Limits(max_bytes=data.max_record_bytes, max_pixels=data.max_image_pixels, rule=str(rule))
        return partial(read_sizes, limits=limits)

    def rehearsal(self, plan: Plan, runtime: RunConfig) -> Callable[[Record], None]:
        from hpcdata.stages.measure.making import try_texts

        return partial(try_texts, preprocessor=self._built(plan, runtime))

    def takes_documents(self, plan: Plan, format_name: str) -> bool:
        return False

    def open(self, plan: Plan, paths: RunPaths, runtime: RunConfig) -> Measuring:
        from hpcdata.stages.measure.making import Measuring

        return Measuring(plan, self._built(plan, runtime))

    def _built(self, plan: Plan, runtime: RunConfig) -> MolmoPreprocessor:
        made = preprocessor(dataclasses.replace(plan.config, text=runtime.text))
        if made.written_by != plan.config.measure.written_by:
            raise UserError(
                f"text.tokenizer={runtime.text.tokenizer}, its chat template or templates are not those that this run "
                "was planned with: restore them, or use a new data.token_output_dir"
            )
        return made

    def check(self, folder: Path, summary: ShardSummary) -> Checked:
        import numpy as np

        from hpcdata.multimodal.datasets.columns import stored_content
        from hpcdata.shards.stored import read_columns

        columns = read_columns(folder, summary.header.schema, summary.sizes)
        rows = range(summary.sizes["samples"])
        total = digest.add(*(stored_content(columns, row) for row in rows))
        return Checked(content=total, written=np.asarray(columns["samples/index.memmap"]))

    def compare(self, made: Made, index: int, folder: Path, row: int) -> str:
        from hpcdata.stages.measure.making import MadeMeasures, stored

        assert isinstance(made, MadeMeasures)
        again, was = next(item for item in made.samples if item.index == index), stored(folder, row)
        differing = [name for name in ("key", "seek", "measure") if getattr(again, name) != getattr(was, name)]
        if not differing:
            return ""
        name = differing[0]
        return f"its {name} is stored as {getattr(was, name)}, and is {getattr(again, name)} now"


def preprocessor(config: RunConfig) -> MolmoPreprocessor:
    """What measures: its settings are `measure.preprocessor`. Raises UserError."""
    from hpcdata.multimodal.config import MolmoPreprocessorConfig

    if config.text.tokenizer in (None, "none"):
        raise UserError(
            "text.tokenizer is required: measure counts its ids; a tokenizer.json, a SentencePiece .model, a local HF "
            "folder, or `embedded`; or set HPCDATA_TEXT_TOKENIZER"
        )
    given = dict(config.measure.preprocessor)
    if ours := [name for name in _OURS if name in given]:
        raise UserError(f"measure.preprocessor has {ours[0]}: set text.tokenizer, data.max_image_pixels instead")
    made = MolmoPreprocessorConfig(**given, max_pixels=config.data.max_image_pixels)
    return made.build_preprocessor(config.text.tokenizer)


STAGE = MeasureStage()
