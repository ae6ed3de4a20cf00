"""Copied records laid out for another system: which files a target of each format has.

    webdataset    NAME.tar ... and shardindex.json for wids
    energon       NAME.tar, NAME.tar.idx ... and .nv-meta/
    llava         llava.json (or .jsonl), images/NAME/...: paths of pictures are relative to the folder
    jsonl         NAME/NAME.jsonl, NAME/files/...; in the style of Liquid liquid.jsonl and images/NAME/...
    hf            what datasets.load_from_disk opens; of several splits, a folder each

NAME is that of a shard, `00003-of-00064`. Tars, lines and pictures are hard links where their bytes do not change.
What a format cannot hold is listed in `hpcdata.left_out.jsonl`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpcdata.base.errors import UserError
from hpcdata.formats.arranging import Building, arrange
from hpcdata.formats.origins import origins_of
from hpcdata.formats.records import json_targets, row_targets, tar_targets
from hpcdata.formats.records.copied import Copied
from hpcdata.formats.records.options import OPTIONS, RecordOptions
from hpcdata.formats.records.sample_types import given_type
from hpcdata.formats.records.splits import parse_ratios
from hpcdata.formats.target import Source, Target

Facts = Mapping[str, Any]


_FORMS = {"webdataset": "tar", "energon": "tar", "llava": "jsonl", "jsonl": "jsonl", "hf": "arrow"}
_COPIES = {"tar": "webdataset", "jsonl": "jsonl", "arrow": "hf"}
_WORDS = {"tar": "tars", "jsonl": "JSON lines", "arrow": "Arrow streams"}


Recopy = Callable[[Copied, list[str]], Path]
"""Copies records again with these settings, and says where the dataset is."""


def export_records(
    dataset: str | Path,
    out: str | Path,
    name: str,
    options: RecordOptions | None = None,
    recopy: Recopy | None = None,
) -> Target:
    """Lays a dataset of copied records out in `out`, or finds it there. Raises UserError.

    recopy: for records whose form is another one than this format is made of; None: they are refused.
    """
    options = options or RecordOptions()
    copies = Copied(dataset)
    is_other = _is_of_another_form(copies, dataset, name, can_copy=recopy is not None)
    _check(name, options)
    if name == "hf":
        if options.rows != "auto" and not is_other:
            raise UserError(f"--rows={options.rows}: the rows of {dataset} have their columns already (copy.columns)")
        options = dataclasses.replace(options, rows=row_targets.columns_for(copies, options) if is_other else "auto")
    target = Target(
        format=name,
        options=_chosen(name, options),
        source=Source.of(copies.manifest),
        counts=copies.manifest.counts,
        origins=origins_of(copies.manifest),
    )

    def fill(building: Building) -> Facts:
        if not is_other or recopy is None:
            return _FILLS[name](building, copies, options)
        settings = [f"copy.format={_COPIES[_FORMS[name]]}", *([f"copy.columns={options.rows}"] if name == "hf" else [])]
        again = Copied(recopy(copies, settings))
        if not again.parts:
            raise UserError(f"none of {copies.manifest.num_samples} records fits {', '.join(settings)}")
        return {**_FILLS[name](building, again, options), "copied_again": again.manifest.counts.to_mapping()}

    return arrange(Path(out), target, fill)


def _chosen(name: str, options: RecordOptions) -> dict[str, Any]:
    """The options of a format; a style only where there is one."""
    chosen = {item: getattr(options, item) for item in OPTIONS[name]}
    return {item: value for item, value in chosen.items() if item != "style" or value is not None}


def _is_of_another_form(copies: Copied, dataset: str | Path, name: str, *, can_copy: bool) -> bool:
    """Whether the records have to be copied once more. Raises UserError where they cannot be."""
    if not copies.parts:
        raise UserError(f"{dataset} holds no record: there is nothing to export")
    if copies.form == _FORMS[name] or (can_copy and copies.form != "arrow"):
        return copies.form != _FORMS[name]
    held, fits = (_WORDS[form] for form in (copies.form, _FORMS[name]))
    if copies.form == "arrow":
        raise UserError(f"{dataset} holds {held}, and {name} is made of {fits}: copy the raw records again")
    raise UserError(
        f"{dataset} holds {held}, and {name} is made of {fits}: copy the records with "
        f"copy.format={_COPIES[_FORMS[name]]}, as hpcdata export does by itself"
    )


def _check(name: str, options: RecordOptions) -> None:
    """Raises UserError before anything is written."""
    if "split" in OPTIONS[name]:
        parse_ratios(options.split)
    if name == "jsonl" and options.style not in (None, "liquid"):
        raise UserError(f"--style {options.style} is of datasets of tokens; copied records have --style liquid")
    if name == "energon":
        if options.sample_type == "auto" and options.field_map:
            raise UserError("--field-map belongs to a --sample-type")
        if options.sample_type != "auto":
            given_type(options.sample_type, options.field_map)


_FILLS: dict[str, Callable[[Building, Copied, RecordOptions], Facts]] = {
    "webdataset": tar_targets.webdataset,
    "energon": tar_targets.energon,
    "llava": json_targets.llava,
    "jsonl": json_targets.jsonl,
    "hf": row_targets.hf,
}
