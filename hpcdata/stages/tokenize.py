"""The stage `tokenize`: texts and pictures become ids and codes, as rows of the example tables."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcdata.base import digest
from hpcdata.base.errors import UserError
from hpcdata.config.schema import DataConfig, RunConfig
from hpcdata.media import sizes
from hpcdata.runs.identities import TextIdentity
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan
from hpcdata.runs.stage import Checked, Identities
from hpcdata.samples import BadSample, Batch, Kind, Record, Sample, TextPart
from hpcdata.shards.columns import RAW_TEXTS, columns, id_dtype_for
from hpcdata.shards.counts import Counts
from hpcdata.shards.made import Made
from hpcdata.shards.schema import Schema
from hpcdata.shards.shard import SHARD, ShardSummary
from hpcdata.sources import InputFile, Options, carries_images, gives_documents

if TYPE_CHECKING:
    import numpy as np

    from hpcdata.encoders.text.tokenizer import TextTokenizer

NONE = "none"
"""Value of text.tokenizer or image.tokenizer that leaves this kind of data out on purpose."""
ROWS_AT_ONCE = 65536
_GROUPS = ("stage", "data.", "text.", "image.", "model.", "loader.")
_BYTES_A_TOKEN_OF_TEXT = 4
_TOKENS_A_TEXT = 256
_OTHER_BYTES_A_SAMPLE = 120
"""Keys, spans, offsets and digests."""
_OTHER_FILES_A_SHARD = 16
"""Folders, metadata and the ledger of rejects, also in the dataset."""


class Tokenize:
    def settle(self, config: RunConfig) -> RunConfig:
        if not config.data.use_chameleon:
            return config
        if config.image.tokenizer in (None, NONE):
            raise UserError("data.use_chameleon=true without an image tokenizer: add +experiments='[...,vq16_t2i]'")
        return dataclasses.replace(config, image=dataclasses.replace(config.image, tokenizer="chameleon"))

    def settings(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if name.startswith(_GROUPS)}

    def identify(self, config: RunConfig) -> Identities:
        from hpcdata.encoders.image import tokenizer as image
        from hpcdata.encoders.text import tokenizer as text

        if config.text.tokenizer is None:
            raise UserError(
                "text.tokenizer is required: a tokenizer.json, a SentencePiece .model, a local HF folder, `embedded`, "
                "or `none` for images alone; or set HPCDATA_TEXT_TOKENIZER"
            )
        data, tokenizer, codec = config.data, None, None
        if config.text.tokenizer != NONE:
            tokenizer = text.identify(
                config.text.tokenizer,
                add_image_token=data.add_image_token,
                use_slow_tokenizer=data.use_slow_tokenizer,
                image_token_id=data.image_token_id,
                pad_id=data.pad_id,
            )
        if config.image.tokenizer not in (None, NONE):
            codec = image.identify(config.image)
            for side, key in _sides(data):
                image.grid_side(codec, side, key)
        if tokenizer is None and codec is None and not config.text.keep_raw:
            raise UserError(
                "text.tokenizer=none and no image.tokenizer: nothing would be encoded; text.keep_raw=true keeps texts"
            )
        _check_vocabulary(tokenizer, config.model.text_vocab_size, data.img_token_shift)
        return Identities(text=tokenizer, image=codec)

    def options(self, config: RunConfig) -> Options:
        return Options(
            max_record_bytes=config.data.max_record_bytes,
            text_field=config.data.text_field,
            image_field=config.data.image_field,
            needs_image=config.image.tokenizer not in (None, NONE),
            needs_text=config.text.tokenizer != NONE or config.text.keep_raw,
            keep_image_marker=config.data.add_image_token,
            placeholders=config.data.placeholders,
            mapping=config.data.mapped_by or "",
        )

    def check_inputs(self, config: RunConfig, inputs: Sequence[InputFile]) -> None:
        found = next((item for item in inputs if carries_images(item.format)), None)
        if found is not None and config.image.tokenizer is None:
            from hpcdata.encoders.image.presets import preset_names

            raise UserError(
                f"{found.label} ({found.format}) holds images but image.tokenizer is not set: "
                f"choose one of {', '.join(preset_names())}, or image.tokenizer=none to leave images out"
            )

    def contents(self, plan: Plan, name: str) -> Schema | None:
        if not plan.config.text.keep_raw:
            return None
        return Schema(columns=(*columns(id_dtype_for(plan.vocab_size)), *RAW_TEXTS))

    def predict(self, plan: Plan) -> tuple[int, int]:
        item_size = 4 if plan.id_dtype == "int32" else 2
        codes = 0
        if plan.image:
            codes = max(prod(side // plan.image.downsample for side in size) for size in _sizes(plan.config.data))
        texts = 0.0
        if plan.text:
            longest = plan.config.data.block_size or _TOKENS_A_TEXT
            raw = sum(source.size for source in plan.inputs) / _BYTES_A_TOKEN_OF_TEXT
            texts = min(raw, float(longest * plan.num_samples)) if plan.image else raw
        total = plan.num_samples * (codes * item_size + _OTHER_BYTES_A_SAMPLE) + texts * item_size
        num_columns = len(columns(plan.id_dtype))
        if plan.config.text.keep_raw:
            raw = sum(source.size for source in plan.inputs)
            longest = _TOKENS_A_TEXT * _BYTES_A_TOKEN_OF_TEXT * plan.num_samples
            total += (min(raw, longest) if plan.image else raw) + plan.num_samples * _OTHER_BYTES_A_SAMPLE
            num_columns += len(RAW_TEXTS)
        return round(total), num_columns + _OTHER_FILES_A_SHARD

    def preparing(self, plan: Plan) -> Callable[[Record], list[np.ndarray]] | None:
        from hpcdata.encoders.examples import PixelOptions, load_images

        options = PixelOptions.of(plan)
        return None if options is None else lambda record: load_images(record, options)

    def rehearsal(self, plan: Plan, runtime: RunConfig) -> Callable[[Record], None] | None:
        from hpcdata.encoders.building import build_text

        tokenizer = build_text(plan, runtime)
        return None if tokenizer is None else lambda record: _try_texts(record, tokenizer)

    def takes_documents(self, plan: Plan, format_name: str) -> bool:
        has_texts = plan.text is not None or plan.config.text.keep_raw
        return has_texts and plan.image is None and gives_documents(format_name)

    def open(self, plan: Plan, paths: RunPaths, runtime: RunConfig) -> Encoding:
        return Encoding(plan, paths, runtime)

    def check(self, folder: Path, summary: ShardSummary) -> Checked:
        import numpy as np

        from hpcdata.shards.stored import read_columns, sum_columns

        arrays = read_columns(folder, summary.header.schema, summary.sizes)
        total, num_samples = 0, summary.sizes["samples"]
        for start in range(0, num_samples, ROWS_AT_ONCE):
            total = digest.add(total, sum_columns(arrays, start, min(start + ROWS_AT_ONCE, num_samples)))
        written = np.asarray(arrays["samples/index.memmap"])
        return Checked(content=total, written=written, problems=_miscounted(arrays, summary.counts))

    def compare(self, made: Made, index: int, folder: Path, row: int) -> str:
        from hpcdata.shards.stored import compare, read_example
        from hpcdata.shards.tables import EncodedBatch

        assert isinstance(made, EncodedBatch)
        again = next(example for example in made.examples if example.index == index)
        return compare(read_example(folder, row), again)


def _miscounted(arrays: Mapping[str, np.ndarray], counts: Counts) -> list[str]:
    """Where the account of a shard is not what its spans say."""
    kinds, lengths = arrays["spans/kind.memmap"], arrays["spans/length.memmap"]
    found = dict.fromkeys(("text_tokens", "image_tokens", "images"), 0)
    for start in range(0, len(kinds), ROWS_AT_ONCE):
        some = kinds[start : start + ROWS_AT_ONCE], lengths[start : start + ROWS_AT_ONCE]
        found["text_tokens"] += int(some[1][some[0] == Kind.TEXT].sum(dtype=int))
        found["image_tokens"] += int(some[1][some[0] == Kind.IMAGE].sum(dtype=int))
        found["images"] += int((some[0] == Kind.IMAGE).sum())
    said = vars(counts)
    return [
        f"{number} {name.replace('_', ' ')}, {SHARD} says {said[name]}"
        for name, number in found.items()
        if number != said[name]
    ]


class Encoding:
    """The tokenizers of a run in one process."""

    def __init__(self, plan: Plan, paths: RunPaths, runtime: RunConfig) -> None:
        from hpcdata.encoders import batching, building

        self.plan = batching.settle(plan, paths, runtime)
        tokenizers = building.build(self.plan, runtime)
        self._encoder, self.device = tokenizers.encoder(self.plan), tokenizers.device
        self.num_ahead = 1 if self.device.startswith("cuda") else 0

    def start(self, batch: Batch, *, first_index: int, source: str) -> Callable[[], Made]:
        return self._encoder.start(batch, first_index=first_index, source=source)


STAGE = Tokenize()


def _sides(data: DataConfig) -> list[tuple[int, str]]:
    """Sides of pictures, and the key that says each. Raises UserError."""
    key = "data.resolution" if data.sizes is None else "data.sizes"
    return [(side, key) for size in _sizes(data) for side in size]


def _sizes(data: DataConfig) -> Sequence[tuple[int, int]]:
    if data.sizes is None:
        return [(data.resolution, data.resolution)]
    try:
        return sizes.named(data.sizes)
    except ValueError as error:
        raise UserError(f"data.sizes={data.sizes}: {error}") from None


def _check_vocabulary(tokenizer: TextIdentity | None, reserved: int | None, shift: int | None) -> None:
    if tokenizer is None:
        return
    for name, value in (("model.text_vocab_size", reserved), ("data.img_token_shift", shift)):
        if value is not None and value < tokenizer.vocab_size:
            raise UserError(
                f"{name}={value} is below the {tokenizer.vocab_size} ids of the text tokenizer: image codes would "
                f"collide with text, use {name}={tokenizer.vocab_size} or another tokenizer"
            )
    if reserved is not None and shift is not None and shift < reserved:
        raise UserError(
            f"data.img_token_shift={shift} is below model.text_vocab_size={reserved}: image codes would collide "
            f"with text, use data.img_token_shift={reserved}"
        )


def _try_texts(record: Record, tokenizer: TextTokenizer) -> None:
    """Texts that are not allowed are rejected with all others; only a death matters here."""
    from hpcdata.encoders.text import panics
    from hpcdata.encoders.text.tokenizer import check_text

    if not isinstance(record, Sample):
        return
    with contextlib.suppress(BadSample):
        texts = [part.text for part in record.parts if isinstance(part, TextPart)]
        for value in texts:
            check_text(value)
        if texts:
            panics.encode(tokenizer, texts)
