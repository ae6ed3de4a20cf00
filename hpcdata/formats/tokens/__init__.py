"""Datasets of tokens in the form that other systems read, one format a file. The stage `export` calls them.

    base       what a format is: settings, one batch of rows -> bytes or files, the files of the whole
    rows       a batch of rows of a dataset, and their ids in one sequence each
    options    those of its command
    settling   what is asked for, checked against the dataset
    megatron   .bin and .idx of Megatron-LM
    packed_items   files of items behind a table of their offsets
    mds        shards of MosaicML Streaming
    litdata    chunks of litData
    hf         a folder of Hugging Face datasets' save_to_disk
    strings    ids as JSON, columns of strings
    liquid     Hugging Face folders with the columns of Liquid
    jsonl      JSON lines: ids, spans, or Liquid's map style

To add one: a module with a value `FORMAT` (`base.Format`), and its name in `NAMES`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from hpcdata.base.errors import UserError

if TYPE_CHECKING:
    from hpcdata.formats.tokens.base import Format

NAMES = ("megatron", "mds", "litdata", "hf", "jsonl", "liquid")


def find_format(name: str | None) -> Format:
    """Raises UserError for a format that there is not."""
    if name not in NAMES:
        given = "is required" if name is None else f"={name}: there is no such format"
        raise UserError(f"export.format {given}, expected one of {', '.join(NAMES)}")
    return cast("Format", importlib.import_module(f"hpcdata.formats.tokens.{name}").FORMAT)
