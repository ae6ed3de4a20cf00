"""How copied records are laid out, as options of `hpcdata export`: each format takes some of them."""

from __future__ import annotations

import dataclasses
from argparse import BooleanOptionalAction
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpcdata.base.command import Parser

OPTIONS = {
    "webdataset": ("keys",),
    "energon": ("split", "split_seed", "sample_type", "field_map", "sample_index"),
    "llava": ("prompt", "placeholders", "lines"),
    "jsonl": ("style",),
    "hf": ("split", "split_seed", "rows"),
}
"""Format -> its options, which its bytes depend on."""


def _option(default: Any, words: str, *choices: str, metavar: str | None = None) -> Any:
    return dataclasses.field(default=default, metadata={"help": words, "choices": choices, "metavar": metavar})


@dataclass(frozen=True, kw_only=True)
class RecordOptions:
    """The defaults are those of the command."""

    keys: str = _option(
        "unique",
        "webdataset: samples whose names come again in another tar get others; keep: all tars stay as they are",
        *("unique", "keep"),
    )
    split: str = _option(
        "train:1", "energon, hf: shares of the samples, in whole shards: train:0.9,val:0.1", metavar="SHARES"
    )
    split_seed: int = _option(0, "energon, hf: draws the shards of each share", metavar="N")
    sample_type: str = _option(
        "auto",
        "energon: a class of megatron.energon, such as VQASample, or Crude (told from what the samples hold)",
        metavar="NAME",
    )
    field_map: str | None = _option(
        None, "energon: where its fields stand: image=jpg|png,context=json[question]", metavar="FIELDS"
    )
    sample_index: bool = _option(True, "energon: write index.sqlite, for access by name and sets of several parts")
    rows: str = _option(
        "auto",
        "hf: what columns hold, of records that are no rows yet: pairs, or any record (pairs if all are); "
        "hpcdata reads both in again",
        *("auto", "pairs", "records"),
    )
    prompt: str = _option("", "llava: what is asked of a picture with a caption", metavar="TEXT")
    placeholders: str = _option(
        "keep",
        "llava: a conversation with another number of <image> than pictures is kept, gets them if it has none, or is "
        "left out",
        *("keep", "fix", "reject"),
    )
    style: str | None = dataclasses.field(default=None, metadata={"help": None})
    """jsonl: `liquid` for lines of its map-style data set. The command has it for datasets of tokens, too."""
    lines: bool = _option(False, "llava: JSON lines, not an array")


def add_options(parser: Parser) -> None:
    group = parser.add_argument_group("records that stage=copy has copied")
    for item in dataclasses.fields(RecordOptions):
        if item.metadata["help"] is None:
            continue
        name, words = f"--{item.name.replace('_', '-')}", item.metadata["help"]
        if isinstance(item.default, bool):
            group.add_argument(name, action=BooleanOptionalAction, default=item.default, help=words)
        else:
            kind, choices = (int if isinstance(item.default, int) else str), item.metadata["choices"] or None
            metavar = item.metadata["metavar"]
            group.add_argument(name, type=kind, default=item.default, choices=choices, metavar=metavar, help=words)


def options_of(values: Mapping[str, Any]) -> RecordOptions:
    """Those of a parsed line."""
    return RecordOptions(**{item.name: values[item.name] for item in dataclasses.fields(RecordOptions)})
