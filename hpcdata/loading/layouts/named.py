"""Layouts: how the spans of samples become the arrays of a batch. Stored ids never change, only this does.

A layout is a frozen set of options in which None means "as the dataset says"; `bind` fills these in from a manifest
and checks them, `batch` makes the arrays for some rows of a dataset. Every layout delivers, for B rows of length L:

    input_ids       [B, L] int64    text ids as stored, image codes plus the image token shift
    attention_mask  [B, L] bool     False on padding: the only thing that tells padding (ids such as 0 are valid)
    modality        [B, L] int8     0 text and control ids, 1 image codes
    labels          [B, L] int64    input_ids, -100 where nothing is trained; *not* shifted, as Hugging Face expects
    position_ids    [B, L] int64    counts the valid ids of a sample from 0; 0 on padding
    index           [B]    int64    the samples' indices in the plan

and in packed batches, whose rows hold several samples, also

    segment_ids     [B, L] int32    1, 2... for the samples of a row, 0 on padding
    cu_seqlens      [n+1]  int32    where segments begin in the B * L ids (padding is one), for attention over flat ids
    max_seqlen      []     int64    the longest segment
    index           [samples]       row after row

Conversations get the ids of a chat template with `template`, see `hpcdata.loading.layouts.templates`.

`keys` chooses fewer of them. A text that is too long is cut and counted; an image is never cut: a sample that would
need it is an error, or is left out and counted (`too_long="skip"`). With `ids="uint16"`, input_ids and position_ids are
uint16, and `loss_mask` [B, L] bool stands for the labels, until `hpcdata.widen` makes the above of them on the device.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from hpcdata.base.errors import UserError
from hpcdata.loading.layouts.base import IGNORED_LABEL, KEYS, PACKED_KEYS, Batch, BatchCounts, Layout
from hpcdata.loading.layouts.fixed_columns import T2I, Text
from hpcdata.loading.layouts.interleaved import SFT, Caption, Interleaved, LiquidT2I

__all__ = ["IGNORED_LABEL", "KEYS", "LAYOUTS", "PACKED_KEYS", "Batch", "BatchCounts", "Layout", "find_layout"]
__all__ += ["SFT", "T2I", "Caption", "Interleaved", "LiquidT2I", "Text"]


LAYOUTS: dict[str, type[Layout]] = {layout.name: layout for layout in (T2I, LiquidT2I, Caption, Interleaved, SFT, Text)}


def find_layout(layout: str | Layout) -> Layout:
    """A layout by its name, with options as the dataset says but for those behind it: `text:max_length=1024`."""
    if isinstance(layout, Layout):
        return layout
    name, _, given = layout.partition(":")
    if name not in LAYOUTS:
        raise UserError(f"unknown layout {name!r}: expected one of {', '.join(LAYOUTS)}, or a Layout with options")
    known = {option.name for option in dataclasses.fields(LAYOUTS[name])}
    options: dict[str, Any] = {}
    for word in given.split(",") if given else ():
        option, is_given, value = word.partition("=")
        if option not in known or not is_given:
            options_of = ", ".join(sorted(known))
            raise UserError(f"layout {layout!r}: {word!r} is no OPTION=VALUE of {name}, known: {options_of}")
        options[option] = _value(value)
    return LAYOUTS[name](**options)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
