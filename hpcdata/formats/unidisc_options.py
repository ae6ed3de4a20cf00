"""`hpcdata export --format unidisc`: its options, and what came of it."""

from __future__ import annotations

from argparse import BooleanOptionalAction
from collections.abc import Mapping
from typing import Any

from hpcdata.base.command import Parser, path

NAMES = (
    *("block_size", "max_length", "bos", "eos", "pad_id", "image_token_id", "sample_ids", "template", "system"),
    *("text_tokenizer", "interleaved"),
)


def add_options(parser: Parser) -> None:
    group, boolean = parser.add_argument_group("unidisc: datasets of tokens"), BooleanOptionalAction
    width = "text columns of pairs (the dataset's, else the longest text); litdata: ids of a block, for TokensLoader"
    group.add_argument("--block-size", type=int, help=width)
    longest = "columns of interleaved samples (the longest sample); liquid: counts pairs that Liquid would cut"
    group.add_argument("--max-length", type=int, help=longest)
    group.add_argument("--bos", action=boolean, help="begin texts with bos (if the tokenizer has it)")
    group.add_argument("--eos", action=boolean, help="end texts with eos (if the tokenizer has it)")
    group.add_argument(
        "--pad-id",
        type=_token_id,
        metavar="ID|unidisc",
        help="id on padding (the tokenizer's pad id, else eos, else 0); unidisc: its [PAD], 32000 with Llama-2",
    )
    group.add_argument(
        "--image-token-id",
        type=_token_id,
        metavar="ID|unidisc",
        help="what the <image> of data.add_image_token becomes (stays); unidisc: 811",
    )
    group.add_argument(
        "--sample-ids",
        action=boolean,
        help="mark padding of interleaved samples by sample_ids as well (where its id does not tell it)",
    )
    group.add_argument(
        "--template",
        metavar="NAME",
        help="what stands around the turns of conversations: chat (the tokenizer's own), unidisc, or a file of Jinja",
    )
    group.add_argument("--system", metavar="TEXT", help="what the system says where a conversation has none of it")
    group.add_argument(
        "--text-tokenizer", type=path, metavar="FILE", help="the tokenizer, where the dataset is not beside its run"
    )
    group.add_argument("--interleaved", action="store_true", help="write input_ids and modality even for pairs")


def export(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What came of it, as values of JSON and in words. Raises UserError."""
    import dataclasses

    from hpcdata.formats.unidisc import ExportOptions, export_unidisc

    summary = export_unidisc(
        values["dataset"],
        values["out"],
        ExportOptions(
            block_size=values["block_size"],
            max_length=values["max_length"],
            add_bos=values["bos"],
            add_eos=values["eos"],
            pad_id=values["pad_id"],
            image_token_id=values["image_token_id"],
            sample_ids=values["sample_ids"],
            template=values["template"],
            system=values["system"],
            text_tokenizer=values["text_tokenizer"],
            interleaved=values["interleaved"],
        ),
    )
    lines = [f"{summary.samples} samples ({summary.kind}, {summary.width} columns) in {values['out']}"]
    if summary.sample_ids:
        lines.append(
            "sample_ids tell padding; UniDisc's own ids: --pad-id unidisc, for <image> --image-token-id unidisc"
        )
    if summary.truncated_texts or summary.left_out_images:
        cut, left_out = summary.truncated_texts, summary.left_out_images
        lines.append(f"{cut} samples cut, {left_out} images left out for want of room")
    return {**dataclasses.asdict(summary), "out": str(values["out"])}, lines


def _token_id(text: str) -> int | str:
    return text if text == "unidisc" else int(text)
