"""Exports of copied records, also of those in another form: one more `stage=copy`, in a folder of its own, precedes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcdata.base import files
from hpcdata.base.command import to_type
from hpcdata.base.errors import Unfinished
from hpcdata.cluster.passing.through import run_beside, run_through
from hpcdata.config.compose import compose
from hpcdata.config.schema import RunConfig
from hpcdata.formats.records.copied import Copied
from hpcdata.formats.records.json_targets import LEFT_OUT
from hpcdata.formats.records.laying_out import export_records
from hpcdata.formats.records.options import options_of
from hpcdata.formats.target import Target
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import load_plan

_SOURCES = {"tar": "webdataset", "jsonl": "jsonl"}


def export_copied(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What came of a parsed line of `hpcdata export`, as values of JSON and in words. Raises UserError."""
    run = Path(values["run"] or run_beside(values["out"]))
    made = export_records(
        values["dataset"],
        values["out"],
        values["format"],
        options_of(values),
        lambda copies, settings: recopy(copies, run, settings, values["overrides"]),
    )
    if values["run"] is None and RunPaths(run).plan.exists() and not _rejected(made):
        files.remove_folder(run)
    told: dict[str, Any] = {"out": str(values["out"]), "target": made.format, "samples": _num_there(made)}
    return {**told, "counts": made.counts.to_mapping(), "facts": dict(made.facts)}, list(
        _words(made, values["out"], run)
    )


def _words(made: Target, out: str, run: Path) -> Iterator[str]:
    yield f"{_num_there(made)} samples ({made.format}) in {out}"
    if made.facts.get("renamed"):
        yield f"{made.facts['renamed']} samples have other names there, as theirs come again in another tar"
    if left_out := made.facts.get("left_out"):
        told = ", ".join(f"{reason} {number}" for reason, number in left_out.items())
        yield f"{sum(left_out.values())} records have no form there ({told}): {out}/{LEFT_OUT} lists them"
    if rejected := _rejected(made):
        told = ", ".join(f"{reason} {number}" for reason, number in rejected.items())
        yield f"{rejected.total()} records could not be copied once more ({told}): {to_type('rejects', run)} lists them"


def _num_there(made: Target) -> int:
    copied = made.facts.get("copied_again", {}).get("written", made.source.num_samples)
    return int(copied) - sum(made.facts.get("left_out", {}).values())


def _rejected(made: Target) -> Counter[str]:
    return Counter(made.facts.get("copied_again", {}).get("rejected", {}))


def recopy(copies: Copied, run: Path, settings: Sequence[str], overrides: Sequence[str]) -> Path:
    """The dataset of the new copy, in `run`. Raises Unfinished where it is made elsewhere, or was stopped.

    settings: `copy.format=...` and the like; overrides: keys of a launch, as typed.
    """
    config = _config(copies, run, settings, overrides)
    if config.cluster.kind == "slurm" and (made := _found(config, run)):
        return made
    passed = run_through(config, keep=True)
    if passed.made is None:
        raise Unfinished(
            f"the records are copied in {run}, and not all is done: type the same line again when "
            f"{to_type('status', run)} says that it is"
        )
    return passed.made.folder


def _config(copies: Copied, run: Path, settings: Sequence[str], overrides: Sequence[str]) -> RunConfig:
    fixed = ["stage=copy", "copy.decode=false", "text.tokenizer=none", "image.tokenizer=none", *settings]
    fixed += [f"data.source={_SOURCES[copies.form]}", "data.raw_data_dir=/", "data.token_output_dir=/"]
    fixed += [f"data.shard_size={max(len(part.index) for part in copies.parts)}"]  # or all might be one shard
    config = compose([*fixed, *overrides])
    paths = [str(part.stream.absolute()) for part in copies.parts]
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, raw_data_dir=paths, token_output_dir=str(run.absolute()))
    )


def _found(config: RunConfig, run: Path) -> Path | None:
    """The dataset that an array has made of the same records."""
    paths = RunPaths(run)
    if not paths.plan.exists() or (made := paths.complete_dataset()) is None:
        return None
    return made if {item.origin for item in load_plan(run).inputs} == set(config.data.raw_data_dir) else None
