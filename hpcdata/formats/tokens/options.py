"""Options of `hpcdata export` for datasets of tokens: each is a key of `export.`, as in the line of a launch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from hpcdata.base.command import Parser, path

_OF_ALL = ("shuffle_seed", "file_bytes", "run")
_OF_SEQUENCES = ("columns", "eod", "dtype", "image_shift", "image_begin", "image_end")
OPTIONS = {
    "megatron": (*_OF_ALL, *_OF_SEQUENCES[1:], "modes"),
    "mds": (*_OF_ALL, *_OF_SEQUENCES),
    "litdata": (*_OF_ALL, *_OF_SEQUENCES, "block_size"),
    "hf": (*_OF_ALL, *_OF_SEQUENCES),
    "jsonl": (*_OF_ALL, *_OF_SEQUENCES, "style"),
    "liquid": (*_OF_ALL, "conversations", "max_length", "num_shards"),
}
"""Format -> its options."""


def add_options(parser: Parser) -> None:
    """But for `--block-size`, which others have, too."""
    group = parser.add_argument_group("megatron, mds, litdata, hf, jsonl: datasets of tokens (more: export.KEY=VALUE)")
    group.add_argument("--shuffle-seed", type=int, metavar="N", help="draw the order of rows (the dataset's)")
    group.add_argument(
        "--columns",
        metavar="A,B",
        help="some of input_ids, modality, loss_mask, key, text, spans (input_ids, with pictures also modality)",
    )
    group.add_argument(
        "--eod", metavar="ID|eos|none", help="behind each row (megatron, litdata blocks: eos; else none)"
    )
    group.add_argument("--dtype", choices=("uint16", "int32", "int64"), help="of ids (as narrow as readers take it)")
    group.add_argument(
        "--image-shift", type=int, metavar="N", help="added to codes (data.img_token_shift, else the text vocabulary)"
    )
    group.add_argument("--image-begin", type=int, metavar="ID", help="before the codes of a picture (none)")
    group.add_argument("--image-end", type=int, metavar="ID", help="behind them (none)")
    group.add_argument("--modes", action="store_true", help="megatron: a sequence for each run of texts or pictures")
    group.add_argument(
        "--style",
        choices=("ids", "spans", "liquid"),
        help="jsonl: what a line has (ids); liquid also of copied records, with image_path",
    )
    group.add_argument(
        "--conversations", choices=("reject", "sft"), help="liquid: rejects, or written as one text each (reject)"
    )
    group.add_argument("--num-shards", type=int, metavar="N", help="liquid: files to cut it into (up to 256)")
    group.add_argument("--file-bytes", type=int, metavar="BYTES", help="of files of mds and litdata (64 MiB)")
    group.add_argument("--run", type=path, metavar="DIR", help="working folder, removed when all is done (OUT.run)")


def launch_line(values: Mapping[str, Any], *, run: str) -> list[str]:
    """The command line of a launch that does what the options say."""
    return [
        "stage=export",
        f"data.raw_data_dir={os.path.abspath(values['dataset'])}",
        f"data.token_output_dir={os.path.abspath(run)}",
        f"export.format={values['format']}",
        f"export.out={os.path.abspath(values['out'])}",
        *_overrides(values),
        *values["overrides"],
    ]


def _overrides(values: Mapping[str, Any]) -> list[str]:
    """What was given, as `export.KEY=VALUE`."""
    names = [*dict.fromkeys(name for names in OPTIONS.values() for name in names if name != "run")]
    given = {name: values[name] for name in names if values.get(name) is not None and values[name] is not False}
    if "columns" in given:
        given["columns"] = f"[{given['columns']}]"
    return [f"export.{name}={str(value).lower() if value is True else value}" for name, value in given.items()]
