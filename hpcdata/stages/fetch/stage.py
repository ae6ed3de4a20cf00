"""What a run asks of the stage `fetch`: settings, schema, making, checking."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpcdata.base.errors import UserError
from hpcdata.config.schema import RunConfig
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan
from hpcdata.samples import Record
from hpcdata.shards.schema import Schema
from hpcdata.sources import InputFile, Options
from hpcdata.stages.copy.stage import Copy, schema_of

if TYPE_CHECKING:
    import numpy as np

    from hpcdata.stages.fetch.making import Making

_KEYS = (
    *("stage", "data.source", "data.text_field", "data.n_train_samples", "data.shard_size"),
    "data.max_record_bytes",
)
_BATCHES, _IN_WORK = 16, 16
"""Records of a batch where none are said, and records that are in work for each connection."""
_BYTES_A_PICTURE, _FILES_A_SHARD = 200_000, 18


class Fetch(Copy):
    """What it writes is what `copy` writes, and is checked as that."""

    def settle(self, config: RunConfig) -> RunConfig:
        """Rows of tables, and enough of them in work for all connections."""
        _check(config)
        data, loader = config.data, config.loader
        if data.source == "auto":
            data = dataclasses.replace(data, source="urls")
        size = _BATCHES if loader.batch_size == "auto" else loader.batch_size
        loader = dataclasses.replace(
            loader,
            batch_size=size,
            batches_ahead=max(loader.batches_ahead, -(-_IN_WORK * config.fetch.connections // max(1, size))),
        )
        return dataclasses.replace(config, data=data, loader=loader)

    def settings(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        keys = (*_KEYS, "data.max_image_pixels", "data.max_aspect") if fields["fetch.decode"] else _KEYS
        return {name: value for name, value in fields.items() if name in keys or name.startswith("fetch.")}

    def options(self, config: RunConfig) -> Options:
        return Options(
            max_record_bytes=config.data.max_record_bytes,
            text_field=config.data.text_field,
            url_field=config.fetch.url_field,
            needs_image=False,
            needs_text=False,
            keeps_members=True,
            is_of_urls=True,
        )

    def check_inputs(self, config: RunConfig, inputs: Sequence[InputFile]) -> None:
        """Raises UserError for inputs that hold no rows."""
        for file in inputs:
            if not file.format.startswith(("urls", "jsonl", "array")):
                raise UserError(f"{file.path} ({file.format}) holds no rows with URLs, which stage=fetch reads")

    def contents(self, plan: Plan, name: str) -> Schema:
        return schema_of(plan.config.fetch.format, name)

    def predict(self, plan: Plan) -> tuple[int, int]:
        own = plan.config.data.shard_size if plan.config.fetch.format == "jsonl" else 0
        return plan.num_samples * _BYTES_A_PICTURE, _FILES_A_SHARD + own

    def preparing(self, plan: Plan) -> Callable[[Record], list[np.ndarray]]:
        from hpcdata.stages.fetch.fetching import Fetcher

        return Fetcher(plan)

    def open(self, plan: Plan, paths: RunPaths, runtime: RunConfig) -> Making:  # type: ignore[override]
        from hpcdata.stages.fetch.making import Making

        return Making(plan)


def _check(config: RunConfig) -> None:
    fetch = config.fetch
    positive = {
        "fetch.max_bytes": fetch.max_bytes,
        "fetch.connections": fetch.connections,
        "fetch.host_rate": fetch.host_rate,
        "fetch.host_connections": fetch.host_connections,
        "fetch.timeout_s": fetch.timeout_s,
        "fetch.tries": fetch.tries,
    }
    for name, value in positive.items():
        if value is not None and value <= 0:
            raise UserError(f"{name}={value}: expected a number above 0")
    if fetch.contact and not (fetch.contact.isascii() and fetch.contact.isprintable()):
        raise UserError(f"fetch.contact={fetch.contact!a}: expected a mail address or a URL in ASCII")


STAGE = Fetch()
